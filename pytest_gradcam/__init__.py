"""Attention assertions for image models, in pytest: the public names.

Names are resolved lazily (PEP 562): importing this package imports neither torch nor numpy, so a project that has the
plugin installed but does not use it pays nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_gradcam.assertions import (
        Gradcam,
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
    from pytest_gradcam.cam import Explanation
    from pytest_gradcam.errors import (
        BaselineError,
        ClassError,
        DeviceError,
        GradcamError,
        ImageError,
        ImageTypeError,
        MissingBaselineError,
        ModelError,
        ModelTypeError,
        NonFiniteError,
        RegionError,
        RegionTypeError,
        SettingsError,
        TargetLayerError,
        TransformError,
        VacuousRegionError,
        VacuousThresholdError,
        ZeroEvidenceWarning,
    )
    from pytest_gradcam.explanations import explain, explain_batch, explain_classes
    from pytest_gradcam.regions import Region
    from pytest_gradcam.settings import Settings
    from pytest_gradcam.verdicts import (
        AttentionError,
        InconclusiveError,
        InconclusiveWarning,
        Verdict,
        ZeroEvidenceError,
    )

__version__ = "0.1.0"

_HOME = {
    "Gradcam": "assertions",
    "assert_attention_equivariant": "assertions",
    "assert_attention_in_region": "assertions",
    "assert_attention_on_every": "assertions",
    "assert_attention_outside_region": "assertions",
    "assert_attention_stable": "assertions",
    "assert_classes_differ": "assertions",
    "assert_dataset_attention": "assertions",
    "assert_explanation_depends_on_weights": "assertions",
    "assert_explanation_faithful": "assertions",
    "assert_prediction_ignores": "assertions",
    "assert_prediction_needs": "assertions",
    "assert_same_attention": "assertions",
    "Explanation": "cam",
    "explain": "explanations",
    "explain_batch": "explanations",
    "explain_classes": "explanations",
    "BaselineError": "errors",
    "ClassError": "errors",
    "DeviceError": "errors",
    "GradcamError": "errors",
    "ImageError": "errors",
    "ImageTypeError": "errors",
    "MissingBaselineError": "errors",
    "ModelError": "errors",
    "ModelTypeError": "errors",
    "NonFiniteError": "errors",
    "RegionError": "errors",
    "RegionTypeError": "errors",
    "SettingsError": "errors",
    "TargetLayerError": "errors",
    "TransformError": "errors",
    "VacuousRegionError": "errors",
    "VacuousThresholdError": "errors",
    "ZeroEvidenceWarning": "errors",
    "Region": "regions",
    "Settings": "settings",
    "AttentionError": "verdicts",
    "InconclusiveError": "verdicts",
    "InconclusiveWarning": "verdicts",
    "Verdict": "verdicts",
    "ZeroEvidenceError": "verdicts",
}

__all__ = [
    "AttentionError",
    "BaselineError",
    "ClassError",
    "DeviceError",
    "Explanation",
    "Gradcam",
    "GradcamError",
    "ImageError",
    "ImageTypeError",
    "InconclusiveError",
    "InconclusiveWarning",
    "MissingBaselineError",
    "ModelError",
    "ModelTypeError",
    "NonFiniteError",
    "Region",
    "RegionError",
    "RegionTypeError",
    "Settings",
    "SettingsError",
    "TargetLayerError",
    "TransformError",
    "VacuousRegionError",
    "VacuousThresholdError",
    "Verdict",
    "ZeroEvidenceError",
    "ZeroEvidenceWarning",
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
    "explain",
    "explain_batch",
    "explain_classes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
