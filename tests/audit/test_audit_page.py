"""The page of an audit and its `report.json`: what stands on them, and what may never."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_gradcam.audit.judging import Columns, Rule, Texts
from pytest_gradcam.audit.plots import against, distributions
from pytest_gradcam.audit.results import columns_of
from pytest_gradcam.audit.worst import Seen, cam_of, facts_of, overlays, worst_rows
from pytest_gradcam.report.audit_page import page as pages
from pytest_gradcam.report.audit_page.page import audit_page_of, write_audit_page
from pytest_gradcam.report.audit_page.plots import boxes_of, plot_of
from tests.audit.made import METRIC, audited, mixed, reported, row, told
from tests.report.hostile import HOSTILE, LONG

OUTCOMES = ("failed", "inconclusive", "passed")


class Page(HTMLParser):
    """Tables of a page as rows of texts, and the elements it has."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._within: list[str] = []
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("td", "th", "script", "style"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within and self._within[-1] in ("script", "style"):
            return
        self.text += data
        if self._within:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    def row(self, name: str) -> list[str]:
        """The first row with that name."""
        return next(row for row in self.rows if row and row[0] == name)

    def having(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [
            attrs
            for each, attrs in self.elements
            if each == tag and (not name or name in (attrs.get("class") or "").split())
        ]


def page_of(tmp_path: Path, rows: list[Any], **how: Any) -> Page:
    reported(audited(tmp_path / "audit", rows), **how)
    return Page((tmp_path / "audit" / "index.html").read_bytes())


def some(count: int = 40) -> list[Any]:
    """Two classes, one of which fails; a slice; an image without evidence."""
    made = [
        row(i, -0.2 if i % 2 else 0.6 + i / 1000, cls=i % 2, about={"site": "north" if i % 3 else "south"})
        for i in range(count)
    ]
    return [*made, row(count, None, status="no evidence", reason="nothing speaks for it")]


class TestWriting:
    def test_writes_page_and_json(self, tmp_path: Path) -> None:
        report = reported(audited(tmp_path / "audit", some()), slices=["site"])
        told_ = json.loads((tmp_path / "audit" / "report.json").read_text())
        assert told_["schema"] == 1 and told_["made_by"] == "pytest-gradcam"
        assert told_["outcome"] == report.outcome == "failed" and told_["message"] == report.message
        assert told_["overall"]["images"] == 41 and told_["overall"]["passed"] == 20
        assert [each["name"] for each in told_["slices"]] == ["site = north", "site = south"]
        assert told_["worst"][0]["value"] == -0.2 and told_["unmeasured"][0]["status"] == "no evidence"
        assert told_["rule"] == {
            "metric": METRIC,
            "title": "calibrated energy",
            "at_most": False,
            "threshold": 0.15,
            "pass_rate": 0.9,
            "confidence": 0.95,
            "bad": "failed",
        }

    def test_json_holds_no_pictures(self, tmp_path: Path) -> None:
        reported(audited(tmp_path / "audit", some()))
        text = (tmp_path / "audit" / "report.json").read_text()
        assert "data:image" not in text and '"points"' not in text

    def test_an_infinite_bound_is_null(self, tmp_path: Path) -> None:
        """Of one image, nothing is known of the mean."""
        reported(audited(tmp_path / "audit", [row(0)]))
        told_ = json.loads((tmp_path / "audit" / "report.json").read_text())
        assert told_["overall"]["mean_interval"] == [None, None]

    def test_writes_over_its_own(self, tmp_path: Path) -> None:
        audited(tmp_path / "audit", some())
        reported(tmp_path / "audit")
        first = (tmp_path / "audit" / "index.html").read_bytes()
        reported(tmp_path / "audit", rule=Rule(threshold=-1.0, pass_rate=0.5))
        assert (tmp_path / "audit" / "index.html").read_bytes() != first

    @pytest.mark.parametrize("name", ["index.html", "report.json"])
    def test_writes_over_nobody_elses(self, tmp_path: Path, name: str) -> None:
        report = reported(audited(tmp_path / "audit", some()))
        made = told(report)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / name).write_text("mine")
        with pytest.raises(FileExistsError, match="was not written by pytest-gradcam"):
            write_audit_page(tmp_path / "other", made)
        assert [(each.name, each.read_text()) for each in (tmp_path / "other").iterdir()] == [(name, "mine")]

    def test_the_page_needs_no_torch(self, tmp_path: Path) -> None:
        made = told(reported(audited(tmp_path / "audit", some())))
        (tmp_path / "told.json").write_text(json.dumps(made))
        code = (
            "import json, sys; from pathlib import Path; "
            "from pytest_gradcam.report.audit_page.page import write_audit_page; "
            "write_audit_page(Path('out'), json.loads(Path('told.json').read_text())); "
            "print({'torch', 'timm', 'numpy', 'PIL', 'cv2', 'scipy', 'sklearn', 'pyarrow'} & set(sys.modules))"
        )
        found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "set()"


class TestWhatStandsOnIt:
    def test_tables(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, some(), slices=["site"])
        bad = page.row("class-1 shown only")
        assert bad[1].startswith("0.0%") and bad[2] == "0 of 20" and bad[3].startswith("−0.20") and bad[5] == "failed"
        assert page.row("site = north")[5] == "failed"
        names = [row[0] for row in page.rows]
        assert names.index("class-1 shown only") < names.index("class-0 shown only")

    def test_header(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, some())
        assert "Audit failed: 48.8% of the images pass" in page.text
        assert "20 of 41 images pass" in page.text and "counts as failed" in page.text

    def test_red_only_where_something_failed(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, mixed(np.linspace(0.5, 0.9, 60)))
        assert not any("is-failed" in (attrs.get("class") or "") for _, attrs in page.elements)

    def test_says_where_only_the_correction_keeps_it_from_failing(self, tmp_path: Path) -> None:
        """170 of 200 fail alone, and not as one of 51 questions."""
        rows = [row(i, 0.5 if i % 20 < 17 else -0.1, cls=i % 50) for i in range(200)]
        page = page_of(tmp_path, rows, slices=["class"])
        words = "All images would fail, but not after the correction for 51 questions"
        assert "Audit inconclusive" in page.text and words in page.text
        assert words not in page_of(tmp_path / "alone", rows).text

    def test_classes_of_one_label_are_told_apart(self, tmp_path: Path) -> None:
        """As the two cranes of ImageNet, of which one fails."""
        rows = [row(i, -0.2 if i % 2 else 0.6, cls=517 if i % 2 else 134, label="crane") for i in range(40)]
        page = page_of(tmp_path, rows, slices=["class"])
        assert [page.row(f"crane (class {cls})")[2] for cls in (134, 517)] == ["20 of 20", "0 of 20"]

    def test_slices_with_signs_in_their_names(self, tmp_path: Path) -> None:
        """Both slices are called "a = b = c": each has its own images, and its own worst ones."""
        rows = [row(i, -0.2 if i % 2 else -0.4, about={"a = b": "c"} if i % 2 else {"a": "b = c"}) for i in range(40)]
        told_ = told(reported(audited(tmp_path / "audit", rows), slices=["a = b", "a", "a"]))
        of = {(each["name"], card["value"]) for each in told_["worst_of"] for card in each["cards"]}
        assert [each["images"] for each in told_["slices"]] == [20, 20]
        assert of == {("a = b = c", -0.2), ("a = b = c", -0.4), ("class-0", -0.4)}

    def test_worst_images(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).permutation(np.linspace(-0.4, 0.9, 50))
        told_ = told(reported(audited(tmp_path / "audit", mixed(values))))
        assert [each["value"] for each in told_["worst"]] == sorted(values)[:24]
        assert [each["image"] for each in told_["worst"]][:2] == [f"{i:04}.png" for i in np.argsort(values)[:2]]
        assert [each["passed"] for each in told_["worst"]] == [value >= 0.15 for value in sorted(values)[:24]]

    def test_worst_of_what_fails(self, tmp_path: Path) -> None:
        told_ = told(reported(audited(tmp_path / "audit", some()), slices=["site"]))
        assert {each["name"] for each in told_["worst_of"]} == {"class-1", "site = north", "site = south"}
        for each in told_["worst_of"]:
            assert len(each["cards"]) == 4 and all(card["value"] == -0.2 for card in each["cards"])

    def test_comparison(self, tmp_path: Path) -> None:
        audited(tmp_path / "before", mixed([0.6] * 20))
        page = page_of(tmp_path, mixed([0.2 - i / 100 for i in range(20)]), baseline=tmp_path / "before")
        assert "It has become worse" in page.text and "Became worse the most" in page.text
        assert page.row("all images")[-1] == "worse"
        assert "Became better" not in page.text

    def test_what_could_not_be_measured(self, tmp_path: Path) -> None:
        rows = [
            *mixed([0.5] * 5),
            *(row(5 + i, None, status="unreadable", reason=f"reason {i % 5}") for i in range(20)),
        ]
        told_ = told(reported(audited(tmp_path / "audit", rows)))
        (bad,) = told_["unmeasured"]
        assert (bad["status"], bad["rows"]) == ("unreadable", 20)
        assert [each["reason"] for each in bad["examples"]] == ["reason 0", "reason 1", "reason 2"]

    def test_nothing_measured(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, [row(i, None, status="no evidence", raw=[0.0] * 16) for i in range(3)])
        assert "Nothing was measured" in page.text and not page.having("figure", "plot")

    def test_a_thousand_classes(self, tmp_path: Path) -> None:
        rows = [row(i, 0.1 if i % 1100 < 500 else 0.5, cls=i % 1100) for i in range(2200)]
        page = page_of(tmp_path, rows)
        assert sum(row[0].startswith("class-") and row[-1].split()[0] in OUTCOMES for row in page.rows) == 1000
        assert "The 1000 worst of 1100 are shown" in page.text and "The 30 worst of 1100 classes" in page.text
        assert (tmp_path / "audit" / "index.html").stat().st_size < 5_000_000


class TestPictures:
    def test_overlay_of_what_is_seen(self, tmp_path: Path) -> None:
        """The image is asked for by its index and place, and drawn on; without it there is grey."""
        asked = []

        def look(index: int, place: int) -> Seen:
            asked.append((index, place))
            return Seen(np.full((32, 32, 3), (0, 255, 0), np.uint8), None)

        path = audited(tmp_path / "audit", mixed([0.9, 0.1])) / "results.parquet"
        facts = facts_of(path, [1])
        with_image, without = overlays(facts, [1], look), overlays(facts, [1], None)
        assert asked == [(1, 0)] and with_image[1] != without[1] and without[1].startswith("data:image/")

    def test_map_of_a_row(self) -> None:
        raw = [-1.0, 0, 1, 4, 0, 2]
        cam = cam_of({"raw": raw, "grid_height": 2, "grid_width": 3})
        assert cam is not None and cam.tolist() == [[0, 0, 0.25], [1, 0, 0.5]]
        assert cam_of({"raw": [-1.0, 0.0], "grid_height": 1, "grid_width": 2}) is None
        assert cam_of({"raw": None}) is None

    def test_only_few_images_are_read_again(self, tmp_path: Path) -> None:
        asked = set()

        def look(index: int, place: int) -> None:
            asked.add(index)

        reported(audited(tmp_path / "audit", mixed(np.linspace(-0.5, 0.9, 400))), look=look)
        assert len(asked) <= 24 + 4

    def test_no_page_over_20_mb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = told(reported(audited(tmp_path / "audit", some())))
        monkeypatch.setattr(pages, "MOST_BYTES", 10_000)
        page = Page(audit_page_of(made))
        assert "The pictures were left out" in page.text and not page.having("img")


class TestNumbersOfPlots:
    def columns(self, values: np.ndarray[Any, Any], cls: list[str]) -> Columns:
        n = len(values)
        return Columns(
            np.arange(n),
            np.full(n, "measured"),
            np.asarray(values, float),
            np.linspace(0.1, 0.3, n),
            np.full(n, 0.8),
            Texts.of(cls),
        )

    def test_quantiles_worst_first(self) -> None:
        values = np.concatenate([np.linspace(0, 1, 101), np.linspace(-1, 0, 101)])
        found, count = distributions(self.columns(values, ["a"] * 101 + ["b"] * 101), Rule())
        assert count == 2 and [each.cls for each in found] == ["b", "a"]
        np.testing.assert_allclose(found[1].quantiles, [0.05, 0.25, 0.5, 0.75, 0.95])

    def test_no_class_at_all(self) -> None:
        assert distributions(self.columns(np.array([0.5]), [""]), Rule()) == ((), 0)

    def test_against(self, tmp_path: Path) -> None:
        path = audited(tmp_path / "a", [row(i, i / 100, probability=1 - i / 100) for i in range(100)])
        columns = columns_of(path / "results.parquet", METRIC)
        found = against(path / "results.parquet", columns, Rule())["confidence"]
        assert found.correlation == pytest.approx(-1) and found.rows == len(found.points) == 100
        assert sum(each.rows for each in found.bins) == 100 and sum(each.passed for each in found.bins) == 85
        assert found.points[99] == pytest.approx((0.01, 0.99, True))

    def test_points_are_a_sample_spread_evenly(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_gradcam.audit.plots.MOST_POINTS", 10)
        path = audited(tmp_path / "a", [row(i, i / 100) for i in range(95)])
        columns = columns_of(path / "results.parquet", METRIC)
        found = against(path / "results.parquet", columns, Rule())["size"]
        assert [round(value * 100) for _, value, _ in found.points] == [0, 9, 19, 28, 38, 47, 57, 66, 76, 85]
        assert found.rows == 95

    def test_worst_rows_of_a_metric_that_is_low_where_it_is_good(self) -> None:
        columns = self.columns(np.array([0.1, 0.9, 0.5, np.nan]), ["a"] * 4)
        assert worst_rows(columns, Rule("mass_outside", 0.5), 2) == [1, 2]
        assert worst_rows(columns, Rule(), 9) == [0, 2, 1]

    def test_where_things_stand(self) -> None:
        points = [[0.0, 0.0, False], [1.0, 1.0, True], [0.5, 0.5, True]]
        plot = plot_of({"points": points, "bins": []}, 0.5)
        assert plot is not None and plot.line == "" and plot.beyond == 0
        (low,), (high, middle) = plot.failed, plot.passed
        assert low[0] < middle[0] < high[0] and low[1] > middle[1] > high[1] and middle[1] == plot.threshold
        assert [tick.text for tick in plot.across] == ["0", "0.25", "0.5", "0.75", "1"]
        boxes, ends = boxes_of([{"quantiles": [0, 0.25, 0.5, 0.75, 1]}], 0.5)
        assert boxes[0].at[2] == boxes[0].threshold == 50 and ends == ("-0.04", "1.04")

    def test_values_that_are_all_one(self) -> None:
        plot = plot_of({"points": [[0.5, 0.5, True]] * 3, "bins": []}, 0.5)
        assert plot is not None and plot.passed[0][0] == pytest.approx((60 + 628) / 2)


class TestHostile:
    def rows(self) -> list[Any]:
        texts = [text.encode("utf-8", "backslashreplace").decode() for text in HOSTILE if text and text != LONG]
        made = []
        for i, text in enumerate(texts):
            made.append(row(2 * i, 0.1, cls=i, label=text, image=text, about={"site": text}, region=text))
            made.append(row(2 * i + 1, None, status="not explained", reason=text, image=f"{i}-{text}"))
        return made

    def test_nothing_of_it_is_markup(self, tmp_path: Path) -> None:
        audited(tmp_path / "before", [replace(each, values={METRIC: 0.4}) for each in self.rows()])
        page = page_of(tmp_path, self.rows(), slices=["site"], baseline=tmp_path / "before")
        assert not any("pwned" in (attrs.get("class") or "") for _, attrs in page.elements)
        assert not any(name.startswith("on") or name == "style" for _, attrs in page.elements for name in attrs)
        assert len(page.having("script")) == 2 and {attrs["href"] for attrs in page.having("link")} == {"data:,"}
        assert not page.having("iframe") and not page.having("base") and not page.having("form")
        assert all((attrs["href"] or "").startswith("#") for attrs in page.having("a"))
        assert all((attrs["src"] or "").startswith("data:image/") for attrs in page.having("img"))

    def test_nothing_steers(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, [row(0, 0.1, label="a\u202eb\x1b[31m", image="x\x00y")])
        assert "\u202e" not in page.text and "\x1b" not in page.text and "\x00" not in page.text
        assert "\\u202e" in page.text

    def test_what_is_long_is_cut(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, [row(0, 0.1, label="x" * 5000, image="y" * 5000)])
        assert "x" * 121 not in page.text and "y" * 121 not in page.text
