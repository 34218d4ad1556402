"""`assert_dataset_attention`: an audit as one verdict."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_gradcam import (
    AttentionError,
    Gradcam,
    InconclusiveError,
    Settings,
    SettingsError,
    Verdict,
    assert_attention_in_region,
    assert_dataset_attention,
)
from pytest_gradcam.audit.data.sample import DataSetError
from tests.audit.data.generated import coco_data_set
from tests.audit.scenes import SIDE, Scenes, reader, scenes


def failing(dataset: Any, error: type[AttentionError | InconclusiveError] = AttentionError, **kw: Any) -> Verdict:
    with pytest.raises((AttentionError, InconclusiveError)) as raised:
        assert_dataset_attention(kw.pop("model", None) or reader(), dataset, **kw)
    assert type(raised.value) is error
    verdict = raised.value.verdict
    assert verdict is not None
    return verdict


class TestVerdicts:
    def test_enough_images_pass(self) -> None:
        verdict = assert_dataset_attention(reader(), Scenes(scenes(60)))
        assert verdict.passed and verdict.assertion == "assert_dataset_attention"
        assert (verdict.metric, verdict.value, verdict.threshold) == ("pass_rate", 1.0, 0.9)
        assert len(verdict.values) == 60
        assert verdict.message == (
            "of 60 images, the classes are explained by their regions: calibrated energy passes on 100%, at least 95% "
            "with 95% confidence, needs 90%"
        )

    def test_too_few_do(self) -> None:
        verdict = failing(Scenes(scenes(60, hidden=0.5)))
        assert verdict.value == 0.5
        assert verdict.message == (
            "of 60 images, the classes are not explained by their regions: calibrated energy passes on 50%, "
            "at most 61% with 95% confidence, needs 90%"
        )

    def test_it_cannot_be_told(self) -> None:
        verdict = failing(Scenes(scenes(10)), InconclusiveError)
        assert verdict.outcome == "inconclusive"

    def test_the_worst_image_is_shown_as_the_assertion_on_one_image_shows_it(self) -> None:
        data = Scenes(scenes(60, hidden=0.5))
        verdict = failing(data)
        worst = min(range(60), key=lambda i: verdict.values[i])
        image, target = data[worst]
        with pytest.raises(AttentionError) as alone:
            assert_attention_in_region(reader(), image, tuple(target["boxes"][0].tolist()), int(target["labels"][0]))
        assert alone.value.verdict is not None
        assert (verdict.explanation.raw == alone.value.verdict.explanation.raw).all()
        assert (verdict.explanation.image == alone.value.verdict.explanation.image).all()
        assert verdict.place.energy == alone.value.verdict.place.energy
        assert dict(verdict.facts)["worst"].startswith(f"{worst} (")

    def test_a_slice_that_fails_is_named(self) -> None:
        data = Scenes(scenes(400, hidden=0.03), about=lambda i: {"site": "north" if i < 12 else "south"})
        assert assert_dataset_attention(reader(), data).passed
        verdict = failing(data, slices=["site"])
        assert verdict.message.startswith(
            "too few pass of site = north (0 of 12); of 400 images, the classes are explained"
        )
        assert dict(verdict.facts)["slices"] == "2 judged, corrected for their number: 1 failed"

    def test_slices_that_cannot_tell_are_named(self) -> None:
        data = Scenes(scenes(100), about=lambda i: {"site": "north" if i < 5 else "south"})
        verdict = assert_dataset_attention(reader(), data, slices=["site"])
        assert dict(verdict.facts)["unsure"].endswith("site = north")

    def test_images_without_a_measurement_fail_or_are_left_out(self) -> None:
        good = Scenes(scenes(60))
        dark = (torch.zeros(3, SIDE, SIDE), {"boxes": torch.tensor([[0, 0, 24, 24]]), "labels": torch.tensor([0])})
        data = [*(good[i] for i in range(60)), *((dark[0] - i, dark[1]) for i in range(30))]
        verdict = failing(data)
        assert dict(verdict.facts)["lacking"] == "30 no evidence; they count as failed, copies are left out"
        assert assert_dataset_attention(reader(), data, bad="excluded").passed

    def test_stand_though_the_worst_image_cannot_be_read_again(self) -> None:
        class Once(Scenes):
            seen: set[int]

            def __getitem__(self, index: int) -> Any:
                seen = self.__dict__.setdefault("seen", set())
                if index in seen and index:
                    raise OSError("gone")
                seen.add(index)
                return super().__getitem__(index)

        verdict = failing(Once(scenes(60, hidden=0.5)))
        assert verdict.value == 0.5 and verdict.sight is None

    def test_other_metrics_and_thresholds(self) -> None:
        data = Scenes(scenes(60))
        assert assert_dataset_attention(reader(), data, metric="pointing_game").passed
        assert failing(data, threshold=1.4).value < 0.9


class TestSettings:
    def test_of_the_fixture_hold(self) -> None:
        data = Scenes(scenes(60))
        gradcam = Gradcam(Settings(metric="energy", threshold=0.3, confidence=0.99))
        verdict = gradcam.assert_dataset_attention(reader(), data)
        assert verdict.confidence == 0.99 and "energy passes on" in verdict.message
        assert gradcam.assert_dataset_attention(reader(), data, metric="pointing_game", threshold=1.0).passed

    @pytest.mark.parametrize(("named", "rate"), [({}, 0.9), ({"pass_rate": 0.5}, 0.5), ({"pass_rate": 0.95}, 0.95)])
    def test_of_the_pass_rate_hold_where_there_are_any(self, named: dict[str, float], rate: float) -> None:
        gradcam = Gradcam(Settings(**named))  # type: ignore[arg-type]  # numbers
        assert gradcam.assert_dataset_attention(reader(), Scenes(scenes(100))).threshold == rate
        assert gradcam.assert_dataset_attention(reader(), Scenes(scenes(100)), pass_rate=0.7).threshold == 0.7

    def test_unknown_keywords_are_refused(self) -> None:
        with pytest.raises(SettingsError, match="unknown keyword 'pass_rates'"):
            assert_dataset_attention(reader(), Scenes(scenes(4)), pass_rates=0.5)  # type: ignore[call-arg]  # on purpose

    def test_the_split_engine_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="a data set is explained by hooks"):
            Gradcam(Settings(engine="split")).assert_dataset_attention(reader(), Scenes(scenes(4)))

    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_gradcam.assertions.dataset.find_spec", lambda name: None)
        with pytest.raises(SettingsError, match=r'needs pyarrow and sklearn: pip install "pytest-gradcam\[audit\]"$'):
            assert_dataset_attention(reader(), Scenes(scenes(4)))


class TestFolder:
    def test_nothing_is_left_where_none_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert_dataset_attention(reader(), Scenes(scenes(60)))
        failing(Scenes(scenes(60, hidden=1.0)))
        assert list(tmp_path.iterdir()) == []

    def test_results_are_kept_where_one_is(self, tmp_path: Path) -> None:
        verdict = assert_dataset_attention(reader(), Scenes(scenes(60)), out=tmp_path / "kept")
        assert {"index.html", "results.parquet"} <= {each.name for each in (tmp_path / "kept").iterdir()}
        assert dict(verdict.facts)["results"] == str(tmp_path / "kept")

    def test_by_path(self, tmp_path: Path) -> None:
        data, images = coco_data_set(tmp_path / "coco", 40, size=(64, 64))
        with pytest.raises((AttentionError, InconclusiveError)) as raised:
            assert_dataset_attention(reader(1), data, images=images, transform=to_input, threshold=0.9)
        assert "of 40 images" in str(raised.value) or "40 images cannot tell" in str(raised.value)

    def test_of_nowhere(self) -> None:
        with pytest.raises(DataSetError, match=r"there is no 'nowhere\.json'"):
            assert_dataset_attention(reader(), "nowhere.json")


def to_input(picture: Any) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.asarray(picture.resize((SIDE, SIDE)), np.float32).transpose(2, 0, 1).copy() / 255.0)


class TestInPytest:
    def test_a_failure_shows_the_worst_image_and_leaves_nothing(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            """
            from tests.audit.scenes import Scenes, reader, scenes

            def test_set(gradcam):
                gradcam.assert_dataset_attention(reader(), Scenes(scenes(60, hidden=0.5)))
            """
        )
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
        result.assert_outcomes(failed=1)
        text = result.stdout.str()
        assert "AttentionError: of 60 images, the classes are not explained by their regions" in text
        assert "gradcam-report/index.html" in text
        assert (pytester.path / "gradcam-report" / "results.json").exists()
        assert not (pytester.path / "gradcam-audit").exists()
