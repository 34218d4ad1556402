"""Measurements: pure functions on arrays, numpy in, float out. Thresholds, pictures and verdicts are elsewhere.

`localisation` says where a map lies, `registry` what that is worth, `similarity` how alike two maps are, and
`faithfulness` whether the model relies on what a map shows.
"""

from __future__ import annotations

from pytest_gradcam.metrics.faithfulness import average_drop, deletion_auc, increase_rate, insertion_auc, order
from pytest_gradcam.metrics.localisation import (
    calibrated_energy,
    chance,
    distance_to,
    energy,
    filled,
    filling,
    inside,
    iou,
    lift,
    mass_outside,
    peak,
    pointing_game,
    rank_accuracy,
)
from pytest_gradcam.metrics.maps import TIE, Map, area_average
from pytest_gradcam.metrics.registry import METRICS, Metric
from pytest_gradcam.metrics.similarity import SIMILARITIES, Similarity, cosine, pearson, rmse, shift, wasserstein

__all__ = [
    "METRICS",
    "SIMILARITIES",
    "TIE",
    "Map",
    "Metric",
    "Similarity",
    "area_average",
    "average_drop",
    "calibrated_energy",
    "chance",
    "cosine",
    "deletion_auc",
    "distance_to",
    "energy",
    "filled",
    "filling",
    "increase_rate",
    "insertion_auc",
    "inside",
    "iou",
    "lift",
    "mass_outside",
    "order",
    "peak",
    "pearson",
    "pointing_game",
    "rank_accuracy",
    "rmse",
    "shift",
    "wasserstein",
]
