"""Weights drawn anew: which ones, what becomes of their values, and which models cannot be copied."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_gradcam import ModelError, ModelTypeError, Settings
from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.redrawn import Redrawn
from pytest_gradcam.assertions.trust import judge_depends_on_weights
from pytest_gradcam.cam.running import Options
from tests.models import Floats, coloured, reads_colours, small

IMAGE = coloured((0, (8, 16, 24, 32)), (2, (40, 40, 64, 56)))


class TestRedrawn:
    def redrawn(self, model: Any, layers: list[str], channels: int = 3) -> Redrawn:
        return Redrawn(model, torch.rand(1, channels, 64, 64), Options(device="cpu"), layers)

    def values(self, model: Any) -> dict[str, Floats]:
        return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}

    def test_the_head_is_what_comes_after_the_layer(self) -> None:
        assert self.redrawn(small(), ["relu2"]).head == ["fc"]
        assert self.redrawn(small(), ["conv1"]).head == ["bn", "conv2", "fc"]
        assert self.redrawn(small(), []).head == ["fc"]
        layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
        assert self.redrawn(nn.Sequential(layers), ["relu"]).head == ["conv"]
        assert self.redrawn(nn.ModuleList([small()])[0], ["bn", "relu1"]).head == ["conv2", "fc"]

    def test_values_change_places_and_are_put_back(self) -> None:
        model = small()
        copied = self.redrawn(model, ["relu2"])
        own = self.values(model)
        copied.draw("all", 3)
        every = self.values(copied.model)
        for name, value in own.items():
            assert np.array_equal(np.sort(value, axis=None), np.sort(every[name], axis=None))
        changed = {name for name, value in own.items() if not np.array_equal(value, every[name])}
        assert changed == set(own) - {"bn.num_batches_tracked"}
        mean, var = own["bn.running_mean"], own["bn.running_var"]
        pairs = {(float(a), float(b)) for a, b in zip(mean, var, strict=True)}
        assert {
            (float(a), float(b)) for a, b in zip(every["bn.running_mean"], every["bn.running_var"], strict=True)
        } == pairs
        copied.draw("head", 3)
        head = self.values(copied.model)
        assert {name for name, value in own.items() if not np.array_equal(value, head[name])} == {
            "fc.weight",
            "fc.bias",
        }
        assert all(np.array_equal(value, own[name]) for name, value in self.values(model).items())
        copied.draw("all", 3)
        assert all(np.array_equal(value, every[name]) for name, value in self.values(copied.model).items())

    def test_seeds_differ(self) -> None:
        copied = self.redrawn(small(), ["relu2"])
        drawn = []
        for seed in (0, 1):
            copied.draw("head", seed)
            drawn.append(self.values(copied.model)["fc.weight"])
        assert not np.array_equal(drawn[0], drawn[1])

    def test_weights_that_are_all_one_cannot_be_drawn(self) -> None:
        model = small()
        nn.init.ones_(model.fc.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(model.fc.bias)  # type: ignore[union-attr, arg-type]
        with pytest.raises(ModelError, match=r"the weights of 'fc' do not change when their values change places"):
            self.redrawn(model, ["relu2"]).draw("head", 0)

    def test_models_without_weights_or_that_cannot_be_copied(self) -> None:
        with pytest.raises(ModelError, match="Sequential has no weights that could be drawn anew"):
            self.redrawn(nn.Sequential(nn.AvgPool2d(8)), [])
        model: Any = small()
        model.kept = model(torch.rand(1, 3, 32, 32))  # a tensor with a graph
        with pytest.raises(ModelError, match=r"Sequential cannot be copied \('?Only Tensors created explicitly"):
            self.redrawn(model, [])

    def test_a_pair_of_modules_is_copied_and_functions_are_refused(self) -> None:
        model = reads_colours()
        features, head = model[:2], model[2:]
        pair = (features, head)
        asking = Asking("ask", Settings(device="cpu", engine="split"))
        given: dict[str, Any] = {"draws": 8, "similarity": "pearson", "threshold": None}
        assert judge_depends_on_weights(asking, pair, IMAGE, 0, **given).metric == "pearson"
        with pytest.raises(ModelTypeError, match=r"a part of the pair \(features, head\) is a function"):
            judge_depends_on_weights(asking, (features, head.forward), IMAGE, 0, **given)
