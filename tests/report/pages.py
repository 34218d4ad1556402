"""Records as the plugin hands them to the page, made by hand; and a reader of pages that knows nothing of how."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from pytest_gradcam.report.page.pictures import pictures_of
from pytest_gradcam.report.records import to_record
from pytest_gradcam.verdicts import Sight, Verdict
from tests.report.synthetic import corner_raw, explanation, verdict


def record(
    nodeid: str = "tests/test_cats.py::test_reads[cup]", *, made: Verdict | None = None, **changes: Any
) -> dict[str, Any]:
    """The record of the failing verdict of ux.md, with some of its values changed."""
    verdict_made = verdict() if made is None else made
    values = to_record(verdict_made, nodeid)
    values |= {
        "folder": "gradcam-report",
        "overlay": None,
        "pictures": pictures_of(verdict_made),
        "file": nodeid.partition("::")[0],
        "line": 12,
        "markers": ["gradcam"],
        "model": "ResNet",
        "baseline": None,
        "received": None,
        **changes,
    }
    return {"failed": not values["passed"], **values}


def passed(nodeid: str, **changes: Any) -> dict[str, Any]:
    return record(
        nodeid, made=verdict(outcome="passed", value=0.4, values=(0.4,), message="the box explains it"), **changes
    )


def comparing(nodeid: str = "tests/test_cats.py::test_keeps[cup]") -> Verdict:
    """A check against a baseline that failed: the map has moved from the top to the bottom."""
    before = Sight(explanation(raw=corner_raw()[::-1].copy()), title="baseline")
    return verdict(
        assertion="check",
        metric="pearson",
        value=0.31,
        values=(0.31,),
        threshold=0.999,
        sights=(before, replace(verdict().sights[0], title="current")),
        compared=True,
        baseline=nodeid,
        message="the map of class 3 (rocket) changed: Pearson 0.31, needs 0.999",
        facts=(("moved", "8.2 cells, from the top left to the bottom left"),),
    )


def waiting(nodeid: str = "tests/test_cats.py::test_keeps[cup]", **changes: Any) -> dict[str, Any]:
    """The record of `comparing`, whose new map waits."""
    given = {"baseline": nodeid, "received": "gradcam-report/received/x.safetensors", **changes}
    return record(nodeid, made=comparing(nodeid), **given)


class Read(HTMLParser):
    """A page as its elements: names, attributes, and the text of each kind of element."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag not in ("meta", "link", "img", "input", "wbr", "rect", "path", "circle"):
            self._open.append((tag, given.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, kind = self._open[-1]
            self.texts.append((f"{tag}.{kind.split(' ')[0]}" if kind else tag, data))

    def cards(self) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == "details"]

    def of(self, name: str) -> list[str]:
        """The texts of the elements of a name, such as `h3.message`."""
        return [text for kind, text in self.texts if kind == name]

    def told(self) -> dict[str, str]:
        """What stands in lists of names and values, by name."""
        found: dict[str, str] = {}
        name = ""
        for kind, text in self.texts:
            if kind == "dt":
                name = text
            elif kind == "dd":
                found[name] = text
        return found
