"""What a user would copy: attention tests for one model over a few labelled pictures.

Run it with `pytest examples`. The model and the pictures are the demo's; put yours in the two fixtures.
"""

from __future__ import annotations

import pytest
from torch import nn

from pytest_gradcam import AttentionError, Gradcam
from pytest_gradcam.demo.models import load_model
from pytest_gradcam.demo.pictures import Picture, held_out

PICTURES = list(held_out(4))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_model("honest")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_reads_the_object(gradcam: Gradcam, model: nn.Module, picture: Picture) -> None:
    """The evidence for the class lies in the object's box, more than chance would have it."""
    gradcam.assert_attention_in_region(model, picture.image, picture.box, picture.label)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_ignores_the_stamp(gradcam: Gradcam, model: nn.Module, picture: Picture) -> None:
    """The stamp holds no more of the evidence than its share of the picture."""
    gradcam.assert_attention_outside_region(model, picture.image, picture.stamp_box, picture.label)


@pytest.mark.gradcam(metric="pointing_game")
def test_points_at_the_object(gradcam: Gradcam, model: nn.Module) -> None:
    """Settings for one test: another metric."""
    picture = PICTURES[0]
    gradcam.assert_attention_in_region(model, picture.image, picture.box, picture.label)


def test_the_stamp_reader_is_caught(gradcam: Gradcam) -> None:
    """A verdict that failed is an AssertionError and carries its evidence."""
    picture = PICTURES[0]
    with pytest.raises(AttentionError) as caught:
        gradcam.assert_attention_in_region(load_model("shortcut"), picture.image, picture.box, picture.label)
    assert caught.value.verdict is not None
    assert caught.value.verdict.value < caught.value.verdict.threshold
