"""`gradcam explain`: figures and sheets of models whose maps are known, what is told, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from PIL import Image

from pytest_gradcam import explain
from pytest_gradcam.cam.heatmap import blend, colourise
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.cam.running import Options
from pytest_gradcam.cli import main
from pytest_gradcam.figures.asked import guesses, imagenet_labels
from pytest_gradcam.figures.figure import chance_of
from pytest_gradcam.figures.paper import WHITE, Paper, fitted_text, wrapped
from pytest_gradcam.images import prepare
from pytest_gradcam.loading import load_object
from pytest_gradcam.report.maps import fitted
from pytest_gradcam.report.overlay import is_overlay, save_figure

MODELS = """
from collections import OrderedDict
import numpy as np
import timm
import torch
from torch import nn

def to_input(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

def broken(picture):
    raise RuntimeError("out of\\nfilm")

def build(*weights):
    net = nn.Sequential(OrderedDict([
        ("shrink", nn.AvgPool2d(8)), ("reads", nn.Conv2d(3, 3, 1, bias=False)), ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()), ("head", nn.Linear(3, len(weights), bias=False)),
    ]))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(3)[:, :, None, None])
        net.head.weight.copy_(torch.tensor(weights))
    return net

def named(*labels):
    net = build([9.0, 0.0, 0.0], [0.0, 5.0, 0.0], [-1.0, -1.0, -1.0])
    net.pretrained_cfg = {"label_names": list(labels)}
    net.num_classes = len(labels)
    return net

def colours():
    return named("red", "green", "nothing")

def hostile():
    return named("<b>red\\x1b[31m\\n", "猫 été", "x" * 500)

def transformer():
    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=5)
"""
MARGIN, TOP, PANEL = 32, 162, 448


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "explained_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    array = np.zeros((64, 64, 3), np.uint8)
    array[8:16, 40:48, 0] = 255
    array[40:56, 8:24, 1] = 200
    Image.fromarray(array).save(tmp_path / "a.png")
    return tmp_path


def run(*arguments: str, model: str = "colours", image: str = "a.png", transform: str | None = "to_input") -> int:
    given = [] if transform is None else ["--transform", f"explained_models:{transform}"]
    return main(["explain", image, "--model", f"explained_models:{model}", *given, *arguments])


def pixels(name: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(name).convert("RGB"))


def large(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.kron(array, np.ones((7, 7, 1), np.uint8)).astype(np.uint8)


class TestAFigure:
    def test_its_panels_are_what_the_model_saw_the_map_and_the_overlay(self) -> None:
        assert run("--cls", "0") == 0
        drawn = pixels("a-gradcam.png")
        made = explain(
            load_object("explained_models:colours")(), "a.png", 0, transform=load_object("explained_models:to_input")
        )
        seen, cam = large(pixels("a.png")), fitted(made.cam, PANEL, PANEL)
        second, third = MARGIN + PANEL + 28, MARGIN + 2 * (PANEL + 28) + 62
        for left, wanted in ((MARGIN, seen), (second, colourise(cam)), (third, blend(seen, cam))):
            assert (drawn[TOP : TOP + PANEL, left : left + PANEL] == wanted).all()
        bar = drawn[TOP : TOP + PANEL, second + PANEL + 12]
        wanted = colourise(np.linspace(1, 0, PANEL, dtype=np.float32)[:, None])[:, 0]
        assert (bar == wanted).all()

    def test_the_map_is_where_the_class_is(self) -> None:
        """The hottest colour of jet is dark red, and there is none elsewhere."""
        run("--cls", "green")
        drawn = pixels("a-gradcam.png")[TOP : TOP + PANEL, MARGIN + PANEL + 28 : MARGIN + 2 * PANEL + 28].astype(int)
        hot = (drawn[..., 0] > 120) & (drawn[..., 1] < 10) & (drawn[..., 2] < 10)
        y, x = np.nonzero(hot)
        assert 40 * 7 <= y.min() and y.max() < 56 * 7 and 8 * 7 <= x.min() and x.max() < 24 * 7

    def test_bars_are_as_long_as_the_classes_are_likely(self) -> None:
        run("--cls", "1")
        drawn = pixels("a-gradcam.png")
        net = load_object("explained_models:colours")()
        odds = net(load_object("explained_models:to_input")(Image.open("a.png"))[None]).softmax(1)[0].detach()
        left = drawn.shape[1] - MARGIN - 400
        for row, cls in enumerate(odds.argsort(descending=True).tolist()):
            bar = drawn[TOP + 76 * row + 30, left : left + 400].tolist()
            colour = [196, 74, 8] if cls == 1 else [142, 154, 172]
            assert bar.count(colour) == round(400 * float(odds[cls]))

    def test_one_line_for_the_map_and_where_the_figure_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        net = load_object("explained_models:colours")()
        odds = net(load_object("explained_models:to_input")(Image.open("a.png"))[None]).softmax(1)[0].detach()
        made = explain(net, "a.png", 1, transform=load_object("explained_models:to_input"))
        run("--cls", "1", "--method", "hirescam", "--out", "b.png")
        assert capsys.readouterr().out.splitlines() == [
            f"class 1 (green), p = {float(odds[1]):.2f} · hirescam at reads · grid 8×8 · evidence {made.evidence:.4g}",
            "figure: b.png",
        ]

    def test_method_layer_engine_and_colours_are_those_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--layer", "shrink", "--engine", "split", "--device", "cpu", "--colormap", "viridis"]
        assert run(*arguments, "--cls", "0") == 0
        assert " at shrink " in capsys.readouterr().out
        drawn = pixels("a-gradcam.png")[TOP : TOP + PANEL, MARGIN + PANEL + 28 : MARGIN + 2 * PANEL + 28]
        assert drawn[-1, -1].tolist() == colourise(np.zeros((1, 1), np.float32), "viridis")[0, 0].tolist()

    def test_without_evidence_it_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--cls", "nothing") == 1
        out = capsys.readouterr().out
        assert "evidence 0\n" in out and "no evidence: nothing at reads speaks for nothing; " in out
        drawn = pixels("a-gradcam.png")[TOP : TOP + PANEL, MARGIN + PANEL + 28 : MARGIN + 2 * PANEL + 28]
        assert drawn[0, 0].tolist() == drawn[-1, -1].tolist() == [235, 237, 240]
        assert (drawn == [196, 74, 8]).all(axis=-1).any()  # the words

    @pytest.mark.parametrize("top", [0, 1, 2, 9])
    def test_the_class_explained_is_a_row_whatever_its_rank(self, top: int) -> None:
        assert run("--cls", "nothing", "--top", str(top), "--layer", "reads") == 1
        drawn = pixels("a-gradcam.png")
        rows = min(top, 3) + (top < 3)
        track = (drawn[TOP:, drawn.shape[1] - MARGIN - 1] == (235, 237, 240)).all(axis=1)
        assert np.count_nonzero(np.diff(track.astype(int)) == 1) == rows

    @pytest.mark.parametrize("size", [(8, 400), (400, 8), (200, 120), (1500, 1500)])
    def test_pictures_of_any_shape(self, size: tuple[int, int], folder: Path) -> None:
        Image.new("RGB", size, (255, 120, 0)).save(folder / "odd.png")
        assert run(image="odd.png") == 0
        assert max(pixels("odd-gradcam.png").shape) < 2400

    def test_hostile_labels_and_names_are_text(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "a.png").rename(folder / "\x1b[31mред.png")
        assert run("--cls", "0", model="hostile", image="\x1b[31mред.png") == 0
        out = capsys.readouterr().out
        assert "class 0 (<b>red\\x1b[31m\\n), p" in out and "\x1b" not in out and len(out.splitlines()) == 2
        assert Path("\x1b[31mред-gradcam.png").exists()

    def test_a_checkpoint(self, folder: Path) -> None:
        net = load_object("explained_models:colours")()
        with torch.no_grad():
            net.head.weight.copy_(net.head.weight[[1, 0, 2]])
        torch.save(net.state_dict(), folder / "w.pt")
        assert run("--checkpoint", "w.pt", "--cls", "0") == 0
        drawn = pixels("a-gradcam.png")[TOP : TOP + PANEL, MARGIN + PANEL + 28 : MARGIN + 2 * PANEL + 28].astype(int)
        hot = (drawn[..., 0] > 120) & (drawn[..., 1] < 10) & (drawn[..., 2] < 10)
        assert np.nonzero(hot)[0].min() >= 40 * 7


def test_the_likeliest_classes_come_first_and_none_is_left_out() -> None:
    net, to_input = load_object("explained_models:colours")(), load_object("explained_models:to_input")
    ready = prepare("a.png", transform=to_input)
    odds = net(to_input(Image.open("a.png"))[None]).softmax(1)[0].tolist()
    asked, found = guesses(net, ready, "nothing", Options(), 5)
    assert [(guess.cls, guess.name, guess.rank) for guess in found] == [
        (1, "green", 1),
        (0, "red", 2),
        (2, "nothing", 3),
    ]
    assert [guess.probability for guess in found] == pytest.approx(sorted(odds, reverse=True))
    assert asked == found[2]
    assert guesses(net, ready, None, Options(), 1) == (found[0], found[:1])


class TestASheet:
    def test_all_methods_a_tile_each_and_those_that_cannot_say_why(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--methods", "all", "--cls", "0") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("class 0 (red), p = ") and lines[-1] == "figure: a-gradcam.png"
        assert [line.split()[0] for line in lines[1:-1]] == [*METHODS]
        assert "no attention was seen" in lines[-2]
        assert is_overlay(Path("a-gradcam.png"))

    def test_tiles_are_the_overlays(self) -> None:
        assert run("--methods", "grad-cam,legrad", "--cls", "0") == 0
        drawn = pixels("a-gradcam.png")
        made = explain(
            load_object("explained_models:colours")(),
            "a.png",
            0,
            method="grad-cam",
            transform=load_object("explained_models:to_input"),
        )
        seen = np.kron(pixels("a.png"), np.ones((4, 4, 1), np.uint8)).astype(np.uint8)
        y, cell = 134 + 46, 256 + 22
        assert (drawn[y : y + 256, 32:288] == seen).all()
        assert (drawn[y : y + 256, 32 + cell : 288 + cell] == blend(seen, fitted(made.cam, 256, 256))).all()
        assert drawn[y, 32 + 2 * cell].tolist() == [235, 237, 240]

    def test_all_layers_that_can_be_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--layers", "all", model="transformer", transform=None) == 0
        named = [line.split(" at ")[1].split()[0].rstrip(":") for line in capsys.readouterr().out.splitlines()[1:-1]]
        assert named[0] == "blocks.5.norm1" and "blocks.0" in named and "patch_embed" in named
        assert len(named) == len(set(named))

    def test_methods_at_layers(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--methods", "hirescam, layercam", "--layers", "reads,shrink,nope", "--cls", "0") == 0
        lines = capsys.readouterr().out.splitlines()[1:-1]
        assert [line.split()[0] for line in lines] == ["hirescam", "layercam"] * 3
        assert " at reads " in lines[1] and " at shrink " in lines[2] and "at nope: Sequential has no layer" in lines[5]
        assert pixels("a-gradcam.png").shape == (134 + 3 * (256 + 46 + 22) - 22 + 32, 2 * 32 + 3 * 278 - 22, 3)

    def test_without_any_map_it_fails(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--methods", "grad-cam,nonsense", "--cls", "nothing") == 1
        out = capsys.readouterr().out
        assert "no evidence" in out and "unknown method 'nonsense'" in out
        assert is_overlay(Path("a-gradcam.png"))

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--methods", ","], "the list of methods or layers is empty"),
            (["--methods", "all", "--layers", "a,b,c,d,e"], "13 methods at 5 layers are 65 tiles"),
        ],
    )
    def test_lists_that_make_no_sheet(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == 2
        assert said in capsys.readouterr().err


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--cls", "7"], "class 7 is out of range: the model has 3 classes (0..2)"),
            (["--cls", "-1"], "class -1 is out of range"),
            (["--cls", "gren"], "did you mean 'green'?"),
            (["--colormap", "rainbowish"], "unknown colormap 'rainbowish'"),
            (["--device", "toaster"], "unknown device 'toaster'"),
            (["--layer", "nope"], "has no layer 'nope'"),
            (["--out", "a.jpg"], "end it in .png"),
            (["--checkpoint", "none.pt"], "there is no checkpoint 'none.pt'"),
        ],
    )
    def test_what_cannot_be_asked(self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(*arguments) == 2
        out, err = capsys.readouterr()
        assert said in err and err.startswith("gradcam explain: ") and "Traceback" not in err and out == ""
        assert not Path("a-gradcam.png").exists()

    def test_a_picture_or_model_or_transform_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("text.png").write_text("no picture")
        assert run(image="missing.png") == run(image="text.png") == run(model="absent") == 2
        assert run(transform="broken") == 2
        assert "out of" in capsys.readouterr().err
        assert run(transform=None) == 2
        assert "--transform module:callable" in capsys.readouterr().err

    def test_without_network_the_error_says_how_to_pass_a_checkpoint(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path.cwd()))
        assert main(["explain", "a.png", "--model", "resnet18"]) == 2
        assert "--checkpoint FILE" in capsys.readouterr().err

    @pytest.mark.parametrize("out", ["a.png", "other.png", "link.png", "folder.png"])
    def test_what_is_not_ours_is_never_written_over(
        self, out: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("RGB", (4, 4)).save(folder / "other.png")
        save_figure(np.zeros((4, 4, 3), np.uint8), folder / "ours.png")
        (folder / "link.png").symlink_to(folder / "ours.png")
        (folder / "folder.png").mkdir()
        before = {path.name: path.read_bytes() for path in folder.glob("*.png") if path.is_file()}
        assert run("--out", out) == 2
        assert out in capsys.readouterr().err
        assert before == {path.name: path.read_bytes() for path in folder.glob("*.png") if path.is_file()}

    def test_a_figure_of_ours_is_replaced_but_not_where_it_is_what_is_explained(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--cls", "0") == 0
        first = Path("a-gradcam.png").read_bytes()
        assert run("--cls", "1") == 0
        second = Path("a-gradcam.png").read_bytes()
        assert first != second
        assert run("--out", "a-gradcam.png", image="a-gradcam.png") == 2
        assert "is the picture that is explained" in capsys.readouterr().err
        assert Path("a-gradcam.png").read_bytes() == second

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["a.png"],
            ["a.png", "--model", "m", "--method", "nonsense"],
            ["a.png", "--model", "m", "--method", "rise", "--methods", "all"],
            ["a.png", "--model", "m", "--layer", "a", "--layers", "all"],
            ["a.png", "--model", "m", "--top", "-1"],
            ["a.png", "--model", "m", "--engine", "steam"],
        ],
    )
    def test_a_command_line_that_cannot_be_understood(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as left:
            main(["explain", *arguments])
        assert left.value.code == 2


class TestLabels:
    def test_of_imagenet_for_the_models_that_were_trained_on_it(self) -> None:
        labels = imagenet_labels(timm.create_model("test_vit"))
        assert labels is not None and len(labels) == 1000 and labels[281].startswith("tabby")
        assert imagenet_labels(timm.create_model("test_vit", num_classes=10)) is None
        assert imagenet_labels(torch.nn.Linear(2, 2)) is None

    def test_are_not_guessed_for_weights_of_the_users_own(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.save(timm.create_model("test_vit").state_dict(), folder / "w.pt")
        assert main(["explain", "a.png", "--model", "test_vit", "--checkpoint", "w.pt", "--cls", "281"]) == 0
        assert capsys.readouterr().out.startswith("class 281, p ")


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.5, "p = 0.50"),
        (0.9999, "p > 0.999"),
        (1.0, "p > 0.999"),
        (0.994, "p = 0.994"),
        (0.0, "p < 0.001"),
        (0.004, "p = 0.004"),
    ],
)
def test_a_probability_is_never_certain(probability: float, said: str) -> None:
    assert chance_of(probability) == said


class TestPaper:
    @pytest.mark.parametrize("text", ["short", "W" * 300, "猫" * 200, "", "a b " * 100])
    def test_text_keeps_to_its_width(self, text: str) -> None:
        paper = Paper(300, 60)
        paper.text(20, 40, text, 20, 200)
        assert (paper.pixels[:, 224:] == WHITE).all() and (paper.pixels[:, :16] == WHITE).all()

    def test_lines_keep_to_theirs_and_say_that_there_was_more(self) -> None:
        lines = wrapped("word " * 100, 14, 120, 4)
        assert len(lines) == 4 and fitted_text(lines[-1], 14, 120)[0].endswith("…")
        assert wrapped("two words", 14, 400, 4) == ["two words"]

    def test_letters_that_no_font_has_are_spelt_out(self) -> None:
        assert fitted_text("a\U000e0041\x1b×", 14, 900)[0] == "a\\U000e0041\\x1bx"


def test_help_costs_no_import_of_torch() -> None:
    code = (
        "import sys; from pytest_gradcam import cli\n"
        "try: cli.main(['explain', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
