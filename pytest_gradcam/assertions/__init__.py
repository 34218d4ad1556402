"""The assertions: explain → measure → Verdict → return or raise; and `Gradcam`, the same bound to settings.

Knows no pytest. `attention` judges maps against regions, `maps` against each other (`comparing` has the similarities,
`turns` the flips), `trust` the explanation itself, `reliance` the prediction. `together` makes an outcome of
measurements, `asking` and `asked` do what all of them need.
"""

from __future__ import annotations

from pytest_gradcam.assertions.functions import (
    assert_attention_equivariant,
    assert_attention_in_region,
    assert_attention_on_every,
    assert_attention_outside_region,
    assert_attention_stable,
    assert_classes_differ,
    assert_dataset_attention,
    assert_explanation_depends_on_weights,
    assert_explanation_faithful,
    assert_prediction_ignores,
    assert_prediction_needs,
    assert_same_attention,
)
from pytest_gradcam.assertions.gradcam import Gradcam
from pytest_gradcam.assertions.keywords import AssertKeywords, DatasetKeywords, SuiteKeywords

__all__ = [
    "AssertKeywords",
    "DatasetKeywords",
    "Gradcam",
    "SuiteKeywords",
    "assert_attention_equivariant",
    "assert_attention_in_region",
    "assert_attention_on_every",
    "assert_attention_outside_region",
    "assert_attention_stable",
    "assert_classes_differ",
    "assert_dataset_attention",
    "assert_explanation_depends_on_weights",
    "assert_explanation_faithful",
    "assert_prediction_ignores",
    "assert_prediction_needs",
    "assert_same_attention",
]
