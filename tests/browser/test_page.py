"""The page in a real browser, from the disk: what a person does with mouse and keys, and what must never happen."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium, as in the extra `test`")

from selenium.webdriver.common.keys import Keys

from pytest_gradcam import cli
from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import FOLDER, CheckName
from pytest_gradcam.report.page.page import write_page
from tests.baselines.received_files import baseline, bytes_of, project, spot
from tests.browser.axe import AxeMissingError, source as axe_source
from tests.browser.chrome import BROWSER, DRIVER, MISSING, Chrome, chrome
from tests.plugin.life import CONFTEST
from tests.report.hostile import HOSTILE, LONG
from tests.report.pages import passed, record, waiting

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason=MISSING)

TABBY = "tests/test_cats.py::test_reads[tabby]"
EARS = "tests/test_cats.py::TestCat::test_reads[a.b]@ears"
DOGS = "tests/test_dogs.py::test_reads"
WAITING = {
    TABBY: CheckName("test_cats.py", "test_reads[tabby]"),
    EARS: CheckName("test_cats.py", "TestCat.test_reads[a.b]", "ears"),
    DOGS: CheckName("test_dogs.py", "test_reads"),
}


CHECK = """
import pytest

@pytest.mark.parametrize("name", ["a b"])
def test_reads(gradcam, model, image, name):
    gradcam.check(model, image, 0)
"""


def records() -> list[dict[str, Any]]:
    """A run with something of everything."""
    return [
        passed("tests/test_a.py::test_fine[one]", value=0.4, seconds=0.5, model="ViT", markers=["slow"]),
        passed("tests/test_a.py::test_fine[two]", value=0.9, seconds=0.1),
        record("tests/test_a.py::test_reads[cup]", value=-0.26),
        record("tests/test_a.py::test_reads[cat]", value=0.11, label="tabby", model="ViT"),
        record("tests/test_a.py::test_known", value=-0.1, failed=False),
        record("tests/test_a.py::test_suite", outcome="inconclusive", value=0.2, interval=[0.1, 0.3], confidence=0.95),
        waiting(TABBY),
        waiting(EARS.partition("@")[0], baseline=EARS),
        waiting(DOGS),
    ]


ALL = ["test_reads[a.b]@ears", "test_reads[tabby]", "test_reads", "test_reads[cup]", "test_reads[cat]"]
ALL += ["test_suite", "test_known", "test_fine[one]", "test_fine[two]"]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def window(downloads: Path) -> Iterator[Chrome]:
    with chrome(downloads) as made:
        yield made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    about = {"python": "3.11", "platform": "Linux", "started": "2026-11-24", "seconds": 31.2}
    path = write_page(tmp_path_factory.mktemp("report"), records(), title="cats and cups", about=about)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def axe() -> str:
    try:
        return axe_source()
    except AxeMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def opened(window: Chrome, page: Path) -> Iterator[Chrome]:
    """The page, just opened; at the end it must have complained of nothing, and asked for nothing but itself."""
    window.size(1280)
    window.scheme("light")
    window.open(page)
    window.run("localStorage.clear(); sessionStorage.clear()")
    window.open(page)
    window.until("return performance.getEntriesByName('gradcam-ready').length")
    yield window
    console, requests = window.logs()
    assert console == []
    assert {address.partition("#")[0] for address in requests if not address.startswith("blob:")} <= {
        page.as_uri(),
        "about:blank",
    }


def count(opened: Chrome, name: str) -> Any:
    return opened.one(f'.count[data-count="{name}"]')


def names_pressed(opened: Chrome) -> list[str]:
    return [each.get_attribute("data-count") or "" for each in opened.all('.count[aria-pressed="true"]')]


def card(opened: Chrome, name: str) -> Any:
    return opened.run(
        "return [...document.querySelectorAll('.card')]"
        ".find((card) => card.querySelector('.name').textContent === arguments[0])",
        name,
    )


def focused(opened: Chrome) -> str:
    return str(
        opened.run(
            "const e = document.activeElement;return e.matches('summary') ? e.querySelector('.name').textContent : e.id"
        )
    )


def pixels(opened: Chrome, selector: str) -> list[int]:
    """The colours of a canvas, brought to 8×8, RGB."""
    found: list[int] = opened.run(
        "const c = document.createElement('canvas'); c.width = c.height = 8; const x = c.getContext('2d');"
        "x.imageSmoothingQuality = 'high';"
        "x.drawImage(document.querySelector(arguments[0]), 0, 0, 8, 8);"
        "return [...x.getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 < 3)",
        selector,
    )
    return found


def pixel(opened: Chrome, selector: str, across: float, down: float) -> list[int]:
    """The colour of a canvas at a place, as shares of its width and height, RGB."""
    found: list[int] = opened.run(
        "const c = document.querySelector(arguments[0]), x = Math.floor(arguments[1] * c.width);"
        "return [...c.getContext('2d').getImageData(x, Math.floor(arguments[2] * c.height), 1, 1).data].slice(0, 3)",
        selector,
        across,
        down,
    )
    return found


class TestFinding:
    def test_all_are_there_worst_first(self, opened: Chrome) -> None:
        assert opened.shown == ALL
        assert opened.one("#status").text == "9 shown"
        counts = {each.get_attribute("data-count"): " ".join(each.text.split()) for each in opened.all(".count")}
        assert counts == {
            "failed": "5 failed",
            "inconclusive": "1 inconclusive",
            "expected": "1 expected failure",
            "passed": "2 passed",
            "waiting": "3 baselines waiting",
        }

    def test_search(self, opened: Chrome) -> None:
        """In names, messages and values, by all words, whatever their case."""
        opened.one("#q").send_keys("FINE two")
        assert opened.shown == ["test_fine[two]"]
        assert opened.one("#status").text == "1 of 9 shown"
        opened.one("#q").clear()
        opened.one("#q").send_keys("tabby")
        assert opened.shown == ["test_reads[tabby]", "test_reads[cat]"]

    def test_nothing_found(self, opened: Chrome) -> None:
        opened.one("#q").send_keys("zebra")
        assert opened.shown == [] and opened.one("#nothing").is_displayed()
        opened.one("#clear").click()
        assert opened.shown == ALL and not opened.one("#nothing").is_displayed()

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["failed"], ALL[:5]),
            (["inconclusive"], ["test_suite"]),
            (["expected"], ["test_known"]),
            (["passed"], ["test_fine[one]", "test_fine[two]"]),
            (["waiting"], ALL[:3]),
            (["inconclusive", "expected"], ["test_suite", "test_known"]),
            (["passed", "waiting"], []),
        ],
    )
    def test_filter_by_outcome(self, opened: Chrome, names: list[str], expected: list[str]) -> None:
        for name in names:
            count(opened, name).click()
        assert opened.shown == expected
        assert names_pressed(opened) == names
        for name in names:
            count(opened, name).click()
        assert opened.shown == ALL

    def test_filter_by_assertion_model_and_marker(self, opened: Chrome) -> None:
        opened.choose("#assertion", "check")
        assert opened.shown == ALL[:3]
        opened.choose("#assertion", "all")
        opened.choose("#model", "ViT")
        assert opened.shown == ["test_reads[cat]", "test_fine[one]"]
        opened.choose("#marker", "slow")
        assert opened.shown == ["test_fine[one]"]

    def test_sort(self, opened: Chrome) -> None:
        opened.choose("#sort", "name")
        assert opened.shown == [
            *("test_fine[one]", "test_fine[two]", "test_known", "test_reads[cat]", "test_reads[cup]", "test_suite"),
            *("test_reads[a.b]@ears", "test_reads[tabby]", "test_reads"),
        ]
        opened.choose("#sort", "value")
        assert opened.shown[:4] == ["test_reads[cup]", "test_known", "test_reads[cat]", "test_suite"]
        opened.choose("#sort", "slowest first")
        assert opened.shown[0] == "test_fine[one]" and opened.shown[1] == "test_fine[two]"
        opened.choose("#sort", "worst first")
        assert opened.shown == ALL


def test_a_thousand_are_filtered_at_once(window: Chrome, tmp_path: Path) -> None:
    """A list whose items the browser numbers took 10 s; this takes 0.1, and 1 leaves room for a busy machine."""
    one = record("", pictures={})
    made = [{**one, "nodeid": f"tests/test_a.py::test_x[photo-{number:04}]"} for number in range(1000)]
    path = write_page(tmp_path, made, title="x", about={})
    assert path is not None
    window.open(path)
    window.until("return performance.getEntriesByName('gradcam-ready').length")
    took = window.run(
        "const start = performance.now(), q = document.querySelector('#q'); q.value = 'photo-0007';"
        "q.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - start"
    )
    assert window.shown == ["test_x[photo-0007]"]
    assert took < 1000


class TestTheAddress:
    def test_keeps_all_of_it(self, opened: Chrome, page: Path) -> None:
        """Opened again, and sent to somebody, it shows the same."""
        opened.one("#q").send_keys("reads")
        count(opened, "failed").click()
        opened.choose("#model", "ResNet")
        opened.choose("#sort", "name")
        opened.choose("#map", "cividis")
        card(opened, "test_reads[cup]").find_element("css selector", "summary").click()
        shown, hash = opened.shown, opened.hash
        assert len(shown) == 4
        opened.open(page, hash)
        assert opened.shown == shown and opened.hash == hash
        assert opened.one("#q").get_attribute("value") == "reads"
        assert names_pressed(opened) == ["failed"]
        assert [opened.one(f"#{name}").get_attribute("value") for name in ("model", "sort", "map")] == [
            "ResNet",
            "name",
            "cividis",
        ]
        assert [each.get_attribute("id") for each in opened.all(".card[open]")] == [hash.rpartition("card=")[2]]
        opened.driver.refresh()
        assert opened.shown == shown

    def test_says_nothing_where_nothing_is_asked(self, opened: Chrome) -> None:
        opened.one("#q").send_keys("x")
        assert opened.hash == "#q=x"
        opened.one("#q").send_keys(Keys.BACKSPACE)
        assert opened.hash == ""

    @pytest.mark.parametrize(
        "hash",
        [
            "#outcome=evil,failed&sort=constructor&map=__proto__&model=zebra&card=x&q=",
            "#%E0%A4%A",
            "#&&=&",
            "#verdicts",
        ],
    )
    def test_that_makes_no_sense_is_passed_over(self, opened: Chrome, page: Path, hash: str) -> None:
        opened.open(page, hash)
        assert opened.shown == (ALL[:5] if "failed" in hash else ALL)

    def test_changed_by_hand_is_followed(self, opened: Chrome) -> None:
        opened.run("location.hash = '#q=fine'")
        opened.until("return document.querySelector('#status').textContent.startsWith('2 of')")
        assert opened.shown == ["test_fine[one]", "test_fine[two]"]


class TestPictures:
    def test_come_when_they_are_near(self, opened: Chrome) -> None:
        opened.until("return document.querySelectorAll('.thumb img').length > 3")
        assert opened.run(
            "return [...document.querySelectorAll('.thumb img')].every(i => i.complete && i.naturalWidth > 0)"
        )

    def test_of_an_open_card(self, opened: Chrome) -> None:
        """What the model saw, the map alone, and both; each tells what it shows."""
        opened.run("arguments[0].open = true", card(opened, "test_reads[cup]"))
        opened.until("return document.querySelectorAll('.card[open] .panels canvas[role=img]').length === 2")
        told = opened.run(
            "return [...document.querySelectorAll('.card[open] .panels :is(img, canvas[role=img])')]"
            ".map(e => e.alt ?? e.getAttribute('aria-label'))"
        )
        assert told[0] == "What the model saw" and told[1] == "The map alone, for rocket (class 3)"
        assert "53 pixels outside" in told[2]

    def test_colour_maps(self, opened: Chrome) -> None:
        """The corner that is hottest and the one that is coldest have the two ends of each map's colours."""
        opened.run("arguments[0].open = true", card(opened, "test_reads[cup]"))
        ends = {
            "jet": ((128, 0, 0), (0, 0, 128)),
            "viridis": ((253, 231, 37), (68, 1, 84)),
            "cividis": ((254, 232, 56), (0, 34, 78)),
        }
        for name, (hot, cold) in ends.items():
            opened.choose("#map", name)
            opened.until("return document.querySelector('.card[open] canvas[role=img]')")
            opened.until("return arguments[0] === 'jet' || document.querySelector('.thumb canvas')", name)
            for across, down, expected in ((0.01, 0.99, hot), (0.99, 0.01, cold)):
                found = pixel(opened, ".card[open] canvas[role=img]", across, down)
                assert all(abs(a - b) < 8 for a, b in zip(found, expected, strict=True)), (name, found)

    def test_overlay_drawn_here_is_the_one_that_was_stored(self, opened: Chrome) -> None:
        """Jet drawn from the grid in the browser, and drawn by OpenCV from the map."""
        opened.run("arguments[0].open = true", card(opened, "test_reads[cup]"))
        opened.until("return document.querySelectorAll('.card[open] .panels canvas[role=img]').length === 2")
        opened.until("return document.querySelector('.card[open] .thumb img')?.naturalWidth")
        drawn = pixels(opened, ".card[open] .panel:nth-of-type(3) canvas")
        stored = pixels(opened, ".card[open] .thumb img")
        assert sum(abs(a - b) for a, b in zip(drawn, stored, strict=True)) / len(drawn) < 8

    def test_slider_wipes(self, opened: Chrome) -> None:
        """With the keyboard, too; at its ends one of the two is all that is seen."""
        opened.run("arguments[0].open = true", card(opened, "test_reads[tabby]"))
        opened.until("return document.querySelector('.card[open] .wipe')")
        slider = opened.one(".card[open] .slider input")
        clip = "return getComputedStyle(document.querySelector('.card[open] .over')).clipPath"
        assert slider.get_attribute("aria-label") == "Wipe between baseline and current"
        assert opened.run(clip) == "inset(0px 0px 0px 50%)"
        slider.send_keys(Keys.ARROW_RIGHT)
        assert opened.run(clip) == "inset(0px 0px 0px 51%)"
        slider.send_keys(Keys.HOME)
        assert opened.run(clip) in ("inset(0px 0px 0px 0%)", "inset(0px)")
        assert slider.get_attribute("aria-valuetext") == "0% baseline"
        captions = [each.text for each in opened.all(".card[open] figcaption")]
        assert captions[:4] == ["what the model saw", "baseline", "current", "difference: gained lost"]


class TestKeys:
    def test_next_and_previous(self, opened: Chrome) -> None:
        opened.type("j")
        assert focused(opened) == ALL[0]
        opened.type("j", "j", "k")
        assert focused(opened) == ALL[1]
        opened.type("k", "k", "k")
        assert focused(opened) == ALL[0]

    def test_next_of_those_that_are_shown(self, opened: Chrome) -> None:
        count(opened, "passed").click()
        opened.type("j", "j", "j", "j")
        assert focused(opened) == "test_fine[two]"

    def test_enter_opens_and_closes(self, opened: Chrome) -> None:
        opened.type("j", Keys.ENTER)
        assert [each.get_attribute("id") for each in opened.all(".card[open]")] == [
            card(opened, ALL[0]).get_attribute("id")
        ]
        opened.type(Keys.ENTER)
        assert opened.all(".card[open]") == []

    def test_slash_searches_and_escape_leaves(self, opened: Chrome) -> None:
        opened.type("j", "/", "fine j", Keys.ESCAPE)
        assert opened.one("#q").get_attribute("value") == "fine j"
        assert focused(opened) == "verdicts"

    def test_approve_and_reject(self, opened: Chrome) -> None:
        opened.type("j", "a", "j", "r")
        assert opened.one("#tally").text == "1 approved, 1 rejected, 1 left"
        opened.type("r")
        assert opened.one("#tally").text == "1 approved, 0 rejected, 2 left"

    def test_approve_where_nothing_waits_says_so(self, opened: Chrome) -> None:
        opened.type("j", "j", "j", "j", "a")
        assert opened.one("#status").text == "Nothing waits to be approved here."
        assert not opened.one("#ledger").is_displayed()

    def test_help(self, opened: Chrome) -> None:
        opened.type("?")
        assert opened.one("#keys").is_displayed()
        opened.type("j")
        assert opened.one("#keys").is_displayed()
        opened.type(Keys.ESCAPE)
        assert not opened.one("#keys").is_displayed()

    def test_single_keys_can_be_turned_off(self, opened: Chrome, page: Path) -> None:
        """WCAG 2.1.4; it holds when the page is opened again."""
        opened.one("#help").click()
        opened.one("#single").click()
        opened.one("#close-keys").click()
        opened.type("j")
        assert focused(opened) not in ALL
        opened.open(page)
        opened.type("j")
        assert focused(opened) not in ALL

    def test_a_modifier_is_somebody_elses(self, opened: Chrome) -> None:
        opened.type("j")
        opened.press(Keys.CONTROL, "j")
        assert focused(opened) == ALL[0]

    def test_skip_link_leaves_the_address(self, opened: Chrome) -> None:
        opened.one("#q").send_keys("fine")
        opened.run("document.querySelector('.skip').focus()")
        opened.type(Keys.ENTER)
        assert focused(opened) == "verdicts" and opened.hash == "#q=fine"


class TestTheme:
    def background(self, opened: Chrome) -> str:
        return str(opened.run("return getComputedStyle(document.body).backgroundColor"))

    def test_follows_the_system_until_it_is_switched(self, opened: Chrome, page: Path) -> None:
        light = self.background(opened)
        opened.scheme("dark")
        dark = self.background(opened)
        assert dark != light
        opened.choose("#theme", "light")
        assert self.background(opened) == light
        opened.scheme("light")
        opened.choose("#theme", "dark")
        assert self.background(opened) == dark
        opened.open(page)
        assert self.background(opened) == dark
        opened.choose("#theme", "system")
        assert self.background(opened) == light


class TestApproving:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A project in which the three maps wait that the page shows."""
        made = project(tmp_path, "test_cats.py", "test_dogs.py")
        monkeypatch.chdir(tmp_path)
        for check in WAITING.values():
            made.keep(check)
            made.receive(check)
        return tmp_path

    def test_from_the_page_to_the_baselines(self, opened: Chrome, downloads: Path, root: Path) -> None:
        """Approve by mouse, reject by key, save, and let the real command carry it out."""
        opened.run("arguments[0].open = true", card(opened, "test_reads[a.b]@ears"))
        opened.one(".card[open] .approve").click()
        assert opened.one(".card[open] .approve").get_attribute("aria-pressed") == "true"
        opened.type("j", "r")
        path = saved(opened, downloads)
        assert json.loads(path.read_text()) == {"schema": 1, "approved": [EARS], "rejected": [TABBY]}
        assert cli.main(["approve", str(path)]) == 0
        new = {
            name
            for name, check in WAITING.items()
            if store.read_bytes(project_path(root, check)) == bytes_of(baseline(check, spot(5, 5)))
        }
        assert new == {EARS}
        left = [each.as_posix() for each in (root / "gradcam-report").rglob("*.safetensors")]
        assert len(left) == 1 and left[0].endswith(WAITING[DOGS].file)

    def test_decisions_outlive_a_reload_and_are_forgotten_when_told(self, opened: Chrome) -> None:
        opened.type("j", "a")
        opened.driver.refresh()
        assert opened.one("#tally").text == "1 approved, 0 rejected, 2 left"
        opened.one("#forget").click()
        assert not opened.one("#ledger").is_displayed()
        opened.driver.refresh()
        assert not opened.one("#ledger").is_displayed()

    def test_command_is_copied(self, opened: Chrome) -> None:
        opened.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        opened.run("arguments[0].open = true", card(opened, "test_reads[cup]"))
        opened.one(".card[open] .copy").click()
        opened.until("return document.querySelector('.card[open] .copy').textContent === 'Copied'")
        assert opened.run("return navigator.clipboard.readText()") == "pytest 'tests/test_a.py::test_reads[cup]'"


def saved(opened: Chrome, downloads: Path) -> Path:
    """The file that the page saves."""
    path = downloads / "approvals.json"
    path.unlink(missing_ok=True)
    opened.one("#save").click()
    for _ in range(200):
        if path.is_file():
            return path
        time.sleep(0.05)
    raise AssertionError("nothing was saved")


def project_path(root: Path, check: CheckName) -> Path:
    return root / "tests" / FOLDER / check.file


class TestWhereLittleIsAllowed:
    def test_without_javascript_all_can_be_read(self, window: Chrome, page: Path) -> None:
        """Every card, its pictures with their words, its numbers; no control that would do nothing."""
        window.scripting(False)
        try:
            window.open(page)
            assert len(window.all(".card")) == 9
            assert not any(each.is_displayed() for each in window.all("button, input, select"))
            assert "9 judged, 5 failed" in window.one("header").text
            summary = window.one(".card.is-passed > summary")
            summary.click()
            assert window.one(".card.is-passed[open] .groups").is_displayed()
            images = window.all(".card.is-passed[open] img")
            assert len(images) == 2 and all(each.is_displayed() for each in images)
            assert all(int(str(each.get_property("naturalWidth"))) > 0 for each in images)
            assert all(each.get_attribute("alt") for each in images)
            # A card that is compared shows both maps and their difference.
            alts = [each.get_attribute("alt") for each in window.all(".card")[0].find_elements("css selector", "img")]
            assert len(alts) == 4
        finally:
            window.scripting(True)

    @pytest.mark.parametrize("sandbox", ["allow-scripts", ""])
    def test_in_a_sandbox(self, window: Chrome, page: Path, tmp_path: Path, sandbox: str) -> None:
        """In a frame of a foreign origin, without storage, and without scripts, too."""
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<!doctype html><iframe sandbox="{sandbox}" width="1200" height="800" src="{page.as_uri()}"></iframe>'
        )
        window.open(frame)
        window.driver.switch_to.frame(0)
        try:
            assert len(window.all(".card")) == 9
            if sandbox:
                window.one("#q").send_keys("fine")
                assert window.shown == ["test_fine[one]", "test_fine[two]"]
                window.choose("#theme", "dark")
                window.one("#q").send_keys(*[Keys.BACKSPACE] * 4, Keys.ESCAPE)
                window.type("j", "a")
                assert window.one("#tally").text == "1 approved, 0 rejected, 2 left"
            else:
                assert not window.one("#q").is_displayed()
                assert window.one(".thumb img").is_displayed()
        finally:
            window.driver.switch_to.default_content()

    def test_on_a_phone_nothing_is_wider_than_the_screen(self, opened: Chrome, page: Path) -> None:
        opened.size(360, 800)
        opened.open(page)
        for name in ("test_reads[tabby]", "test_reads[cup]"):
            opened.run("arguments[0].open = true", card(opened, name))
        opened.until("return document.querySelectorAll('.card[open] .panels canvas').length > 4")
        assert opened.run("return document.documentElement.scrollWidth") == 360


class TestHostile:
    def test_no_text_takes_effect(self, window: Chrome, tmp_path: Path) -> None:
        """All of them, in every field: no dialog, no global, no element, no request; and they are there to be read."""
        texts = [text for text in HOSTILE if text != LONG]
        made = []
        for number, text in enumerate(texts):
            fields = dict.fromkeys(
                ("message", "label", "layer", "method", "device", "region", "assertion", "model"), text
            )
            nodeid = f"tests/test_{number}.py::test_x[{text}]"
            base = waiting(nodeid, baseline=text or "x", received=text or "x") if number % 2 else record(nodeid)
            facts = [[text, text], ["a", text]]
            made.append({**base, **fields, "facts": facts, "markers": [text], "file": text, "folder": text})
        path = write_page(tmp_path, made, title=" ".join(texts), about={text: text for text in texts})
        assert path is not None
        window.size(1280)
        window.open(path)
        window.run("document.querySelectorAll('.card').forEach((card, i) => { if (i < 40) card.open = true; })")
        window.run("document.querySelectorAll('.card').forEach((card) => card.querySelector('summary').focus())")
        for name in ("assertion", "model", "marker"):
            assert len(window.all(f"#{name} option")) > 50
        window.until("return document.querySelectorAll('.card[open] .panels canvas').length > 40")
        window.type("?", Keys.ESCAPE, "j", "a")
        # Every text is searched for as itself, and put into the address.
        for text in ("<img class=pwned src=x onerror=window.pwned=1;alert(1)>", "javascript:window.pwned=1;alert(1)"):
            window.run("q.value = arguments[0]; q.dispatchEvent(new Event('input'))", text)
            assert window.shown
            window.driver.refresh()
            assert window.shown
        assert window.run("return window.pwned ?? {}.pwned ?? null") is None  # a dialog would have raised here
        assert window.all(".pwned, iframe, object, embed, base, form, math, template") == []
        assert len(window.all("script")) == 2 and len(window.all("link, meta")) == 7
        assert not window.run(
            "return [...document.querySelectorAll('a')].some(a => !a.getAttribute('href').startsWith('#'))"
        )
        console, requests = window.logs()
        assert console == []
        assert {address.partition("#")[0] for address in requests} <= {path.as_uri(), "about:blank"}

    def test_exact_ids_are_approved(self, window: Chrome, tmp_path: Path) -> None:
        """Whatever an id holds, lone surrogates and line breaks too: what is saved is that id."""
        ids = [text for text in HOSTILE if text and text != LONG]
        path = write_page(tmp_path, [waiting(each) for each in ids], title="x", about={})
        assert path is not None
        window.open(path)
        window.run("document.querySelectorAll('.card .approve').forEach((button) => button.click())")
        saved = window.run(
            "let text; const made = Blob; window.Blob = function (parts) { text = parts[0]; return new made(parts); };"
            "document.querySelector('#save').click(); window.Blob = made;"
            "return btoa(unescape(encodeURIComponent(text)))"
        )
        found = json.loads(base64.b64decode(saved).decode("utf-8"))
        assert sorted(map(ascii, found["approved"])) == sorted(map(ascii, ids))


class TestAccessibility:
    @pytest.mark.parametrize("width", [1280, 360])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("state", ["closed", "open", "decided", "help"])
    def test_axe_finds_nothing(self, opened: Chrome, axe: str, width: int, scheme: str, state: str) -> None:
        """Nothing at all: not only nothing serious."""
        opened.size(width)
        opened.scheme(scheme)
        if state == "open":
            for name in ("test_reads[tabby]", "test_reads[cup]", "test_fine[one]", "test_suite"):
                opened.run("arguments[0].open = true", card(opened, name))
            opened.until("return document.querySelectorAll('.card[open] .panels canvas').length > 8")
        elif state == "decided":
            count(opened, "failed").click()
            opened.type("j", "a", "j", "r")
        elif state == "help":
            opened.one("#help").click()
        opened.run(
            "document.querySelectorAll('.item').forEach((item) => { item.style.contentVisibility = 'visible'; })"
        )
        opened.run(axe)
        found = opened.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations.map("
            "(v) => [v.id, v.impact, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + ' ' + n.failureSummary)])))"
        )
        assert found == []

    @pytest.mark.parametrize("width", [1280, 360])
    def test_targets_are_large_enough(self, opened: Chrome, width: int) -> None:
        """WCAG 2.5.8: 24 by 24 CSS pixels."""
        opened.size(width)
        opened.run("arguments[0].open = true", card(opened, "test_reads[tabby]"))
        opened.until("return document.querySelector('.card[open] .slider input')")
        opened.type("j", "a")
        small = opened.run(
            "return [...document.querySelectorAll('button, input, select, summary')].filter((e) => e.checkVisibility())"
            ".map((e) => [e.id || e.className, e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
            ".filter(([, w, h]) => w < 24 || h < 24)"
        )
        assert small == []

    def test_every_control_shows_its_focus(self, opened: Chrome) -> None:
        opened.run("arguments[0].open = true", card(opened, "test_reads[tabby]"))
        opened.until("return document.querySelector('.card[open] .slider input')")
        opened.type("j", "a")
        opened.run("document.body.focus()")
        seen = set()
        for _ in range(40):
            opened.type(Keys.TAB)
            width, style, tag = opened.run(
                "const e = document.activeElement, s = getComputedStyle(e);"
                "return [s.outlineWidth, s.outlineStyle, e.tagName]"
            )
            if tag != "BODY":
                seen.add(tag)
                assert (style, width) == ("solid", "2px") or style == "auto", tag
        assert {"BUTTON", "SUMMARY"} <= seen

    def test_order_of_headings(self, opened: Chrome) -> None:
        opened.run("arguments[0].open = true", card(opened, "test_reads[tabby]"))
        levels = opened.run(
            "return [...document.querySelectorAll('h1, h2, h3, h4, h5')]"
            ".filter((e) => e.checkVisibility()).map((e) => +e.tagName[1])"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


class TestARealRun:
    def test_from_a_failed_check_to_one_that_passes(self, window: Chrome, downloads: Path, tmp_path: Path) -> None:
        """A run writes the page, the page saves what was approved, `gradcam approve` obeys, and the next run passes."""
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_reads.py").write_text(CHECK)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}

        def run(*arguments: str, reads: str, ends: str) -> None:
            (tmp_path / "reads.txt").write_text(reads)
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.stdout.splitlines()[-1].startswith(ends), done.stdout

        run("--gradcam-update=new", reads="red", ends="1 passed")
        run(reads="blue", ends="1 failed")
        window.size(1280)
        window.open(tmp_path / "gradcam-report" / "index.html")
        assert window.shown == ["test_reads[a b]"]
        window.run("localStorage.clear(); sessionStorage.clear()")
        window.driver.refresh()
        window.type("j", "a", Keys.ENTER)
        window.until("return document.querySelector('.card[open] .wipe')")
        path = saved(window, downloads)
        approve = [sys.executable, "-c", "from pytest_gradcam.cli import main; raise SystemExit(main())", "approve"]
        subprocess.run([*approve, str(path)], cwd=tmp_path, env=environment, check=True, capture_output=True)
        run(reads="blue", ends="1 passed")
