"""The README and the documentation tell the truth: their examples run, and what they show is what a person sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torchvision  # noqa: F401  # before pytester takes note of what is imported: torch cannot be imported twice
from PIL import Image

from pytest_gradcam.demo.pictures import held_out
from pytest_gradcam.settings import NAMES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

MY_PROJECT = """
import numpy as np
from PIL import Image
from pytest_gradcam.demo import models
from pytest_gradcam.demo.pictures import LABELS

def load_model():
    return models.load_model("{name}")

def to_input(picture):
    picture = picture if isinstance(picture, Image.Image) else Image.open(picture)
    return models.inputs([np.asarray(picture)])[0]
"""
CONFTEST = """
import pytest
from my_project import load_model

@pytest.fixture
def model():
    return load_model()

@pytest.fixture
def model_with_metadata():
    import torch

    class WithMetadata(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.images, self.numbers = load_model(), torch.nn.Linear(4, 4)

        def forward(self, x, metadata):
            return self.images(x) + self.numbers(metadata)

    return WithMetadata().eval()

@pytest.fixture
def validation_set():
    from pytest_gradcam.demo.pictures import held_out
    pictures = list(held_out(20))
    return [p.image for p in pictures], [p.box for p in pictures], [p.cls for p in pictures]

@pytest.fixture
def data_set():
    from my_project import to_input
    from pytest_gradcam.demo.pictures import held_out
    from PIL import Image
    return [(to_input(Image.fromarray(p.image)), {"boxes": [p.box], "labels": [p.cls]}) for p in held_out(100)]

@pytest.fixture
def torchvision_model():
    from torchvision.models import resnet18
    return resnet18(num_classes=2)
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


EXAMPLES = [
    pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]


def a_users_project(pytester: pytest.Pytester, model: str) -> None:
    pytester.makepyfile(my_project=MY_PROJECT.format(name=model))
    pytester.makeconftest(CONFTEST)
    by_name = {picture.name: picture for picture in held_out(8)}
    for picture, name in (("cat-001", "cat.png"), ("cup-002", "cup.png"), ("astronaut-000", "dog.jpg")):
        Image.fromarray(by_name[picture].image).save(pytester.path / name)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, example: str) -> None:
    """Tests in the pages pass, and scripts in the pages run, in the project of a user whose model is in order."""
    a_users_project(pytester, "honest")
    if "def test_" not in example:
        example = "def test_script():\n" + "".join(f"    {line}\n" for line in example.splitlines())
    pytester.makepyfile(example)
    if "gradcam.check(" in example:  # as the pages say: it fails until there is a baseline
        before = pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()
        written = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--gradcam-update=new").parseoutcomes()
        assert (set(before), set(written)) == ({"failed"}, {"passed"})
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}, "\n".join(result.outlines)


def test_what_the_readme_shows_is_what_a_person_sees(pytester: pytest.Pytester) -> None:
    """The failure message in the README is the one of its own test, on the model that learnt the stamp."""
    a_users_project(pytester, "shortcut")
    pytester.makepyfile(test_attention=blocks(ROOT / "README.md", "python")[0])
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--color=no")
    result.assert_outcomes(failed=1)
    (shown,) = blocks(ROOT / "README.md", "text")
    seen = [line.rstrip() for line in result.outlines]
    for line in shown.splitlines():
        assert line.rstrip() in seen


def test_the_readmes_ini_file_is_served(pytester: pytest.Pytester) -> None:
    (example,) = blocks(ROOT / "README.md", "ini")
    pytester.makeini(example)
    pytester.makepyfile(
        """
        def test_it(gradcam):
            assert (gradcam.settings.threshold, gradcam.settings.labels) == (0.2, ("cup", "cat"))
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_every_setting_has_its_row_in_the_readme() -> None:
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(NAMES) <= set(rows)


def test_ci_runs_the_readmes_commands() -> None:
    """What CI checks is what a newcomer types."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [part for block in blocks(ROOT / "README.md", "console") for part in block.strip().split(" && ")]
    assert commands == ["pip install -e .", "gradcam demo", 'pip install -e ".[test]"', "pytest"]
    for command in commands:
        words = command.replace("pip install", "pip install --quiet")
        assert re.search(rf"^.*{re.escape(words)}\)?$", script, flags=re.MULTILINE), command


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
