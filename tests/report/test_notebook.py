"""Maps and verdicts in a notebook: the pictures by their pixels, the table by its cells, as a parser sees them."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.report.beside import picture_beside
from pytest_gradcam.report.overlay import outline
from pytest_gradcam.verdicts import Sight, Verdict
from tests.report.hostile_texts import HOSTILE
from tests.report.synthetic import box_mask, corner_raw, explanation, photo, verdict


class Read(HTMLParser):
    """The tags, the texts, and the pictures of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.cells: list[str] = []
        self.text = ""
        self._open: list[str] = []
        html.encode("utf-8")
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag not in ("img", "br"):
            self._open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open[-1] in ("th", "td"):
            self.cells[-1] += data

    @property
    def rows(self) -> dict[str, str]:
        return dict(zip(self.cells[::2], self.cells[1::2], strict=True))

    @property
    def pictures(self) -> list[npt.NDArray[np.uint8]]:
        found = []
        for attributes in self.attributes:
            if (source := attributes.get("src")) is not None:
                kind, _, data = source.partition(",")
                assert kind == "data:image/png;base64"
                decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
                assert decoded is not None
                found.append(np.asarray(decoded[..., ::-1], dtype=np.uint8))
        return found


def read(shown: Explanation | Verdict) -> Read:
    return Read(shown._repr_html_())


class TestAnExplanation:
    def test_the_picture_is_its_overlay(self) -> None:
        large = explanation(image=photo(400, 360))
        (drawn,) = read(large).pictures
        assert (drawn == blend(large.image, large.cam)).all()

    def test_the_table(self) -> None:
        assert read(explanation(probability=0.25, cls=1, label="cat")).rows == {
            "class": "1 (cat)",
            "probability": "0.25",
            "predicted": "3 (rocket)",
            "layer": "stages.3",
            "grid": "12×12",
            "method": "grad-cam, hooks, cpu",
            "evidence": "3.5",
        }
        assert "predicted" not in read(explanation()).rows

    def test_of_a_callable_and_without_evidence(self) -> None:
        rows = read(explanation(cls=None, label=None, probability=None, predicted=None, evidence=0.0)).rows
        assert rows["class"] == "a callable's score" and "probability" not in rows
        assert rows["evidence"] == "none: the map is zero"

    def test_a_large_picture_is_made_smaller(self) -> None:
        (drawn,) = read(explanation(image=photo(1500, 3000))).pictures
        assert drawn.shape == (256, 512, 3)


class TestAVerdict:
    def test_the_picture_has_the_region_outlined(self) -> None:
        large = explanation(image=photo(384, 384))
        mask = np.kron(box_mask(), np.ones((4, 4), np.float32))
        (drawn,) = read(verdict(explanation=large, mask=mask)).pictures
        assert (drawn == outline(blend(large.image, large.cam), mask)).all()

    def test_the_numbers(self) -> None:
        rows = read(verdict(facts=(("note", "of mine"),))).rows
        assert list(rows.items())[:6] == [
            ("calibrated energy", "-0.26"),
            ("at least", "0.15"),
            ("chance", "0.00"),
            ("region", "the box (36, 6, 76, 46)"),
            ("note", "of mine"),
            ("class", "3 (rocket)"),
        ]
        many = read(verdict(at_most=True, interval=(0.1, 0.3), confidence=0.95, values=(0.1, 0.2)))
        assert many.rows["at most"] == "0.15" and many.rows["interval"] == "0.10 to 0.30, of 2 images"

    @pytest.mark.parametrize("outcome", ["passed", "failed", "inconclusive"])
    def test_outcome_and_message(self, outcome: Any) -> None:
        shown = verdict(outcome=outcome)
        assert f"{outcome} {shown.assertion}{shown.message}" in read(shown).text

    def test_two_that_were_compared_are_shown_with_their_difference(self) -> None:
        before, after = explanation(), explanation(raw=np.ascontiguousarray(corner_raw()[::-1]))
        sights = (Sight(before, title="baseline"), Sight(after, title="current"))
        shown = replace(verdict(), sights=sights, compared=True, baseline="test_a.py::test_it@x")
        seen = read(shown)
        (drawn,) = seen.pictures
        zero = np.zeros((96, 96), np.float32)
        wanted = picture_beside(before.cam, after.cam, after.image, ("baseline", "current", "difference"), mask=zero)
        assert (drawn == wanted).all()
        assert seen.attributes[1]["alt"] == "what the model saw | baseline | current | difference"
        assert seen.rows["baseline"] == "test_a.py::test_it@x"

    def test_two_maps_of_one_image_are_both_shown(self) -> None:
        sights = (Sight(explanation(), title="as it is"), Sight(explanation(), title="flipped"))
        seen = read(replace(verdict(), sights=sights))
        assert [a["alt"] for a in seen.attributes if "alt" in a] == ["as it is", "flipped"]

    def test_one_of_predictions_alone_has_no_picture(self) -> None:
        seen = read(replace(verdict(), sights=(), facts=(("flipped", "3 of 20"),)))
        assert seen.pictures == [] and seen.rows["flipped"] == "3 of 20" and "layer" not in seen.rows


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(hostile: str) -> None:
    """The same tags and attributes as with harmless text, and the text where it belongs."""
    spelt = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in hostile)

    def both(text: str) -> tuple[Read, Read]:
        seen = explanation(label=text, layer=text, method=text, image=photo(16, 16))
        shown = verdict(explanation=seen, mask=box_mask(16, (2, 2, 9, 9)), message=text, facts=((text, text),))
        return read(seen), read(replace(shown, baseline=text, assertion=text))

    for seen, harmless in zip(both(hostile), both("harmless"), strict=True):
        assert seen.tags == harmless.tags
        assert [[*a] for a in seen.attributes] == [[*a] for a in harmless.attributes]
        assert seen.rows["layer"] == spelt and seen.rows["class"] == f"3 ({spelt})"
        assert "mathjax_ignore" in (seen.attributes[0]["class"] or "").split()


def test_a_verdict_is_drawn_without_numpy_until_somebody_looks() -> None:
    code = (
        "import sys, pytest_gradcam.verdicts as v\n"
        "print('numpy' in sys.modules, hasattr(v.Verdict, '_repr_html_'), 'numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
