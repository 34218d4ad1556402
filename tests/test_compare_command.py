"""`gradcam compare`: two models on a folder, against maps that are known; what is told, written, and refused."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from PIL import Image

from pytest_gradcam import explain
from pytest_gradcam.cli import main
from pytest_gradcam.comparison.folder import file_name
from pytest_gradcam.report.beside import picture_beside
from pytest_gradcam.report.overlay import is_overlay

MODELS = """
from collections import OrderedDict
import numpy as np
import timm
import torch
from torch import nn

def to_input(picture):
    if picture.width == 40:
        raise RuntimeError("forty is too many\\nor too few")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

def build(*weights, name="reads", side=8):
    net = nn.Sequential(OrderedDict([
        ("shrink", nn.AvgPool2d(side)), (name, nn.Conv2d(3, 3, 1, bias=False)), ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()), ("head", nn.Linear(3, len(weights), bias=False)),
    ]))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(3)[:, :, None, None])
        net.head.weight.copy_(torch.tensor(weights))
    return net

def red():
    return build([1.0, 0.0, 0.0], [0.0, 0.0, 0.9])

def green():
    return build([0.0, 1.0, 0.0], [0.0, 0.0, 2.0])

def both():
    return build([1.0, 1.0, 0.0], [0.0, 0.0, 0.9])

def nearly_red():
    return build([1.0, 0.1, 0.0], [0.0, 0.0, 0.9])

def other_names():
    return build([1.0, 0.0, 0.0], [0.0, 0.0, 0.9], name="looks")

def coarse():
    return build([1.0, 0.0, 0.0], [0.0, 0.0, 0.9], side=16)

def nothing():
    return build([0.0, 0.0, 0.0], [0.0, 0.0, 0.9])

def transformer():
    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=5)

def another_transformer():
    torch.manual_seed(4)
    return timm.create_model("test_vit", num_classes=5)

one = red()
"""
RED, GREEN, BLUE = 0, 1, 2


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "compared_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    return pictures


def paint(path: Path, *cells: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> npt.NDArray[np.float64]:
    """Save a black picture with cells of 8 × 8 pixels (channel, row, column, value), and give each channel's cells."""
    array = np.zeros((*size, 3), np.uint8)
    for channel, row, column, value in cells:
        array[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, channel] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, "PNG")
    return np.asarray(array[::8, ::8].transpose(2, 0, 1) / 255.0)


def model(name: str) -> list[str]:
    return ["--model", f"compared_models:{name}", "--transform", "compared_models:to_input"]


def compare(*arguments: str, a: str = "red", b: str = "green") -> int:
    return main(["compare", *model(a), *model(b), "--images", "pictures", *arguments])


def report(out: str = "gradcam-report/compare") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(out, "compare.json").read_text("ascii"))
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows."""
    table = text.split("\n\n")[1].splitlines()
    assert table[0].split() == ["Pearson", "cells", "attention", "moved", "prediction", "picture"]
    starts = [table[0].index(head) for head in ("attention", "prediction", "picture")]
    return [
        [*line[: starts[0]].split(), *(line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True))]
        for line in table[1:]
    ]


def pearson(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


class TestWhatIsTold:
    def test_how_alike_the_maps_are_and_where_attention_moved(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cells = paint(folder / "sub" / "far.png", (RED, 1, 1, 255), (GREEN, 6, 4, 255))
        near = paint(folder / "near.png", (RED, 1, 1, 255), (GREEN, 1, 1, 255), (GREEN, 1, 3, 100))
        assert compare() == 1
        out = capsys.readouterr().out
        assert out.splitlines()[:3] == [
            "model A  compared_models:red",
            "model B  compared_models:green",
            "read at  reads (grad-cam)",
        ]
        far, close = pearson(cells[RED], cells[GREEN]), pearson(near[RED], near[GREEN])
        assert far < 0 < 0.9 < close
        assert rows(out) == [
            [f"{far:.2f}", f"{math.hypot(3, 5):.2f}", "top left -> bottom (100%)", "same", "sub/far.png"],
            [f"{close:.2f}", f"{2 * 100 / 355:.2f}", "top left -> top (28%)", "same", "near.png"],
        ]
        assert out.splitlines()[-2:] == [
            f"2 pictures: 2 compared, 1 below 0.9 (retrained); median Pearson {(far + close) / 2:.2f}",
            f"report: {Path('gradcam-report', 'compare', 'compare.json')}",
        ]

    def test_the_worst_come_first_and_only_so_many(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        expected = {}
        for i in range(40):  # more than go through the models at once, twice
            value = (37 * i) % 40 * 4
            cells = paint(folder / f"{i:02}.png", (RED, 1, 1, 255), (GREEN, 6, 6, value))
            expected[f"{i:02}.png"] = pearson(cells[RED], cells[RED] + cells[GREEN])
        worst = sorted(expected, key=expected.__getitem__)
        assert compare("--top", "3", b="both") == 1
        out = capsys.readouterr().out
        assert [row[-1] for row in rows(out)] == worst[:3]
        below = sum(value < 0.9 for value in expected.values())
        median = statistics.median(expected.values())
        assert f"40 pictures: 40 compared, {below} below 0.9 (retrained); median Pearson {median:.2f}\n" in out
        written = report()
        assert [image["file"] for image in written["images"]] == sorted(expected)
        assert [image["pearson"] for image in written["images"]] == pytest.approx(
            [expected[name] for name in sorted(expected)], abs=1e-5
        )
        assert {image["file"] for image in written["images"] if image["picture"]} == set(worst[:3])
        assert len(list(Path("gradcam-report/compare").glob("*.png"))) == 3

    def test_pictures_of_several_sizes(self, folder: Path) -> None:
        expected = []
        for i, size in enumerate([(64, 64), (48, 64), (64, 64), (48, 56)]):
            cells = paint(folder / f"{i}.png", (RED, 1, i + 1, 255), (GREEN, 4, 5, 255), size=size)
            expected.append(pearson(cells[RED], cells[GREEN]))
        compare()
        assert [image["pearson"] for image in report()["images"]] == pytest.approx(expected, abs=1e-5)

    def test_the_floor(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cells = paint(folder / "a.png", (RED, 1, 1, 255), (GREEN, 6, 6, 255))
        found = pearson(cells[RED], cells[RED] + 0.1 * cells[GREEN])
        assert 0.9 < found < 0.999
        assert compare(b="nearly_red") == 0
        assert compare("--floor", "retrained", b="nearly_red") == 0
        assert compare("--floor", "same_weights", b="nearly_red") == 1
        assert "1 below 0.999 (same_weights)" in capsys.readouterr().out
        assert compare("--floor", "same_weights", b="red") == 0
        assert rows(capsys.readouterr().out)[0][:3] == ["1.000", "0.00", "nowhere"]

    def test_the_class_is_what_the_first_model_predicts(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cells = paint(folder / "a.png", (RED, 1, 1, 255), (GREEN, 6, 6, 255), (GREEN, 1, 1, 100), (BLUE, 1, 6, 200))
        assert compare(b="red") == 0
        out = capsys.readouterr().out
        assert rows(out)[0][3] == "same" and "another prediction" not in out
        compare()
        out = capsys.readouterr().out
        assert rows(out)[0][3] == "0 -> 1" and ", 1 with another prediction; median" in out
        (image,) = report()["images"]
        assert (image["class"], image["predicted"]) == (0, [0, 1])
        assert image["pearson"] == pytest.approx(pearson(cells[RED], cells[GREEN]), abs=1e-5)
        assert compare("--cls", "1") == 0  # both read what is blue
        (image,) = report()["images"]
        assert (image["class"], image["predicted"], image["pearson"]) == (1, [0, 1], pytest.approx(1.0))

    def test_a_model_without_evidence_is_a_row(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))
        paint(folder / "b.png", (BLUE, 1, 1, 255))
        assert compare(b="nothing") == 1
        out = capsys.readouterr().out
        assert rows(out) == [
            ["-", "-", "no evidence", "same", "a.png"],
            ["1.00", "0.00", "nowhere", "same", "b.png"],
        ]
        assert "a.png: no evidence: model B has no evidence: nothing at reads (grad-cam) speaks for class 0\n" in out
        assert "2 pictures: 1 compared, 0 below 0.9 (retrained), 1 without evidence; median" in out
        image = report()["images"][0]
        assert image["status"] == "no evidence" and "pearson" not in image and image["picture"]
        assert compare(a="nothing", b="red") == 1
        assert "; model B" not in report()["images"][0]["reason"]
        assert report()["images"][0]["reason"].startswith("model A has no evidence")

    def test_pictures_that_cannot_be_had_are_counted(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / "good.png", (RED, 1, 1, 255), (GREEN, 1, 1, 255))
        paint(folder / "odd.png", (RED, 1, 1, 255), size=(64, 40))
        (folder / "text.jpg").write_text("no picture")
        (folder / "notes.txt").write_text("not asked for")
        assert compare() == 1
        out = capsys.readouterr().out
        assert "  odd.png: not explained: model A: RuntimeError: forty is too many\n" in out
        assert "  text.jpg: unreadable: the image " in out and "is in no format that PIL can read" in out
        assert "3 pictures: 1 compared, 0 below 0.9 (retrained), 1 not explained, 1 unreadable; median" in out
        assert report()["counts"] == {
            "compared": 1,
            "no evidence": 0,
            "not explained": 1,
            "unreadable": 1,
            "below": 0,
            "changed predictions": 0,
        }
        assert report()["passed"] is False

    def test_one_bad_picture_leaves_the_others_of_its_batch(self, folder: Path) -> None:
        """Behind this model's own check of its input."""
        with Path("compared_models.py").open("a", encoding="utf-8") as file:
            file.write(
                "\nclass Picky(nn.Module):\n"
                "    def __init__(self):\n        super().__init__()\n        self.net = red()\n"
                "    def forward(self, x):\n"
                "        if (x[:, 2].amax((1, 2)) == 1).any():\n            raise ValueError('blue')\n"
                "        return self.net(x)\n"
            )
        sys.modules.pop("compared_models", None)
        for i in range(4):
            paint(folder / f"{i}.png", (RED, 1, i, 255), (BLUE, 7, 7, 255 if i == 2 else 0))
        assert compare(a="Picky", b="Picky") == 1
        found = [(image["status"], image["reason"]) for image in report()["images"]]
        assert found == [("compared", "")] * 2 + [("not explained", "model A: ValueError: blue"), ("compared", "")]

    @pytest.mark.parametrize("name", ["a\x1b[31m.png", "a\nb.png", "a\u202eb.png", "a\udc80.png", "a\x07/b.png"])
    def test_names_cannot_steer_the_terminal(self, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / name, (RED, 1, 1, 255), (GREEN, 6, 6, 255))
        Path(str(folder / name) + "x.png").write_text("no picture")
        assert compare() == 1
        said = capsys.readouterr()
        for character in (said.out + said.err).replace("\n", ""):
            assert character.isprintable()
        assert len(rows(said.out)) == 1 and name not in said.out
        assert [image["file"] for image in report()["images"]] == sorted([name, f"{name}x.png"])


class TestWhereTheModelsAreRead:
    def test_the_second_at_the_layers_of_the_first(self, folder: Path) -> None:
        pattern = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(pattern).save(folder / "a.png")
        assert (
            main(
                [
                    *("compare", "--model", "compared_models:transformer"),
                    *("--model", "compared_models:another_transformer", "--images", "pictures"),
                ]
            )
            == 1
        )
        (image,) = report()["images"]
        first, second = image["layers"]
        assert first == second == [f"blocks.{i}.norm1" for i in range(6)]
        assert image["methods"] == ["hirescam", "hirescam"]

    def test_or_at_its_own_and_says_so(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))
        assert compare(b="other_names") == 0
        said = "model A was read at reads (grad-cam), model B at looks (grad-cam), which has no layer 'reads'"
        assert f"note     {said}\n" in capsys.readouterr().out
        assert (report()["images"][0]["reason"], report()["images"][0]["layers"]) == (said, [["reads"], ["looks"]])

    def test_grids_of_two_sizes_are_told(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))
        assert compare(b="coarse") == 1
        said = "8×8 and 4×4: compared on 8×8, which costs some similarity"
        assert f"note     {said}\n" in capsys.readouterr().out
        assert report()["images"][0]["reason"] == said

    def test_as_the_user_says(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))
        assert compare("--layer", "shrink", "--method", "layercam", b="other_names") == 0
        (image,) = report()["images"]
        assert (image["layers"], image["methods"]) == ([["shrink"], ["shrink"]], ["layercam", "layercam"])
        assert "note" not in capsys.readouterr().out


class TestCheckpoints:
    def test_each_is_of_the_model_before_it(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, seed in (("a", 0), ("b", 2)):  # both have evidence for class 1
            torch.manual_seed(seed)
            torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), f"{name}.pt")
        pattern = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(pattern).save(folder / "x.png")

        def asked(*files: str) -> float:
            models = [part for file in files for part in ("--model", "test_resnet", "--checkpoint", file)]
            main(["compare", *models, "--images", "pictures"])
            return float(report()["images"][0]["pearson"])

        maps = {}
        for name in "ab":
            net = timm.create_model("test_resnet", num_classes=3).eval()
            net.load_state_dict(torch.load(f"{name}.pt"))
            maps[name] = net
        first = explain(maps["a"], folder / "x.png")
        other = explain(maps["b"], folder / "x.png", first.cls)
        expected = pearson(first.raw.astype(float), other.raw.astype(float))
        assert asked("a.pt", "b.pt") == pytest.approx(expected, abs=1e-5)
        assert report()["models"] == [
            {"title": "model A", "name": "test_resnet", "checkpoint": "a.pt", "transform": None},
            {"title": "model B", "name": "test_resnet", "checkpoint": "b.pt", "transform": None},
        ]
        assert "model B  test_resnet, b.pt\n" in capsys.readouterr().out
        assert asked("b.pt", "b.pt") == pytest.approx(1.0)


class TestWhatIsWritten:
    def test_a_picture_of_both_maps_and_their_difference(self, folder: Path) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255), (GREEN, 6, 4, 255))
        compare("--out", "elsewhere")
        (image,) = report("elsewhere")["images"]
        path = Path("elsewhere", image["picture"])
        assert is_overlay(path)
        import compared_models  # type: ignore[import-not-found]

        x = compared_models.to_input(Image.open(folder / "a.png"))
        a, b = (explain(net.eval(), x, 0) for net in (compared_models.red(), compared_models.green()))
        caption = f"a.png: Pearson {image['pearson']:.3f}"
        drawn = picture_beside(a.cam, b.cam, a.image, ("model A", "model B", "difference"), caption)
        assert np.array_equal(np.array(Image.open(path)), drawn)
        moved = image["movement"]
        assert (moved["from"], moved["to"], moved["moved"]) == ("top left", "bottom", pytest.approx(1.0))
        assert (moved["dx"], moved["dy"]) == pytest.approx((3.0, 5.0))

    @pytest.mark.parametrize(
        "name",
        [
            "..png",
            "con.png",
            "a/../b.png",
            "C:a.png",
            "a\\b.png",
            "ü" * 80 + ".png",
            "A.PNG",
            "x.py::test_y.png",
            "~.gif",
        ],
    )
    def test_names_of_its_files_are_safe(self, name: str) -> None:
        made = file_name(name)
        assert "/" not in made and "\\" not in made and not made.startswith((".", "con.")) and ":" not in made
        assert len(made.encode()) <= 255 and made.endswith(".png")
        assert file_name(f"sub/{name}") != made

    def test_nothing_leaves_the_folder_and_what_is_left_over_goes(self, folder: Path) -> None:
        out = Path("out")
        for name in ("a", "b"):
            paint(folder / f"{name}.png", (RED, 1, 1, 255), (GREEN, 6, 6, 255))
        compare("--out", "out")
        earlier = {path.name for path in out.glob("*.png")}
        assert len(earlier) == 2
        ours = next(iter(out.glob("a.png*"))).read_bytes()
        (out / "not_named.png").write_bytes(ours)
        Path("outside.png").write_bytes(ours)
        Image.new("RGB", (8, 8)).save(out / "mine.png")
        written = report("out")
        written["images"] += [{"picture": "../outside.png"}, {"picture": "mine.png"}, {"picture": ["x"]}]
        (out / "compare.json").write_text(json.dumps(written))
        (folder / "a.png").unlink()
        compare("--out", "out")
        assert {path.name for path in out.iterdir()} == {
            ".gitignore",
            file_name("b.png"),
            "compare.json",
            "mine.png",
            "not_named.png",
        }
        assert Path("outside.png").exists()

    def test_its_own_pictures_are_not_compared(self, folder: Path) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255), (GREEN, 6, 6, 255))
        for _ in range(2):
            compare("--out", "pictures/report")
            assert [image["file"] for image in report("pictures/report")["images"]] == ["a.png"]


class TestWhatIsRefused:
    @pytest.mark.parametrize("text", ["my notes", "{}", "[1]", '{"made_by": "me"}'])
    def test_to_write_over_somebody_elses_report(
        self, folder: Path, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))
        (folder.parent / "out").mkdir()
        (folder.parent / "out" / "compare.json").write_text(text)
        assert compare("--out", str(folder.parent / "out")) == 2
        assert "was not written by gradcam compare" in capsys.readouterr().err
        assert (folder.parent / "out" / "compare.json").read_text() == text
        assert [path.name for path in (folder.parent / "out").iterdir()] == ["compare.json"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([*model("red"), "--images", "pictures"], "--model is given 1 times: give the two models"),
            ([*model("red") * 3, "--images", "pictures"], "--model is given 3 times"),
            (["--checkpoint", "a.pt", *model("red"), *model("red"), "--images", "."], "--checkpoint is of the --model"),
            (["--transform", "m:t", *model("red"), *model("red"), "--images", "."], "--transform is of the --model"),
            ([*model("red"), "--transform", "m:t", *model("red"), "--images", "."], "--transform is given twice"),
            ([*model("red"), *model("red")], "--images"),
            (["--images", "pictures"], "--model"),
            ([*model("red"), *model("red"), "--images", "pictures", "--method", "gradcam"], "argument --method"),
            ([*model("red"), *model("red"), "--images", "pictures", "--floor", ".9"], "argument --floor"),
            ([*model("red"), *model("red"), "--images", "pictures", "--top", "-1"], "argument --top: -1 is no number"),
        ],
    )
    def test_a_command_line_that_is_none(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as left:
            main(["compare", *arguments])
        assert left.value.code == 2
        assert said in capsys.readouterr().err

    def refused(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["compare", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("gradcam compare: ")
        assert not list(Path().glob("**/compare.json"))
        return said.err

    def test_models_and_pictures_that_cannot_be_had(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a, b = model("red"), model("green")
        assert "'none' does not exist: give a folder" in self.refused([*a, *b, "--images", "none"], capsys)
        assert "'pictures' holds no pictures: none of .bmp" in self.refused([*a, *b, "--images", "pictures"], capsys)
        paint(folder / "a.png", (RED, 1, 1, 255))
        assert "is a file: give a folder" in self.refused([*a, *b, "--images", "pictures/a.png"], capsys)
        images = ["--images", "pictures"]
        said = self.refused([*a, *model("no_such"), *images], capsys)
        assert "model B: 'compared_models:no_such' cannot be imported" in said
        said = self.refused([*a, "--checkpoint", "none.pt", *b, *images], capsys)
        assert "model A: there is no checkpoint 'none.pt'" in said
        said = self.refused([*a, "--model", "compared_models:green", *images], capsys)
        assert "model B: " in said and "--transform module:callable after --model compared_models:green" in said
        said = self.refused([*a, *b[:3], "compared_models:RED", *images], capsys)
        assert "model B: 'compared_models:RED' cannot be imported" in said
        said = self.refused([*model("one"), *model("one"), *images], capsys)
        assert "compared_models:one and compared_models:one give the same object" in said
        said = self.refused([*a, *b, *images, "--cls", "2"], capsys)
        assert said == "gradcam compare: model A: class 2 is out of range: the model has 2 classes (0..1)\n"
        said = self.refused([*a, *b, *images, "--layer", "nowhere"], capsys)
        assert "model A: Sequential has no layer 'nowhere'" in said
        Path("taken").write_text("a file")
        said = self.refused([*a, *b, *images, "--out", "taken"], capsys)
        assert "the folder 'taken' cannot be made" in said

    def test_pretrained_weights_without_a_network(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paint(folder / "a.png", (RED, 1, 1, 255))

        def refuse(_name: str, *, pretrained: bool) -> None:
            assert pretrained
            raise OSError("We couldn't connect to the Hub")

        monkeypatch.setattr(timm, "create_model", refuse)
        monkeypatch.setattr("pytest_gradcam.loading._is_reachable", lambda _address: True)
        said = self.refused(["--model", "resnet18", *model("red"), "--images", "pictures"], capsys)
        assert "couldn't connect to the Hub" in said and "--checkpoint FILE after --model resnet18" in said


def test_its_help_costs_no_import_of_torch_or_numpy() -> None:
    code = (
        "import sys; from pytest_gradcam import cli\n"
        "try: cli.main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pytest', 'cv2', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--checkpoint FILE" in done.stdout and done.stdout.splitlines()[-1] == "[]"
