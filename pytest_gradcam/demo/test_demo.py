"""The test file that `gradcam demo` runs: two models with the same accuracy, and the test that tells them apart."""

from collections.abc import Callable

import pytest
from torch import nn

from pytest_gradcam import Gradcam
from pytest_gradcam.demo.models import NAMES, Name, load_model, predict
from pytest_gradcam.demo.pictures import Picture, held_out

HELD_OUT = list(held_out(200))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    name: Name = request.param
    return load_model(name)


def test_accuracy(model: nn.Module, record_property: Callable[[str, object], None]) -> None:
    predicted = predict(model, [picture.image for picture in HELD_OUT])
    right = [picture.cls == cls for picture, cls in zip(HELD_OUT, predicted, strict=True)]
    accuracy = sum(right) / len(right)
    record_property("accuracy", accuracy)
    assert accuracy >= 0.99


@pytest.mark.parametrize("picture", HELD_OUT[:8], ids=lambda picture: picture.name)
def test_reads_the_object(gradcam: Gradcam, model: nn.Module, picture: Picture) -> None:
    gradcam.assert_attention_in_region(model, picture.image, picture.box, picture.cls)
