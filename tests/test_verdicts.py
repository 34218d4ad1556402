"""Verdict and the error family: plain values for whoever stores them, and the exceptions that callers expect."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from pytest_gradcam import (
    AttentionError,
    InconclusiveError,
    InconclusiveWarning,
    Verdict,
    ZeroEvidenceError,
    assert_attention_in_region,
    assert_attention_outside_region,
    errors,
    verdicts,
)
from pytest_gradcam.settings import METRICS
from tests.models import coloured, reads_colours

RED, ELSEWHERE = (8, 16, 24, 32), (40, 0, 56, 16)
IMAGE = coloured((0, RED))


def verdict_of(passed: bool, cls: Any = 0, **keywords: Any) -> Verdict:
    if passed:
        return assert_attention_in_region(reads_colours(), IMAGE, RED, cls, **keywords)
    with pytest.raises(AttentionError) as raised:
        assert_attention_in_region(reads_colours(), IMAGE, ELSEWHERE, cls, **keywords)
    assert raised.value.verdict is not None
    return raised.value.verdict


def plain(value: object) -> bool:
    """Whether JSON has it, of exactly these types: a numpy float is a float to `isinstance`, not to xdist."""
    if type(value) in (list, tuple):
        return isinstance(value, list) and all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool)


class TestJson:
    @pytest.mark.parametrize("passed", [True, False])
    @pytest.mark.parametrize("metric", list(METRICS))
    def test_is_plain_values_that_survive_a_round_trip(self, passed: bool, metric: str) -> None:
        values = verdict_of(passed, metric=metric, labels=["red", "blue", "grey"]).to_json()
        for name, value in values.items():
            assert plain(value), f"{name} is {value!r} of type {type(value).__name__}"
        assert json.loads(json.dumps(values, allow_nan=False)) == values

    def test_says_what_was_judged(self) -> None:
        verdict = verdict_of(True, labels=["red", "blue", "grey"])
        values = verdict.to_json()
        for name in ("assertion", "passed", "metric", "value", "chance", "filled", "energy", "threshold", "message"):
            assert values[name] == getattr(verdict, name), name
        explanation = verdict.explanation
        for name in ("predicted_label", "predicted_probability"):
            assert values[name] == getattr(explanation, name) is not None
        assert values["frame"] == [64, 64]
        for name in ("cls", "label", "score", "probability", "predicted", "evidence", "layer", "method", "engine"):
            assert values[name] == getattr(explanation, name)
        assert (values["label"], values["grid"], values["peak"]) == ("red", [8, 8], list(verdict.peak))
        assert (values["region"], values["values"], values["interval"]) == (
            "the box (8, 16, 24, 32)",
            [verdict.value],
            None,
        )
        assert (values["device"], values["peak_distance"]) == (explanation.device, 0.0)
        assert values["seconds"] == explanation.seconds

    def test_of_a_callable_has_no_class(self) -> None:
        values = verdict_of(True, lambda output: output[0, 0]).to_json()
        assert (values["cls"], values["label"], values["probability"], values["predicted"]) == (None,) * 4
        json.dumps(values)

    def test_of_the_other_assertion(self) -> None:
        values = assert_attention_outside_region(reads_colours(), IMAGE, ELSEWHERE, 0).to_json()
        assert values["assertion"] == "assert_attention_outside_region"
        assert values["passed"] is True

    def test_of_a_region_that_covers_no_pixel_by_half_is_finite(self) -> None:
        """A thin region has a distance to the peak, and JSON has no infinity."""
        thin = (40.0, 0.0, 40.3, 16.0)
        with pytest.raises(AttentionError) as raised:
            assert_attention_in_region(reads_colours(), IMAGE, thin, 0)
        assert raised.value.verdict is not None
        values = raised.value.verdict.to_json()
        assert 17 <= values["peak_distance"] <= 35
        json.dumps(values, allow_nan=False)

    def test_an_interval_becomes_a_list(self) -> None:
        verdict = dataclasses.replace(verdict_of(True), interval=(0.1, 0.9))
        assert verdict.to_json()["interval"] == [0.1, 0.9]


class TestTheValue:
    def test_is_frozen(self) -> None:
        verdict = verdict_of(True)
        with pytest.raises(dataclasses.FrozenInstanceError):
            verdict.value = 1.0  # type: ignore[misc]

    def test_is_shown_in_one_line(self) -> None:
        assert repr(verdict_of(True)) == (
            "Verdict(passed, class 0 is explained by the box: calibrated energy 1.00, needs 0.15)"
        )
        assert repr(verdict_of(False)).startswith("Verdict(failed, class 0 is not explained by the box: ")

    def test_has_slots(self) -> None:
        assert not hasattr(verdict_of(True), "__dict__")

    def test_of_booleans_is_a_bool(self) -> None:
        """A numpy bool would be no `True` to a test that asks `is True`."""
        assert verdict_of(True).passed is True
        assert verdict_of(False).passed is False
        assert {type(v) for v in (verdict_of(True).value, verdict_of(True).chance, verdict_of(True).threshold)} == {
            float
        }
        assert verdict_of(True).mask.dtype == np.float32


FAMILY: dict[type[Exception], tuple[type[Exception], ...]] = {
    AttentionError: (errors.GradcamError, AssertionError),
    ZeroEvidenceError: (AttentionError, AssertionError),
    InconclusiveError: (errors.GradcamError,),
    InconclusiveWarning: (UserWarning,),
    errors.ImageError: (errors.GradcamError, ValueError),
    errors.ImageTypeError: (errors.ImageError, TypeError),
    errors.TransformError: (errors.GradcamError, ValueError),
    errors.RegionError: (errors.GradcamError, ValueError),
    errors.RegionTypeError: (errors.RegionError, TypeError),
    errors.VacuousRegionError: (errors.RegionError, ValueError),
    errors.VacuousThresholdError: (errors.GradcamError, ValueError),
    errors.ClassError: (errors.GradcamError, ValueError),
    errors.ModelError: (errors.GradcamError, ValueError),
    errors.ModelTypeError: (errors.ModelError, TypeError),
    errors.NonFiniteError: (errors.GradcamError, ValueError),
    errors.TargetLayerError: (errors.GradcamError, ValueError),
    errors.DeviceError: (errors.GradcamError, ValueError),
    errors.SettingsError: (errors.GradcamError, ValueError),
    errors.BaselineError: (errors.GradcamError, ValueError),
    errors.MissingBaselineError: (errors.BaselineError, ValueError),
    errors.ZeroEvidenceWarning: (UserWarning,),
}


class TestErrors:
    @pytest.mark.parametrize(("kind", "bases"), FAMILY.items(), ids=lambda value: getattr(value, "__name__", ""))
    def test_are_what_callers_catch(self, kind: type[Exception], bases: tuple[type[Exception], ...]) -> None:
        for base in bases:
            assert issubclass(kind, base)
        assert issubclass(kind, AssertionError) == (kind in (AttentionError, ZeroEvidenceError))

    def test_are_all_here(self) -> None:
        judged = {
            AttentionError,
            ZeroEvidenceError,
            InconclusiveError,
            InconclusiveWarning,
        }  # what carries a verdict stands beside it
        for module, wanted in (
            (errors, {*FAMILY, errors.GradcamError} - judged),
            (verdicts, {*judged, errors.GradcamError}),
        ):
            assert {
                kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)
            } == (wanted)

    @pytest.mark.parametrize("kind", FAMILY)
    def test_are_called_by_the_name_that_they_are_imported_by(self, kind: type[Exception]) -> None:
        assert kind.__module__ == "pytest_gradcam"

    def test_an_attention_error_without_a_verdict_says_so(self) -> None:
        assert AttentionError("words").verdict is None
        assert str(AttentionError("words")) == "words"
