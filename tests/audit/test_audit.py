"""`audit`: what it measures, writes down and goes on with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from torch import nn

from pytest_gradcam import assert_attention_in_region, explain
from pytest_gradcam.audit.data.sample import DataSetError, SampleError
from pytest_gradcam.audit.report import AuditReport
from pytest_gradcam.audit.store import AuditError, Folder
from pytest_gradcam.errors import ModelError, SettingsError, TargetLayerError, TransformError
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.verdicts import AttentionError
from tests.audit.data.generated import coco_data_set, table_data_set
from tests.audit.scenes import BOX, SIDE, Scene, Scenes, audited, reader, scenes


def rows(report: Any, *columns: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report.rows([*columns] or None).to_pylist()
    return found


class TestRows:
    def test_say_what_the_assertion_says_of_each_image(self, tmp_path: Path) -> None:
        """1e-6, with every metric: a batch's arithmetic differs from one image's in the last bits."""
        data, model = Scenes(scenes(40, hidden=0.3)), reader()
        report = audited(data, tmp_path / "out", model=model, metrics=list(METRICS), batch_size=7)
        found = rows(report)
        assert [row["index"] for row in found] == list(range(40))
        for row in found:
            image, target = data[row["index"]]
            box, cls = tuple(target["boxes"][0].tolist()), int(target["labels"][0])
            alone = explain(model, image, cls)
            assert row["cls"] == cls and row["layer"] == alone.layer and row["method"] == alone.method
            assert row["score"] == pytest.approx(alone.score, abs=1e-6)
            assert row["evidence"] == pytest.approx(alone.evidence, abs=1e-5)
            assert np.allclose(row["raw"], alone.raw.ravel(), atol=1e-6)
            for metric in METRICS:
                try:
                    verdict = assert_attention_in_region(model, image, box, cls, metric=metric)
                except AttentionError as error:
                    assert error.verdict is not None
                    verdict = error.verdict
                assert row[metric] == pytest.approx(verdict.value, abs=1e-6), metric
                assert row["chance"] == pytest.approx(verdict.place.chance, abs=1e-6)
                assert row["filled"] == pytest.approx(verdict.filled, abs=1e-6)
                assert (row["peak_x"], row["peak_y"]) == verdict.peak

    def test_of_photos_say_so_too(self, tmp_path: Path) -> None:
        """Through a file, JPEG, a real network's own transform, and regions carried by the shorter way."""
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", num_classes=2).eval()
        data, images = coco_data_set(tmp_path / "coco", 24, size=(120, 160))
        report = audited(data, tmp_path / "out", model=model, images=images, batch_size=5)
        found = [row for row in rows(report) if row["index"] > 8]
        assert len(found) > 12 and all(row["status"] == "measured" for row in found)
        held = json.loads(Path(data).read_text())
        names = {each["id"]: each["file_name"] for each in held["images"]}
        for row in found:
            boxes = [
                each["bbox"]
                for each in held["annotations"]
                if names[each["image_id"]] == row["image"] and each["category_id"] - 1 == row["cls"]
            ]
            regions = [(x, y, x + w, y + h) for x, y, w, h in boxes]
            try:
                verdict = assert_attention_in_region(model, images / row["image"], regions, row["cls"])
            except AttentionError as error:
                assert error.verdict is not None
                verdict = error.verdict
            assert row["chance"] == pytest.approx(verdict.place.chance, abs=1e-6)
            assert row["energy"] == pytest.approx(verdict.energy, abs=1e-6)

    def test_several_classes_of_one_image_are_rows_of_their_own(self, tmp_path: Path) -> None:
        data = Scenes([Scene({0: (0, 0), 1: (40, 40)}), Scene({1: (8, 30)}), Scene({0: (20, 8), 1: (30, 40)})])
        report = audited(data, tmp_path / "out")
        assert [(row["index"], row["place"], row["cls"]) for row in rows(report)] == [
            (0, 0, 0), (0, 1, 1), (1, 0, 1), (2, 0, 0), (2, 1, 1)
        ]  # fmt: skip
        model = reader()
        for row in rows(report):
            image = data[row["index"]][0]
            assert np.allclose(row["raw"], explain(model, image, row["cls"]).raw.ravel(), atol=1e-6)
        assert report.overall.images == 3

    def test_do_not_depend_on_the_size_of_batches(self, tmp_path: Path) -> None:
        data = Scenes(scenes(30, hidden=0.5))
        one, many = (audited(data, tmp_path / str(size), batch_size=size) for size in (1, 16))
        for a, b in zip(rows(one), rows(many), strict=True):
            assert a["calibrated_energy"] == pytest.approx(b["calibrated_energy"], abs=1e-6)

    def test_images_of_different_sizes_go_together(self, tmp_path: Path) -> None:
        items = [(torch.rand(3, 32 + 8 * (i % 3), 48), {"boxes": torch.tensor([[4, 4, 20, 20]])}) for i in range(9)]
        report = audited(items, tmp_path / "out")
        assert {(row["input_height"], row["input_width"]) for row in rows(report)} == {(32, 48), (40, 48), (48, 48)}
        assert [row["index"] for row in rows(report)] == list(range(9))

    def test_loaded_by_other_processes_are_the_same(self, tmp_path: Path) -> None:
        data = Scenes(scenes(40))
        alone, helped = (audited(data, tmp_path / str(workers), workers=workers) for workers in (0, 2))
        assert alone.rows().equals(helped.rows())


class TestBadImages:
    def data(self) -> list[Any]:
        good = Scenes(scenes(12))
        dark = torch.zeros(3, SIDE, SIDE)
        box = {"boxes": torch.tensor([[0, 0, BOX, BOX]]), "labels": torch.tensor([0])}
        nan = torch.full((3, SIDE, SIDE), torch.nan)
        return [
            *(good[i] for i in range(12)),
            (dark, box),
            (nan, box),
            (good[0][0] + 0.001, {"labels": torch.tensor([0])}),
            (good[1][0] + 0.001, {"boxes": torch.tensor([[5, 5, 5, 9]]), "labels": torch.tensor([0])}),
            (good[2][0] + 0.001, {"boxes": torch.tensor([[0, 0, SIDE, SIDE]]), "labels": torch.tensor([0])}),
            (good[3][0] + 0.001, {"boxes": torch.tensor([[0, 0, 9, 9]]), "labels": torch.tensor([7])}),
            good[3],
        ]

    def test_are_rows_with_their_reason(self, tmp_path: Path) -> None:
        report = audited(self.data(), tmp_path / "out")
        found = {row["index"]: (row["status"], row["reason"]) for row in rows(report) if row["status"] != "measured"}
        assert {index: status for index, (status, _) in found.items()} == {
            12: "no evidence",
            13: "unreadable",
            14: "no region",
            15: "unusable region",
            16: "unusable region",
            17: "not explained",
            18: "copy",
        }
        assert "not finite" in found[13][1]
        assert "cannot be told from the rest" in found[16][1]
        assert "class 7 is out of range: the model has 2 classes" in found[17][1]

    def test_count_as_failed_but_for_copies(self, tmp_path: Path) -> None:
        overall = audited(self.data(), tmp_path / "out").overall
        assert (overall.images, overall.passed) == (18, 12)
        assert overall.bad == {
            "unreadable": 1, "no region": 1, "unusable region": 2, "no evidence": 1, "not explained": 1, "copy": 1
        }  # fmt: skip

    def test_are_left_out_where_that_is_asked(self, tmp_path: Path) -> None:
        overall = audited(self.data(), tmp_path / "out", bad="excluded").overall
        assert (overall.images, overall.passed) == (12, 12)
        assert overall.bad["unusable region"] == 2

    def test_alone_decide_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^no image counts \(1 no evidence\): nothing can be decided$"):
            audited(self.data()[12:13], tmp_path / "out", bad="excluded")

    def test_what_the_model_raises_for_every_image_passes_unchanged(self, tmp_path: Path) -> None:
        class Broken(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("out of luck")

        with pytest.raises(RuntimeError, match=r"^out of luck$"):
            audited(Scenes(scenes(4)), tmp_path / "out", model=Broken().eval())

    def test_a_model_without_a_grid_is_an_error_and_no_row(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)).eval()
        with pytest.raises((TargetLayerError, ModelError)):
            audited(Scenes(scenes(4)), tmp_path / "out", model=model)

    def test_count_in_their_class_and_slice_though_they_cannot_be_read(self, tmp_path: Path) -> None:
        data, images = table_data_set(tmp_path / "data", 40, size=(64, 64))
        lines = Path(data).read_text().splitlines()
        names = sorted({line.split(",")[0] for line in lines[1:]})
        site = {name: "north" if i < 10 else "south" for i, name in enumerate(names)}
        lines = [f"{lines[0]},site", *(f"{line},{site[line.split(',')[0]]}" for line in lines[1:])]
        Path(data).write_text("\n".join(lines))
        for name in names[:8]:
            (images / name).unlink()
        report = audited(data, tmp_path / "out", images=images, transform=to_input, slices=["site", "class"])
        north = next(group for group in report.slices if group.name == "site = north")
        assert north.images == 10 and north.bad["unreadable"] >= 8
        assert sum(group.bad.get("unreadable", 0) for group in report.classes) == north.bad["unreadable"]

    def test_of_a_random_transform_are_all_of_them(self, tmp_path: Path) -> None:
        coin = random.Random(0)
        data, images = table_data_set(tmp_path / "data", 12, size=(64, 64))
        with pytest.raises(TransformError, match="is random"):
            audited(data, tmp_path / "out", images=images, transform=lambda p: to_input(p) * coin.random())

    def test_of_a_transform_that_is_random_now_and_then_are_found(self, tmp_path: Path) -> None:
        coin = random.Random(0)
        pictures = [np.full((64, 64, 3), i, np.uint8) for i in range(40)]
        for i, picture in enumerate(pictures):
            picture[i % 40 : i % 40 + 20, 30:50, 0] = 255

        def to_input_of_some(picture: Any) -> torch.Tensor:
            made = to_input(picture)
            return made + 1e-3 * coin.random() if picture.getpixel((0, 63)) == (33, 33, 33) else made

        items = [(p, {"boxes": [[30, i % 40, 50, i % 40 + 20]], "labels": [0]}) for i, p in enumerate(pictures)]
        report = audited(items, tmp_path, transform=to_input_of_some)
        assert [row["index"] for row in rows(report) if "is random" in row["reason"]] == [33]

    def test_of_a_transform_that_looks_at_the_picture_are_found(self, tmp_path: Path) -> None:
        """Not of every hundredth image: of each."""
        pictures = [np.full((64, 64, 3), 9 * (i % 20), np.uint8) for i in range(60)]
        for i, picture in enumerate(pictures):
            picture[i % 40 : i % 40 + 20, 30:50, 0] = 255
            picture[63, 63] = (0, 0, 255) if i in (33, 47) else (0, 0, 254)

        def to_input_of_some(picture: Any) -> torch.Tensor:
            zoomed = picture.crop((0, 0, 32, 32)) if picture.getpixel((63, 63)) == (0, 0, 255) else picture
            return to_input(zoomed)

        items = [(p, {"boxes": [[30, i % 40, 50, i % 40 + 20]], "labels": [0]}) for i, p in enumerate(pictures)]
        report = audited(items, tmp_path, transform=to_input_of_some)
        assert {row["index"] for row in rows(report) if row["status"] == "unreadable"} == {33, 47}

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: device-side assert triggered")])
    def test_what_is_no_fault_of_theirs_ends_the_audit(self, tmp_path: Path, error: Exception) -> None:
        left = iter(range(20))  # not in the model, which is put back as it was

        class Tired(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = reader()

            def forward(self, x: torch.Tensor) -> Any:
                if next(left, None) is None:
                    raise error
                return self.net(x)

        with pytest.raises(type(error)):
            audited(Scenes(scenes(300)), tmp_path, model=Tired().eval(), batch_size=5)
        assert not (tmp_path / "results.parquet").exists()

    def test_with_odd_texts_and_numbers_are_written_down(self, tmp_path: Path) -> None:
        class Odd(Scenes):
            def __getitem__(self, index: int) -> Any:
                if index == 3:
                    raise FileNotFoundError("no \udcff.png")
                image, target = super().__getitem__(index)
                return image, target | ({"labels": torch.tensor([5_000_000_000])} if index == 4 else {})

        odd = {"odd": lambda sample: "a\udcff"}
        report = audited(Odd(scenes(30)), tmp_path, slices=odd, labels=["a\udcff", "b"])
        assert rows(report)[3]["reason"] == "the data set raised FileNotFoundError: no \\udcff.png"
        assert rows(report)[4]["asked"] == 5_000_000_000 and rows(report)[4]["status"] == "not explained"

    def test_a_slice_that_is_no_text_is_an_error_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^the slice 'half' gave 0.5: a slice is a text"):
            audited(Scenes(scenes(4)), tmp_path, slices={"half": lambda sample: 0.5})

    def test_a_generator_that_ends_with_one_is_an_error(self, tmp_path: Path) -> None:
        def stream() -> Iterator[Any]:
            data = Scenes(scenes(60))
            for i in range(60):
                if i == 40:
                    raise SampleError("image 40 is missing")
                yield data[i]

        with pytest.raises(DataSetError, match="image 40 is missing"):
            audited(stream(), tmp_path)

    def test_a_first_class_that_is_none_is_a_row(self, tmp_path: Path) -> None:
        items = [Scenes(scenes(60))[i] for i in range(60)]
        for i in range(10):
            items[i][1]["labels"] = torch.tensor([9])
        assert audited(items, tmp_path, batch_size=1).overall.bad == {"not explained": 10}

    def test_one_that_breaks_the_model_leaves_the_others_alone(self, tmp_path: Path) -> None:
        class Picky(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = reader()

            def forward(self, x: torch.Tensor) -> Any:
                if (x[:, :, -1, -1] > 1.5).any():
                    raise RuntimeError("will not look at it")
                return self.net(x)

        items = [Scenes(scenes(20))[i] for i in range(20)]
        items[11][0][:, -1, -1] = 2.0
        report = audited(items, tmp_path / "out", model=Picky().eval())
        assert [row["index"] for row in rows(report) if row["status"] != "measured"] == [11]
        assert rows(report)[11]["reason"] == "RuntimeError: will not look at it"


def with_attribute(value: int) -> nn.Module:
    """A reader that has the same weights, and something else that decides what it reads."""
    model = reader()
    model.shift = value  # type: ignore[assignment]  # a plain attribute
    return model


class Killed(Exception):
    """As a kill would, at a moment that a test chooses."""


def dying(monkeypatch: pytest.MonkeyPatch, after: int, method: str = "keep") -> None:
    """Die in the midst of things: when a part, after so many, is kept, or the results are made."""
    count = iter(range(10_000))
    real = getattr(Folder, method)

    def die(self: Folder, *arguments: Any) -> None:
        if next(count) == after:
            raise Killed
        real(self, *arguments)

    monkeypatch.setattr(Folder, method, die)


class TestGoingOn:
    @pytest.mark.parametrize(("after", "method"), [(0, "keep"), (1, "keep"), (2, "keep"), (0, "finish"), (0, "clear")])
    def test_after_a_death_gives_what_one_run_gives(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, method: str
    ) -> None:
        data = Scenes(scenes(300, hidden=0.1))
        whole = audited(data, tmp_path / "whole", batch_size=20)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, after, method)
            audited(data, tmp_path / "out", batch_size=20)
        resumed = audited(data, tmp_path / "out", batch_size=20)
        assert resumed.rows().equals(whole.rows())
        assert (tmp_path / "out" / "results.parquet").read_bytes() == whole.folder.joinpath(
            "results.parquet"
        ).read_bytes()
        assert list((tmp_path / "out" / "parts").iterdir()) == []

    def test_explains_nothing_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The page reads the few images again that it shows: here it is not written."""
        monkeypatch.setattr(
            "pytest_gradcam.audit.run.report_of", lambda folder, judged, *_: AuditReport(folder, judged)
        )
        data = Counting(scenes(300))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, 1)
            audited(data, tmp_path / "out", batch_size=20)
        data.loaded.clear()
        audited(data, tmp_path / "out", batch_size=20)
        again = [index for index in data.loaded if index < 120]  # 0 shows the layer anew, others that they are the same
        assert len(again) <= 34 and set(data.loaded) - set(again) == set(range(120, 300))

    def test_what_is_done_is_computed_anew(self, tmp_path: Path) -> None:
        """Whoever asks again after the end has changed something perhaps that nothing but the images can tell."""
        data = Scenes(scenes(60))
        assert audited(data, tmp_path).overall.passed == 60
        data.scenes = scenes(60, hidden=1.0)
        assert audited(data, tmp_path).overall.passed == 0

    def test_parts_of_another_audit_are_not_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = Scenes(scenes(300))
        for name, first in (("one", 0), ("other", 2)):
            with monkeypatch.context() as patch, pytest.raises(Killed):
                dying(patch, 2)
                audited(data, tmp_path / name, model=reader(first), batch_size=20)
        for part in (tmp_path / "other" / "parts").iterdir():
            (tmp_path / "one" / "parts" / part.name).write_bytes(part.read_bytes())
        assert audited(data, tmp_path / "one", batch_size=20).overall.passed == 300

    @pytest.mark.parametrize("cut", [slice(0, 100), slice(20, 120)])
    def test_parts_without_all_of_their_rows_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: slice
    ) -> None:
        data = Scenes(scenes(300))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, 2)
            audited(data, tmp_path, batch_size=20)
        part = tmp_path / "parts" / "part-00000000.parquet"
        pq.write_table(pq.read_table(part)[cut], part)
        with pytest.raises(AuditError):
            audited(data, tmp_path, batch_size=20)

    @pytest.mark.parametrize("name", ["parts", "audit.lock", "audit.json"])
    def test_links_to_other_places_are_refused(self, tmp_path: Path, name: str) -> None:
        data, out = Scenes(scenes(10)), tmp_path / "out"
        audited(data, out)
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "part-00000007.parquet").write_text("years of work")
        (out / name).rmdir() if name == "parts" else (out / name).unlink()
        (out / name).symlink_to(
            tmp_path / "theirs" if name == "parts" else tmp_path / "theirs" / "part-00000007.parquet"
        )
        with pytest.raises(AuditError):
            audited(data, out)
        assert (tmp_path / "theirs" / "part-00000007.parquet").read_text() == "years of work"

    def test_of_a_stream_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = Scenes(scenes(150))

        class Stream:
            def __iter__(self) -> Iterator[Any]:
                return (data[i] for i in range(len(data)))

        whole = audited(data, tmp_path / "whole", batch_size=10)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, 1)
            audited(Stream(), tmp_path / "out", batch_size=10)
        assert audited(Stream(), tmp_path / "out", batch_size=10).rows().equals(whole.rows())

    @pytest.mark.parametrize(
        ("changed", "what"),
        [
            ({"model": reader(1)}, "model"),
            ({"method": "hirescam"}, "method"),
            ({"batch_size": 8}, "batch size"),
            ({"metrics": ["energy"]}, "metrics"),
            ({"slices": {"even": lambda sample: True}}, "slices"),
            ({"labels": ["a", "b"]}, "labels"),
            ({"model": with_attribute(2)}, "model"),
            ({"model": nn.Sequential(*(nn.GELU() if isinstance(m, nn.ReLU) else m for m in reader())).eval()}, "model"),
            ({"forward": lambda model, x: model(x)}, "forward"),
        ],
    )
    def test_with_something_else_is_refused(self, tmp_path: Path, changed: dict[str, Any], what: str) -> None:
        data = Scenes(scenes(10))
        audited(data, tmp_path, model=with_attribute(1) if "model" in changed else None)
        with pytest.raises(AuditError, match=f"holds an audit of something else; another {what}: give another folder"):
            audited(data, tmp_path, **changed)

    def test_with_other_images_is_refused(self, tmp_path: Path) -> None:
        audited(Scenes(scenes(10)), tmp_path)
        with pytest.raises(AuditError, match="another data set, another images"):
            audited(Scenes(scenes(11)), tmp_path)

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_with_other_images_of_the_same_number_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stream: bool
    ) -> None:
        """Nothing but the pixels tells them apart; a report of images that are there no more would be a lie."""

        def data(seed: int) -> Any:
            found = Scenes(scenes(150, seed=seed))
            return (found[i] for i in range(150)) if is_stream else found

        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, 1)
            audited(data(0), tmp_path, batch_size=10)
        with pytest.raises(AuditError, match=r"image \d+ is another than when it was audited"):
            audited(data(1), tmp_path, batch_size=10)
        assert audited(data(0), tmp_path, batch_size=10).overall.images == 150

    def test_in_a_folder_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(AuditError, match="holds something else"):
            audited(Scenes(scenes(10)), tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]

    def test_after_a_death_that_left_a_first_draft(self, tmp_path: Path) -> None:
        """Killed before anything was there: the folder holds nothing but a draft, and is ours."""
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ".gradcam-0123456789abcdef.tmp").write_text("half of audit.js")
        audited(Scenes(scenes(10)), tmp_path / "out")
        assert not list((tmp_path / "out").glob(".gradcam-*"))

    def test_beside_another_is_refused(self, tmp_path: Path) -> None:
        with Folder(tmp_path).taken(), pytest.raises(AuditError, match="another audit is at work in"):
            audited(Scenes(scenes(10)), tmp_path)


class Counting(Scenes):
    """Scenes that know which of them were loaded."""

    loaded: list[int]

    def __getitem__(self, index: int) -> Any:
        self.__dict__.setdefault("loaded", []).append(index)
        return super().__getitem__(index)


class TestSlices:
    def test_by_what_the_data_say(self, tmp_path: Path) -> None:
        data = Scenes(scenes(80, hidden=0.5), about=lambda i: {"site": "north" if i < 40 else "south"})
        report = audited(data, tmp_path, slices=["site", "class"], pass_rate=0.8)
        assert [(group.name, group.images, group.passed, group.outcome) for group in report.slices] == [
            ("site = north", 40, 0, "failed"),
            ("site = south", 40, 40, "passed"),
        ]
        assert [(group.name, group.images, group.is_judged) for group in report.classes] == [
            ("0", 40, True),
            ("1", 40, True),
        ]

    def test_by_a_function_of_the_sample(self, tmp_path: Path) -> None:
        report = audited(Scenes(scenes(40)), tmp_path, slices={"first": lambda sample: int(sample.key) < 10})
        assert [(group.name, group.images) for group in report.slices] == [("first = no", 30), ("first = yes", 10)]

    def test_that_nobody_knows_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            SettingsError, match=r"^no image says anything of the slice 'sight': known are class, site$"
        ):
            audited(Scenes(scenes(10), about=lambda i: {"site": "north"}), tmp_path, slices=["sight"])


class TestArguments:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"metrics": "energy"}, r"^metrics is 'energy': pass one name or more, in a list$"),
            ({"metrics": []}, r"^metrics is \[\]: pass"),
            ({"metrics": ["luck"]}, r"^unknown metric 'luck'"),
            ({"batch_size": 0}, r"^batch_size is 0: give a whole number, 1 or more$"),
            ({"engine": "horse"}, r"^unknown engine 'horse': the engines are local, ray$"),
            ({"bad": "ignored"}, r"^bad is 'ignored'"),
            ({"pass_rate": 90}, r"^pass_rate is 90: give a share above 0 and below 1"),
            ({"confidence": 0.3}, r"^confidence is 0.3"),
            ({"threshold": float("nan")}, r"^threshold is nan"),
            ({"images": "somewhere"}, r"^images is the folder of a data set that is a path"),
            ({"categories": {"a": 1}}, r"^categories is given, and the data set has none"),
        ],
    )
    def test_that_are_not_served_are_refused_before_anything_is_done(
        self, tmp_path: Path, keywords: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(SettingsError, match=message):
            audited(Scenes(scenes(4)), tmp_path / "out", **keywords)
        assert not (tmp_path / "out").exists()

    def test_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(DataSetError, match="no images"):
            audited(Scenes([]), tmp_path)

    def test_the_model_is_left_as_it_was(self, tmp_path: Path) -> None:
        model = reader().train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state = torch.get_rng_state()
        audited(Scenes(scenes(10)), tmp_path, model=model)
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training and all(module.training for module in model.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class TestClasses:
    def test_by_place_where_the_model_has_as_many(self, tmp_path: Path) -> None:
        data, images = coco_data_set(tmp_path / "coco", 6, size=(64, 64))
        report = audited(data, tmp_path / "out", images=images, transform=to_input)
        assert {(row["cls"], row["label"]) for row in rows(report)} == {(0, "colour00"), (1, "colour01")}

    def test_by_name(self, tmp_path: Path) -> None:
        data, images = coco_data_set(tmp_path / "coco", 6, size=(64, 64))
        report = audited(data, tmp_path / "out", images=images, transform=to_input, labels=["colour01", "colour00"])
        held = json.loads(Path(data).read_text())
        names = {each["id"]: each["name"] for each in held["categories"]}
        files = {each["id"]: each["file_name"] for each in held["images"]}
        said = {(files[each["image_id"]], names[each["category_id"]]) for each in held["annotations"]}
        assert {(row["image"], row["label"]) for row in rows(report)} == said
        assert {(row["cls"], row["label"]) for row in rows(report)} == {(1, "colour00"), (0, "colour01")}

    def test_as_they_are_given(self, tmp_path: Path) -> None:
        data, images = coco_data_set(tmp_path / "coco", 6, size=(64, 64))
        given = {"colour00": 1, "colour01": 1}
        report = audited(data, tmp_path / "out", images=images, transform=to_input, categories=given)
        assert {row["cls"] for row in rows(report)} == {1}

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"labels": ["x", "y"]}, r"the model's labels lack 'colour00', 'colour01'. Pass labels=…"),
            ({"categories": {"colour00": 0}}, r"^categories lacks 'colour01'"),
            (
                {"categories": {"colour00": 0, "colour01": 2}},
                r"has 2 for 'colour01': the model has 2 classes \(0..1\)$",
            ),
            ({"categories": {"colour00": 0, "colour01": "x"}}, r"has 'x' for 'colour01': the model has no labels$"),
        ],
    )
    def test_that_cannot_be_told_are_refused(self, tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
        data, images = coco_data_set(tmp_path / "coco", 3, size=(64, 64))
        with pytest.raises(SettingsError, match=message):
            audited(data, tmp_path / "out", images=images, transform=to_input, **keywords)

    def test_that_are_one_class_of_the_model_are_asked_together(self, tmp_path: Path) -> None:
        """Each by itself would be judged against a part of what the class is."""
        data, images = coco_data_set(tmp_path / "coco", 12, size=(64, 64))
        given = {"colour00": 1, "colour01": 1}
        report = audited(data, tmp_path / "out", images=images, transform=to_input, categories=given)
        assert [row["index"] for row in rows(report)] == list(range(12))
        assert any("2 boxes" in row["region"] or "union" in row["region"] for row in rows(report))

    @pytest.mark.parametrize("keywords", [{}, {"categories": {"colour00": "colour00", "colour01": 0}}])
    def test_with_a_label_that_is_there_twice_are_refused(self, tmp_path: Path, keywords: dict[str, Any]) -> None:
        data, images = coco_data_set(tmp_path / "coco", 3, size=(64, 64))
        labels = ["colour00", "colour00"] if keywords else ["colour01", "colour00", "colour00"]
        with pytest.raises(SettingsError, match="which is meant cannot be told"):
            audited(data, tmp_path / "out", images=images, transform=to_input, labels=labels, **keywords)

    def test_of_another_number_are_refused(self, tmp_path: Path) -> None:
        data, images = coco_data_set(tmp_path / "coco", 3, size=(64, 64), classes=3)
        with pytest.raises(SettingsError, match="the model has 2 classes without names, the data set 3"):
            audited(data, tmp_path / "out", images=images, transform=to_input)


def to_input(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture.resize((SIDE, SIDE)), np.float32).transpose(2, 0, 1).copy() / 255.0)
