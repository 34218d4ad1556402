"""From what was asked for to the scalar that is explained, and the plain facts of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    ClassError,
    GradcamError,
    NonFiniteError,
    SettingsError,
    explain,
    explain_batch,
    explain_classes,
)
from tests.models import apart, grad_cam_of, picture, reference, small

ANIMALS = ["cat", "dog", "cow", "elk"]


def refused(cls: Any, message: str, error: type[GradcamError] = ClassError, **keywords: Any) -> None:
    """The same words from each way to ask; the message is exact."""
    model, x = small(), picture(32, 32)
    calls: list[Callable[[], object]] = [
        lambda: explain(model, x, cls, **keywords),
        lambda: explain(model, x, cls, engine="split", **keywords),
        lambda: explain_batch(model, picture(32, 32, count=2), [cls, cls], **keywords),
        lambda: explain_classes(model, x, [1, cls], **keywords),
    ]
    for call in calls:
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == message
        assert isinstance(raised.value, ValueError)


class TestIndices:
    @pytest.mark.parametrize("cls", [2, np.int64(2), np.uint8(2), torch.tensor(2)])
    def test_of_any_integer_type(self, cls: Any) -> None:
        got = explain(small(), picture(32, 32), cls)
        assert (got.cls, type(got.cls)) == (2, int)

    @pytest.mark.parametrize("cls", [4, 1000, -1, -4, 2**70])
    def test_out_of_range_are_refused(self, cls: int) -> None:
        refused(cls, f"class {cls} is out of range: the model has 4 classes (0..3)")

    def test_out_of_range_of_imagenet(self) -> None:
        with pytest.raises(ClassError) as raised:
            explain(small(classes=1000), picture(32, 32), 1000)
        assert str(raised.value) == "class 1000 is out of range: the model has 1000 classes (0..999)"

    def test_out_of_range_of_one_class(self) -> None:
        with pytest.raises(ClassError) as raised:
            explain(small(classes=1), picture(32, 32), 1)
        assert str(raised.value) == (
            "class 1 is out of range: the model has 1 class (0); its answer no is cls=lambda output: -output[0, 0]"
        )

    @pytest.mark.parametrize(
        "cls",
        [True, False, 1.0, np.float32(1), np.True_, b"cat", (1,), torch.tensor(1.0), torch.tensor(True), object()],
    )
    def test_of_another_type_are_refused(self, cls: Any) -> None:
        with pytest.raises(ClassError, match=r"^cls is .*: pass a class index, a label, a callable or None$"):
            explain(small(), picture(32, 32), cls)

    def test_true_is_not_class_1(self) -> None:
        refused(True, "cls is True: pass a class index, a label, a callable or None")


class TestLabels:
    def test_stand_for_their_index(self) -> None:
        by_label = explain(small(), picture(32, 32), "cow", labels=ANIMALS)
        by_index = explain(small(), picture(32, 32), 2)
        assert (by_label.cls, by_label.label, by_index.label) == (2, "cow", None)
        assert by_label.predicted_label == ANIMALS[by_index.predicted or 0]
        assert np.array_equal(by_label.raw, by_index.raw)

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("elc", "the model has no class 'elc'; did you mean 'elk'?"),
            ("Dog", "the model has no class 'Dog'; did you mean 'dog'?"),
            ("rocket", "the model has no class 'rocket'; it has 'cat', 'dog', 'cow', 'elk'"),
            ("", "the model has no class ''; it has 'cat', 'dog', 'cow', 'elk'"),
        ],
    )
    def test_that_are_unknown_come_with_what_was_meant(self, label: str, message: str) -> None:
        refused(label, message, labels=ANIMALS)

    def test_without_names_are_refused(self) -> None:
        refused(
            "cat",
            "class 'cat' is a label, but neither the model nor the settings name its 4 classes: pass the class index, "
            "or labels=[…]",
        )

    def test_that_name_two_classes_are_refused(self) -> None:
        refused(
            "cat",
            "label 'cat' names the classes [0, 2]: pass the index of the one that is meant",
            labels=["cat", "dog", "cat", "elk"],
        )

    @pytest.mark.parametrize("names", [ANIMALS[:3], [*ANIMALS, "fox"]])
    def test_that_are_not_one_for_each_class_are_refused(self, names: list[str]) -> None:
        for cls in (1, "dog", None):
            refused(
                cls,
                f"labels has {len(names)} names, the model has 4 classes: give one for each",
                SettingsError,
                labels=names,
            )


class TestCallables:
    def test_give_the_score(self) -> None:
        model, x = small(), picture(32, 32)

        def score(output: Any) -> Tensor:
            found: Tensor = output[0, 1] - 0.5 * output[0, 3]
            return found

        got = explain(model, x, score)
        assert (got.cls, got.label, got.probability, got.predicted, got.predicted_probability) == (None,) * 5
        assert got.score == pytest.approx(float(score(model(x).detach())), rel=1e-6)
        assert apart(got.raw, grad_cam_of(*reference(model, x, "relu2", score))) <= 1e-5

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    def test_may_give_any_shape_of_one_value(self, shape: tuple[int, ...]) -> None:
        got = explain(small(), picture(32, 32), lambda output: output[0, 1].reshape(shape))
        assert np.array_equal(got.raw, explain(small(), picture(32, 32), lambda output: output[0, 1]).raw)

    @pytest.mark.parametrize(
        ("score", "seen"),
        [
            (lambda output: output, "a tensor of shape (1, 4)"),
            (lambda output: output[0, :0], "a tensor of shape (0,)"),
            (lambda output: float(output.detach()[0, 1]), "a float"),
            (lambda output: None, "a NoneType"),
            (lambda output: output.detach().numpy()[0, 1], "a float32"),
        ],
    )
    def test_that_give_no_scalar_tensor_are_refused(self, score: Any, seen: str) -> None:
        for call in (explain, lambda *args: explain_classes(args[0], args[1], [1, args[2]])):
            with pytest.raises(ClassError) as raised:
                call(small(), picture(32, 32), score)
            assert str(raised.value) == (
                f"the cls callable returned {seen}: it must return a scalar tensor made from the output"
            )

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_that_give_no_number_are_refused(self, value: str) -> None:
        refused(
            lambda output: output[0, 1].exp() * float(value),
            f"the cls callable returned {float(value)}: the score must be finite",
            NonFiniteError,
        )

    def test_that_raise_pass_their_error_on(self) -> None:
        def score(output: Any) -> Tensor:
            raise KeyError("boxes")

        with pytest.raises(KeyError, match="boxes"):
            explain(small(), picture(32, 32), score)

    def test_that_return_a_constant_explain_nothing(self) -> None:
        with pytest.raises(GradcamError, match="does not depend"):
            explain(small(), picture(32, 32), lambda output: torch.tensor(1.0))
        with pytest.raises(GradcamError, match="does not depend"):
            explain(small(), picture(32, 32), lambda output: output[0, 1].detach(), layer="relu2")


class Heads(NamedTuple):
    logits: Tensor
    aside: Tensor


class Attributes(OrderedDict[str, Any]):
    """A mapping whose items are attributes too, as transformers' outputs are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Shaped(nn.Module):
    """A classifier that packs its output."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net = small()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.net(x))


# How the output is packed, and how a callable reads class 1 of one image from it.
PACKS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tensor": (lambda y: y, lambda output: output[0, 1]),
    "tuple": (lambda y: (y, 2 * y), lambda output: output[0][0, 1]),
    "list": (lambda y: [y, 2 * y], lambda output: output[0][0, 1]),
    "named tuple": (lambda y: Heads(y, 2 * y), lambda output: output.logits[0, 1]),
    "dict": (lambda y: {"aside": 2 * y, "logits": y}, lambda output: output["logits"][0, 1]),
    "nested": (lambda y: {"out": [(y, 2 * y)]}, lambda output: output["out"][0][0][0, 1]),
    "mapping with attributes": (lambda y: Attributes(logits=y, aside=2 * y), lambda output: output.logits[0, 1]),
}


@pytest.mark.parametrize("kind", PACKS)
class TestOutputs:
    """Logits and callables alike, for one image and for many, whatever the output is packed in."""

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    @pytest.mark.parametrize("by", ["class", "callable"])
    def test_one_image(self, kind: str, by: str, engine: str) -> None:
        pack, score = PACKS[kind]
        x = picture(32, 32)
        got = explain(Shaped(pack), x, 1 if by == "class" else score, engine=engine)
        assert got.layer == "net.relu2"
        assert apart(got.raw, grad_cam_of(*reference(small(), x, "relu2", 1))) <= 1e-5

    @pytest.mark.parametrize("by", ["class", "callable", "both"])
    def test_many_images(self, kind: str, by: str) -> None:
        """A callable gets the part of the output that belongs to its image, packed as for one image."""
        pack, score = PACKS[kind]
        x = picture(32, 32, count=3)
        ways: dict[str, list[Any]] = {"class": [1, 1, 1], "callable": [score] * 3, "both": [score, 1, score]}
        asked = ways[by]
        for i, got in enumerate(explain_batch(Shaped(pack), x, asked)):
            assert got.cls == (1 if asked[i] == 1 else None)
            assert apart(got.raw, grad_cam_of(*reference(small(), x[i : i + 1], "relu2", 1))) <= 1e-5
            assert got.score == pytest.approx(float(small()(x[i : i + 1])[0, 1].detach()), rel=1e-5)


class TestOutputsThatCannotBeDivided:
    @pytest.mark.parametrize(
        ("pack", "message"),
        [
            (lambda y: (y, y.sum()), r"has a tensor of shape \(\) for 2 images"),
            (lambda y: (y, y[:1]), r"has a tensor of shape \(1, 4\) for 2 images"),
            (lambda y: (y, "text"), r"holds a str, which cannot be divided among 2 images"),
        ],
    )
    def test_are_refused_for_callables(self, pack: Callable[[Tensor], Any], message: str) -> None:
        model, x = Shaped(pack), picture(32, 32, count=2)
        with pytest.raises(ClassError, match=message + r".*explain the images one at a time"):
            explain_batch(model, x, [lambda output: output[0][0, 1]] * 2)
        assert len(explain_batch(model, x, [1, 2])) == 2

    def test_logits_for_another_number_of_images(self) -> None:
        with pytest.raises(ClassError, match="the model gave 1 rows of logits for 2 images"):
            explain_batch(Shaped(lambda y: y[:1]), picture(32, 32, count=2), 1)


class TestFacts:
    def test_are_those_of_the_logits(self) -> None:
        model, x = small(classes=5), picture(32, 32, count=3)
        logits = model(x).detach().double()
        odds = torch.softmax(logits, dim=1)
        for i, got in enumerate(explain_batch(model, x, [3, None, 0])):
            best = int(logits[i].argmax())
            cls = (3, best, 0)[i]
            assert (got.cls, got.predicted) == (cls, best)
            assert got.score == pytest.approx(float(logits[i, cls]), rel=1e-5)
            assert got.probability == pytest.approx(float(odds[i, cls]), rel=1e-5)
            assert got.predicted_probability == pytest.approx(float(odds[i, best]), rel=1e-5)
            assert {type(v) for v in (got.score, got.probability, got.predicted_probability, got.evidence)} == {float}

    def test_of_one_logit_are_a_yes_or_no(self) -> None:
        """A softmax over one logit would call everything certain."""
        model, x = small(classes=1), picture(32, 32)
        with torch.no_grad():
            model(x)
            next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)).bias.add_(5.0)
        got = explain(model, x)
        assert (got.cls, got.predicted) == (0, 0)
        assert got.probability == pytest.approx(float(torch.sigmoid(model(x).detach())[0, 0]), rel=1e-5)
        assert got.probability == got.predicted_probability

    def test_of_large_logits_do_not_overflow(self) -> None:
        model = nn.Sequential(*small().children(), Times(1e4))
        got = explain(model, picture(32, 32))
        assert got.probability == 1.0 and abs(got.score) > 100


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class TestSaturation:
    """Behind a softmax that is certain, the gradient is rounding, and the map would be of noise."""

    MESSAGE = r"are probabilities or their logarithms, and that of class \d is 1: a saturated softmax has no gradient"

    def certain(self) -> nn.Module:
        return nn.Sequential(*small().children(), Times(1e3), nn.Softmax(dim=1))

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    def test_is_refused(self, engine: str) -> None:
        model, x = self.certain(), picture(32, 32)
        best = int(model(x).argmax())
        calls: list[Callable[[], object]] = [
            lambda: explain(model, x, engine=engine),
            lambda: explain(model, x, best, engine=engine),
            lambda: explain_batch(model, picture(32, 32, count=2), engine=engine),
            lambda: explain_classes(model, x, [(best + 1) % 4, best], engine=engine, layer="4"),
        ]
        for call in calls:
            with pytest.raises(GradcamError, match=self.MESSAGE):
                call()

    def test_is_refused_of_a_pair(self) -> None:
        model: Any = self.certain()
        with pytest.raises(GradcamError, match=self.MESSAGE):
            explain((model[:5], model[5:]), picture(32, 32), engine="split")

    def test_probabilities_with_a_doubt_are_explained(self) -> None:
        model, x = nn.Sequential(*small().children(), nn.Softmax(dim=1)), picture(32, 32)
        got = explain(model, x, 1)
        assert apart(got.raw, grad_cam_of(*reference(model, x, "4", 1))) <= 1e-4
