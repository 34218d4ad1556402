"""The page of an audit in a real browser, from the disk: sorted, found in, read by machines, and never harmful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium, as in the extra `test`")

from selenium.webdriver.common.keys import Keys

from pytest_gradcam.audit.worst import Seen
from tests.audit.made import METRIC, audited, blobs, reported, row
from tests.browser.axe import AxeMissingError, source as axe_source
from tests.browser.chrome import BROWSER, DRIVER, MISSING, Chrome, chrome
from tests.report.hostile import HOSTILE, LONG

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason=MISSING)

CORNER = 45


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chrome(tmp_path_factory.mktemp("downloads")) as made:
        yield made


@pytest.fixture(scope="module")
def axe() -> str:
    try:
        return axe_source()
    except AxeMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with something of everything: clusters, a comparison, slices, what was not measured, 40 more classes."""
    rng = np.random.default_rng(0)
    maps = np.vstack([blobs(rng, 255, None, (0.1, 0.25), 0.1), blobs(rng, CORNER, (0.06, 0.94), (0.08, 0.1), 0.1)])
    now = [
        row(
            i,
            -0.1 if i >= 255 else 0.6,
            grid=(8, 8),
            raw=each.tolist(),
            label="cup",
            about={"site": "north" if i % 3 else "south"},
        )
        for i, each in enumerate(maps)
    ]
    now += [row(300 + i, 0.1 + (i % 40) / 100, cls=1 + i % 40) for i in range(160)]
    now += [row(460 + i, None, status="no evidence", reason="nothing speaks for it", label="cup") for i in range(3)]
    before = [
        replace(each, values={METRIC: 0.55 + each.index / 1000}) if each.index < 300 else each for each in now[5:]
    ]
    folder = tmp_path_factory.mktemp("audits")
    audited(folder / "before", before)

    def look(index: int, place: int) -> Seen:
        mask = np.zeros((32, 32), np.float32)
        mask[8:20, 8:20] = 1
        return Seen(np.full((32, 32, 3), (90, 120, 90), np.uint8), mask)

    reported(audited(folder / "now", now), folder / "before", ["site"], look=look)
    return folder / "now" / "index.html"


@pytest.fixture
def opened(window: Chrome, page: Path) -> Chrome:
    window.size(1200)
    window.scheme("light")
    window.open(page)
    return window


def column(window: Chrome, section: str, place: int) -> list[str]:
    """The texts of a column, of the rows that are shown."""
    found: list[str] = window.run(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].filter((r) => !r.hidden)"
        ".map((r) => r.cells[arguments[1]].textContent.trim())",
        f"#{section}",
        place,
    )
    return found


class TestTables:
    def test_worst_first_and_folded(self, opened: Chrome) -> None:
        shown = column(opened, "classes", 5)
        assert len(shown) == 25 and shown[0] != "passed"
        opened.run("document.querySelector('#classes .more button').click()")
        assert len(column(opened, "classes", 0)) == 41

    def test_sorted_by_a_number_and_back(self, opened: Chrome) -> None:
        opened.run("document.querySelector('#classes .more button').click()")
        for wanted in ("ascending", "descending"):
            opened.run("document.querySelectorAll('#classes thead button')[3].click()")
            means = [float(text.split()[0].replace("−", "-")) for text in column(opened, "classes", 3)]
            assert means == sorted(means, reverse=wanted == "descending")
            assert opened.run("return document.querySelectorAll('#classes thead th')[3].ariaSort") == wanted
        assert opened.run("return document.getElementById('status').textContent").endswith("descending")

    def test_sorted_by_name_as_a_person_counts(self, opened: Chrome) -> None:
        opened.run("document.querySelector('#classes thead button').click()")
        assert [name.split()[0] for name in column(opened, "classes", 0)][:3] == ["class-1", "class-2", "class-3"]

    def test_found_in(self, opened: Chrome) -> None:
        opened.one("#classes .more input").send_keys("class-39")
        assert [name.split()[0] for name in column(opened, "classes", 0)] == ["class-39"]
        opened.one("#classes .more input").send_keys(Keys.BACKSPACE * 8)
        assert len(column(opened, "classes", 0)) == 25

    def test_all_is_there_without_javascript(self, window: Chrome, page: Path) -> None:
        window.scripting(False)
        try:
            window.open(page)
            window.scripting(True)  # to look at what was not scripted
            assert window.run("return document.documentElement.className") == ""
            assert len(column(window, "classes", 0)) == 41
            assert window.run("return document.querySelectorAll('thead button').length") == 0
            assert not window.run("return document.getElementById('theme').checkVisibility()")
        finally:
            window.scripting(True)


class TestLooks:
    @pytest.mark.parametrize("width", [1200, 360])
    def test_nothing_runs_over_the_edge(self, opened: Chrome, width: int) -> None:
        opened.size(width)
        opened.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert opened.run("return document.documentElement.scrollWidth") <= width

    def test_cluster_and_its_examples(self, opened: Chrome) -> None:
        first = opened.one(".ways .cluster.is-failed")
        assert "45 maps, 15.0%" in first.text and first.text.startswith("0.0%") and "bottom left" in first.text
        assert opened.run("return arguments[0].querySelectorAll('img').length", first) == 5
        opened.until(
            "return [...document.querySelectorAll('.ways img')].every((i) => i.naturalWidth > 50 || !i.complete)"
        )

    def test_theme_is_kept(self, opened: Chrome, page: Path) -> None:
        opened.choose("#theme", "dark")
        opened.open(page)
        assert opened.run("return document.documentElement.dataset.theme") == "dark"
        opened.choose("#theme", "system")
        assert opened.run("return document.documentElement.dataset.theme ?? ''") == ""

    def test_a_link_leads_to_a_section_below_the_bar(self, opened: Chrome) -> None:
        opened.run("document.querySelector('a[href=\"#clusters\"]').click()")
        opened.until("return scrollY > 500")
        top = opened.run("return document.getElementById('clusters-head').getBoundingClientRect().top")
        assert opened.run("return document.querySelector('.tools').getBoundingClientRect().bottom") <= top < 300

    def test_no_errors_and_no_requests(self, opened: Chrome, page: Path) -> None:
        console, requests = opened.logs()
        assert console == [] and {each.partition("#")[0] for each in requests} <= {page.as_uri(), "about:blank"}


class TestAccessibility:
    @pytest.mark.parametrize("width", [1200, 360])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing(self, opened: Chrome, axe: str, width: int, scheme: str) -> None:
        opened.size(width)
        opened.scheme(scheme)
        opened.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        opened.until("return document.getAnimations().length === 0")  # colours on their way to others have no contrast
        opened.run(axe)
        found: Any = opened.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations.map("
            "(v) => [v.id, v.impact, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + ' ' + n.failureSummary)])))"
        )
        assert found == []

    @pytest.mark.parametrize("width", [1200, 360])
    def test_targets_are_large_enough(self, opened: Chrome, width: int) -> None:
        """WCAG 2.5.8: 24 by 24 CSS pixels."""
        opened.size(width)
        small = opened.run(
            "return [...document.querySelectorAll('a, button, input, select, summary')].filter((e) => "
            "e.checkVisibility() && e.className !== 'skip').map((e) => [e.textContent, e.getBoundingClientRect().width,"
            " e.getBoundingClientRect().height]).filter(([, w, h]) => w < 24 || h < 24)"
        )
        assert small == []


def test_hostile_texts_do_nothing(window: Chrome, tmp_path: Path) -> None:
    texts = [text.encode("utf-8", "backslashreplace").decode() for text in HOSTILE if text and text != LONG]
    rows = [
        row(i, 0.1, cls=i, label=text, image=f"{i}{text}", about={"site": text}, region=text)
        for i, text in enumerate(texts)
    ]
    rows += [row(1000 + i, None, status="not explained", reason=text) for i, text in enumerate(texts)]
    audited(tmp_path / "before", [replace(each, values={METRIC: 0.9}) for each in rows])
    reported(audited(tmp_path / "now", rows), tmp_path / "before", ["site"])
    path = tmp_path / "now" / "index.html"
    window.open(path)
    window.run(
        "document.querySelectorAll('thead button, .more button').forEach((each) => each.click());"
        "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
    )
    assert window.run("return window.pwned ?? 0") == 0 and not window.all(".pwned")
    console, requests = window.logs()
    assert console == [] and {each.partition("#")[0] for each in requests} <= {path.as_uri(), "about:blank"}
