"""What must not pass without evidence: regions in arrays, maps of one value, predictions that depend on no picture."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_gradcam import (
    InconclusiveError,
    ModelError,
    RegionError,
    TargetLayerError,
    assert_attention_in_region,
    assert_attention_on_every,
    assert_attention_outside_region,
    assert_explanation_depends_on_weights,
    assert_prediction_ignores,
)
from pytest_gradcam.small_models import SmallModel
from tests.models import coloured, reads_colours

BOXES = [(8, 16, 24, 32), (40, 0, 56, 16), (32, 40, 48, 56)]
IMAGES = [coloured((0, box)) for box in BOXES]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_rows_of_an_array_of_boxes_are_one_for_each_image_as_in_a_list(kind: Any) -> None:
    """Of the boxes in another order, none is where its image is red: each map is below chance, and not in a union."""
    wrong = [BOXES[1], BOXES[2], BOXES[0]]
    values = [
        assert_attention_outside_region(reads_colours(), IMAGES, boxes, 0, pass_rate=0.1).values
        for boxes in (wrong, kind(wrong))
    ]
    assert values[0] == values[1] and max(values[0]) < 0.0
    with pytest.raises(RegionError, match="2 regions, in an array"):
        assert_attention_outside_region(reads_colours(), IMAGES, kind(wrong[:2]), 0)


def test_a_list_of_one_is_inconclusive_and_its_record_is_json() -> None:
    with pytest.raises(InconclusiveError) as raised:
        assert_attention_in_region(reads_colours(), IMAGES[:1], BOXES[:1], 0)
    values = raised.value.verdict.to_json()
    assert values["interval"] == [None, None]
    json.dumps(values, allow_nan=False)


def test_a_uniform_map_is_outside_of_nothing() -> None:
    with pytest.raises(TargetLayerError, match="has the same value everywhere"):
        assert_attention_outside_region(
            reads_colours(), IMAGES[0], BOXES[1], 0, method=lambda model, x, target: np.ones((8, 8))
        )


def test_a_prediction_that_depends_on_no_picture_ignores_no_region() -> None:
    def constant(inputs: Tensor) -> Tensor:
        return torch.tensor([[3.0, 0.0]]).repeat(len(inputs), 1)

    with pytest.raises(ModelError, match="it depends on no picture"):
        assert_prediction_ignores(constant, IMAGES[0], BOXES[0])


def test_a_saturated_softmax_does_not_hide_what_a_prediction_relies_on() -> None:
    model = reads_colours()

    def saturated(inputs: Tensor) -> Tensor:
        probabilities: Tensor = (1e4 * model(inputs)).softmax(dim=1)
        return probabilities

    with pytest.raises(ModelError, match="a saturated softmax does not tell what a change costs"):
        assert_prediction_ignores(saturated, IMAGES[0], BOXES[0], 0)


def test_a_region_twice_is_no_two_parts() -> None:
    with pytest.raises(RegionError, match="share 100% of the smaller one"):
        assert_attention_on_every(reads_colours(), IMAGES[0], [BOXES[0], BOXES[0]], 0)


def test_the_weights_of_a_model_may_be_drawn_in_inference_mode() -> None:
    net, x = SmallModel(size=(16, 16)).build(), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    outside = assert_explanation_depends_on_weights(net, x, threshold=0.999).value
    with torch.inference_mode():
        assert assert_explanation_depends_on_weights(net, x, threshold=0.999).value == outside
