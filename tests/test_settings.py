"""Settings: what is served, which source wins, and what the message of a wrong value says."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from pytest_gradcam.errors import SettingsError
from pytest_gradcam.settings import (
    DEVICES,
    ENGINES,
    METHODS,
    METRICS,
    NAMES,
    Settings,
    check_keywords,
    resolve,
    spelling,
)

THRESHOLDS = ["threshold", "outside_threshold"]


class TestSources:
    def test_nothing_given_is_the_defaults(self) -> None:
        assert resolve() == Settings() == resolve({}, {}, {})

    @pytest.mark.parametrize(
        ("ini", "options", "marker", "wanted"),
        [
            ({"metric": "energy"}, {}, {}, "energy"),
            ({"metric": "energy"}, {"metric": "pointing_game"}, {}, "pointing_game"),
            ({"metric": "energy"}, {"metric": "energy"}, {"metric": "pointing_game"}, "pointing_game"),
            ({"metric": "energy"}, {}, {"metric": "pointing_game"}, "pointing_game"),
            ({}, {"metric": "energy"}, {"metric": "calibrated_energy"}, "calibrated_energy"),
        ],
    )
    def test_the_nearer_source_wins(
        self, ini: dict[str, Any], options: dict[str, Any], marker: dict[str, Any], wanted: str
    ) -> None:
        assert resolve(ini, options, marker).metric == wanted

    def test_sources_win_name_by_name(self) -> None:
        settings = resolve({"method": "hirescam", "threshold": "0.1"}, {"threshold": "0.2"}, {"engine": "split"})
        assert (settings.method, settings.threshold, settings.engine) == ("hirescam", 0.2, "split")

    def test_a_marker_may_go_back_to_the_metrics_own_threshold(self) -> None:
        assert resolve({"threshold": "0.4"}, {}, {"threshold": None}).threshold is None

    @pytest.mark.parametrize(
        ("source", "place"),
        [
            ("ini", "gradcam_outside_threshold in the ini file: "),
            ("option", "--gradcam-outside-threshold: "),
            ("marker", "@pytest.mark.gradcam(outside_threshold=…): "),
        ],
    )
    def test_a_wrong_value_is_traced_to_its_source(self, source: str, place: str) -> None:
        given_by = {source: {"outside_threshold": "much"}}
        with pytest.raises(SettingsError) as caught:
            resolve(given_by.get("ini"), given_by.get("option"), given_by.get("marker"))
        assert str(caught.value) == f"{place}outside_threshold 'much' is not a number: give one such as 0.15"
        assert place == spelling(source, "outside_threshold") + ": "

    def test_a_wrong_value_is_an_error_even_where_a_nearer_source_overrides_it(self) -> None:
        with pytest.raises(SettingsError, match="in the ini file"):
            resolve({"metric": "attention"}, {"metric": "energy"})


class TestWith:
    def test_replaces_what_is_named_and_nothing_else(self) -> None:
        before = Settings(metric="energy", threshold=0.3)
        after = before.with_(threshold=0.5)
        assert (after.metric, after.threshold) == ("energy", 0.5)
        assert before.threshold == 0.3

    def test_checks_what_it_is_given(self) -> None:
        with pytest.raises(SettingsError, match="unknown engine 'hook'"):
            Settings().with_(engine="hook")

    def test_an_unknown_name_is_told_the_known_ones(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings().with_(treshold=0.3)
        assert str(caught.value) == (
            "unknown setting 'treshold': known are method, engine, device, layer, metric, threshold, "
            "outside_threshold, judge_by, pass_rate, confidence, inconclusive, floor, previews, output_dir, labels, "
            "transform, forward, cache; did you mean 'threshold'?"
        )

    def test_settings_cannot_be_changed_in_place(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().metric = "energy"  # type: ignore[misc]

    def test_every_field_is_a_name_that_can_be_set(self) -> None:
        assert tuple(field.name for field in dataclasses.fields(Settings)) == NAMES


class TestKeywords:
    def test_those_that_an_operation_takes_pass(self) -> None:
        check_keywords("explain", ["layer", "method"], ["method", "layer"])

    def test_another_is_named_with_the_operation_and_what_it_takes(self) -> None:
        with pytest.raises(SettingsError) as caught:
            check_keywords("explain", ["layer", "metod"], ["method", "layer"])
        assert str(caught.value) == (
            "unknown keyword 'metod' of explain: known are method, layer; did you mean 'method'?"
        )


class TestNames:
    @pytest.mark.parametrize(
        ("name", "known"), [("method", METHODS), ("metric", METRICS), ("engine", ENGINES)], ids=str
    )
    def test_each_known_name_is_served_and_no_other(self, name: str, known: tuple[str, ...]) -> None:
        for value in known:
            assert getattr(Settings().with_(**{name: value}), name) == value
        for wrong in ("", "none", None, 3, known[0].upper()):
            with pytest.raises(
                SettingsError, match=re.escape(f"unknown {name} {wrong!r}: known are {', '.join(known)}")
            ):
                Settings().with_(**{name: wrong})

    @pytest.mark.parametrize(
        ("name", "written", "meant"),
        [
            ("method", "gradcam", "grad-cam"),
            ("method", "GradCAM", "grad-cam"),
            ("method", "Grad_CAM", "grad-cam"),
            ("method", "hires-cam", "hirescam"),
            ("metric", "calibrated-energy", "calibrated_energy"),
            ("metric", "pointing", "pointing_game"),
            ("engine", "hook", "hooks"),
            ("device", "CUDA:1", "cuda"),
        ],
    )
    def test_a_near_miss_is_told_what_was_probably_meant(self, name: str, written: str, meant: str) -> None:
        with pytest.raises(SettingsError, match=f"did you mean '{meant}'"):
            Settings().with_(**{name: written})

    def test_what_is_far_from_everything_gets_no_guess(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings(metric="top-5")
        assert str(caught.value) == f"unknown metric 'top-5': known are {', '.join(METRICS)}"


class TestDevice:
    @pytest.mark.parametrize(
        "device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15", "mps", "mps:0", "xpu", "xpu:3", "cpu:0"]
    )
    def test_is_served(self, device: str) -> None:
        assert Settings(device=device).device == device

    @pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cuda", 1), torch.device("mps")])
    def test_a_torch_device_is_its_name(self, device: torch.device) -> None:
        assert Settings().with_(device=device).device == str(device)

    @pytest.mark.parametrize(
        "device", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda 1", "cuda:1 ", "auto:0", "cuda:١", 0, None]
    )
    def test_is_not_served(self, device: Any) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings().with_(device=device)
        assert f"unknown device {device!r}: known are {', '.join(DEVICES)}" in str(caught.value)


class TestThreshold:
    @pytest.mark.parametrize("name", THRESHOLDS)
    @given(number=st.floats(allow_nan=False, allow_infinity=False))
    def test_any_finite_number_is_served_and_so_is_its_text(self, name: str, number: float) -> None:
        assert getattr(Settings().with_(**{name: number}), name) == number
        assert getattr(Settings().with_(**{name: repr(number)}), name) == number

    @pytest.mark.parametrize("name", THRESHOLDS)
    @pytest.mark.parametrize("value", ["nan", "inf", float("-inf"), "1e999"])
    def test_what_is_not_finite_is_not_served(self, name: str, value: Any) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings().with_(**{name: value})
        assert str(caught.value) == f"{name} {value!r} is not finite: give a number such as 0.15"

    @pytest.mark.parametrize("name", THRESHOLDS)
    def test_an_integer_beyond_all_floats_is_not_served(self, name: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name} is too large for a number: give one such as 0.15$"):
            Settings().with_(**{name: 10**400})

    @pytest.mark.parametrize("name", THRESHOLDS)
    @pytest.mark.parametrize("value", ["abc", "", "0,15", "15%", True, [0.1]])
    def test_what_is_no_number_is_not_served(self, name: str, value: Any) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings().with_(**{name: value})
        assert str(caught.value) == f"{name} {value!r} is not a number: give one such as 0.15"


class TestLayer:
    @pytest.mark.parametrize("layer", [None, "layer4.1", torch.nn.ReLU()])
    def test_a_name_or_a_module_is_kept_as_it_is(self, layer: Any) -> None:
        assert Settings(layer=layer).layer is layer

    @pytest.mark.parametrize("layer", [["layer3", "layer4"], ("layer3", "layer4"), "layer3, layer4"])
    def test_several_are_kept_in_their_order(self, layer: Any) -> None:
        assert Settings(layer=layer).layer == ("layer3", "layer4")

    @pytest.mark.parametrize("layer", ["", " ", 4, object(), [], ["layer4", 3], "layer4,"])
    def test_anything_else_is_not_served(self, layer: Any) -> None:
        with pytest.raises(SettingsError, match="is no layer: give the dotted name of a module"):
            Settings(layer=layer)


class TestOthers:
    def test_labels_keep_their_order(self) -> None:
        assert Settings().with_(labels=["cat", "dog"]).labels == ("cat", "dog")

    def test_one_label_that_holds_several_names_is_told_how_they_are_written(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings(labels=("red, green, blue",))
        assert str(caught.value) == (
            "labels holds one name with commas in it, 'red, green, blue': write one a line in the ini file, or pass a "
            "list of strings"
        )
        assert Settings(labels=("tench, Tinca tinca", "goldfish")).labels == ("tench, Tinca tinca", "goldfish")

    @pytest.mark.parametrize("labels", ["cat", [], ["cat", 3], 5, {"cat", "dog"}, {"cat": 0}])
    def test_labels_that_are_no_list_of_names_are_not_served(self, labels: Any) -> None:
        with pytest.raises(SettingsError, match="give a list of strings, in the order of the classes"):
            Settings().with_(labels=labels)

    def test_a_path_is_a_folder(self) -> None:
        folder = Path("reports", "attention")
        assert Settings().with_(output_dir=folder).output_dir == str(folder)

    @pytest.mark.parametrize("folder", ["", " ", None, 3, "a\0b"])
    def test_what_is_no_path_is_no_folder(self, folder: Any) -> None:
        with pytest.raises(SettingsError, match="is no folder: give a path"):
            Settings().with_(output_dir=folder)

    def test_a_transform_is_called_by_somebody_else(self) -> None:
        assert Settings(transform=len).transform is len
        with pytest.raises(SettingsError, match="cannot be called"):
            Settings().with_(transform="resize")


def test_neither_torch_nor_pytest_is_needed() -> None:
    """Asked of a fresh interpreter: in this one everything is loaded."""
    code = (
        "import sys\n"
        "from pytest_gradcam.settings import resolve\n"
        "resolve({'method': 'hirescam'}, {'threshold': '0.2'}, {'device': 'cuda:1'})\n"
        "print(sorted({'torch', 'numpy', 'pytest', 'PIL', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestManyImages:
    @pytest.mark.parametrize("name", ["pass_rate", "confidence"])
    @pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, None, "nan", True])
    def test_a_share_lies_between_none_and_all(self, name: str, value: Any) -> None:
        with pytest.raises(SettingsError, match=f"^{name} "):
            Settings().with_(**{name: value})

    def test_a_bound_that_is_as_often_wrong_as_right_is_no_bound(self) -> None:
        with pytest.raises(SettingsError, match=r"confidence 0\.5 is not between 0\.5 and 1"):
            Settings(confidence=0.5)
