"""Scores without gradients: the same as one plain forward for each input, whatever the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import ClassError, NonFiniteError
from pytest_gradcam.cam.forwards import score_inputs
from pytest_gradcam.cam.running import Options
from tests.models import TwoHeads, picture, small

COUNT = 7
SIDE = 24


def inputs() -> Tensor:
    return picture(SIDE, SIDE, count=COUNT)


def alone(model: nn.Module, x: Tensor) -> list[Any]:
    with torch.no_grad():
        return [model(x[i : i + 1]) for i in range(len(x))]


@pytest.mark.parametrize("batch", [None, 1, 3, 7, 32])
def test_each_input_has_the_score_that_it_has_alone(batch: int | None) -> None:
    model, x = small(), inputs()
    facts = score_inputs(model, x, 2, Options(), batch=batch)
    logits = torch.cat(alone(model, x))
    assert [fact.score for fact in facts] == pytest.approx(logits[:, 2].tolist(), rel=1e-5)
    assert [fact.probability for fact in facts] == pytest.approx(logits.softmax(1)[:, 2].tolist(), rel=1e-5)
    assert [fact.predicted for fact in facts] == logits.argmax(1).tolist()
    assert {fact.cls for fact in facts} == {2}


def test_a_callable_gets_each_inputs_own_part_of_the_output() -> None:
    model, x = TwoHeads(), inputs()
    facts = score_inputs(model, x, lambda output: output[1][0, 2] - output[0][0, 1], Options(), batch=3)
    expected = [float(b[0, 2] - a[0, 1]) for a, b in alone(model, x)]
    assert [fact.score for fact in facts] == pytest.approx(expected, rel=1e-5)


def test_none_is_the_predicted_class_of_each() -> None:
    model, x = small(), inputs()
    expected = torch.cat(alone(model, x)).max(1)
    facts = score_inputs(model, x, None, Options())
    assert [fact.cls for fact in facts] == expected.indices.tolist()
    assert [fact.score for fact in facts] == pytest.approx(expected.values.tolist(), rel=1e-5)


def test_a_label_is_a_class() -> None:
    facts = score_inputs(small(), inputs(), "c", Options(labels=["a", "b", "c", "d"]))
    assert {fact.cls for fact in facts} == {2}


def test_a_model_that_mixes_the_images_of_a_batch_gets_one_at_a_time() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(2))
    model.extend([nn.Flatten(), nn.Linear(16, 3)]).eval()
    x = inputs()
    facts = score_inputs(model, x, 0, Options(), batch=4)
    assert [fact.score for fact in facts] == pytest.approx([float(out[0, 0]) for out in alone(model, x)], rel=1e-5)


class Views(nn.Module):
    """Flattens by `view`, which the layout in which convolutions are fastest does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 22 * 22, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.conv(x).view(len(x), -1))


def test_a_model_that_asks_for_contiguous_memory_gets_it() -> None:
    model, x = Views().eval(), inputs()
    facts = score_inputs(model, x, 1, Options(), batch=3)
    assert [fact.score for fact in facts] == pytest.approx([float(out[0, 1]) for out in alone(model, x)], rel=1e-4)


def test_what_the_model_raises_passes_unchanged() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of coffee")

    with pytest.raises(RuntimeError, match="out of coffee"):
        score_inputs(Fails(), inputs(), 0, Options())


def test_the_model_and_the_inputs_are_left_as_they_were() -> None:
    model, x = small().train(), inputs()
    before, values = x.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    score_inputs(model, x, 0, Options())
    assert all(m.training for m in model.modules())
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert torch.equal(x, before)


def test_a_model_that_writes_to_its_input_changes_no_other_score() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Any:
            return self.net(x.mul_(0.5))

    x = inputs()
    expected = [float(out[0, 1]) for out in alone(small(), 0.5 * x)]
    for _ in range(2):
        assert [fact.score for fact in score_inputs(Writes(), x, 1, Options())] == pytest.approx(expected, rel=1e-5)


def test_a_callable_model_is_scored_where_the_method_takes_one() -> None:
    model, x = small(), inputs()
    facts = score_inputs(lambda x: model(x).detach().numpy(), x, 2, Options(method="occlusion"), batch=3)
    assert [fact.score for fact in facts] == pytest.approx([float(out[0, 2]) for out in alone(model, x)], rel=1e-5)


def test_a_pair_is_scored_too() -> None:
    model: Any = small()
    x = inputs()
    facts = score_inputs((model[:5], model[5:]), x, 2, Options(engine="split"))
    assert [fact.score for fact in facts] == pytest.approx([float(out[0, 2]) for out in alone(model, x)], rel=1e-5)


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(ClassError, match="class 9 is out of range"):
        score_inputs(small(), inputs(), 9, Options())


def test_a_score_that_is_not_finite_is_refused_wherever_it_comes() -> None:
    x = inputs()
    x[5] = 1e38
    with pytest.raises(NonFiniteError):
        score_inputs(small(), x, 0, Options(), batch=2)
