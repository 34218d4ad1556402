"""The page as a file: what stands on it, in which order, what is left out, and what it may do."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_gradcam.files import write_whole
from pytest_gradcam.report.page import page as pages
from pytest_gradcam.report.page.cards import anchors, card_of, command
from pytest_gradcam.report.page.page import page_of, write_page
from tests.report.hostile import HOSTILE, LONG
from tests.report.pages import Read, passed, record, waiting


def read(records: list[dict[str, Any]], **how: Any) -> Read:
    return Read(page_of(records, **{"title": "cats", "about": {}, **how}))


def text_of(records: list[dict[str, Any]], **how: Any) -> str:
    return " ".join(text for _, text in read(records, **how).texts)


def many(made: dict[str, Any], name: str, count: int) -> list[dict[str, Any]]:
    """As many records like one."""
    return [{**made, "nodeid": f"t.py::{name}{i:04}"} for i in range(count)]


class TestWriting:
    def test_writes_both_files(self, tmp_path: Path) -> None:
        """A folder that is made is ignored by git; nothing else is left there."""
        folder = tmp_path / "deep" / "report"
        assert write_page(folder, [record()], title="cats", about={}) == folder / "index.html"
        assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "index.html", "results.json"]
        assert (folder / ".gitignore").read_text() == "*\n"

    def test_leaves_a_folder_that_is_there_to_git(self, tmp_path: Path) -> None:
        write_page(tmp_path, [record()], title="cats", about={})
        assert not (tmp_path / ".gitignore").exists()

    def test_writes_over_its_own(self, tmp_path: Path) -> None:
        for title in ("first", "second"):
            write_page(tmp_path, [record()], title=title, about={"started": "x" * 5000})
        assert "<h1>second</h1>" in (tmp_path / "index.html").read_text("utf-8")

    @pytest.mark.parametrize("name", ["index.html", "results.json"])
    def test_writes_over_nobody_elses(self, tmp_path: Path, name: str) -> None:
        """Neither file is written, then."""
        (tmp_path / name).write_text("{}")
        with pytest.raises(FileExistsError, match="not written by pytest-gradcam"):
            write_page(tmp_path, [record()], title="cats", about={})
        assert [path.read_text() for path in tmp_path.iterdir()] == ["{}"]

    def test_does_not_wait_for_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "index.html")
        with pytest.raises(FileExistsError, match="not written by pytest-gradcam"):
            write_page(tmp_path, [record()], title="cats", about={})

    def test_leaves_no_results_that_contradict_the_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_page(tmp_path, [record()], title="first", about={})
        real = write_whole

        def fails(path: Path, data: bytes) -> None:
            if path.name == "results.json":
                raise OSError(28, "No space left on device")
            real(path, data)

        monkeypatch.setattr("pytest_gradcam.report.page.page.write_whole", fails)
        with pytest.raises(OSError, match="No space left"):
            write_page(tmp_path, [record()], title="second", about={})
        assert "<h1>second</h1>" in (tmp_path / "index.html").read_text("utf-8")
        assert not (tmp_path / "results.json").exists()

    def test_follows_no_link(self, tmp_path: Path) -> None:
        """A link to a page of ours is none."""
        write_page(tmp_path / "a", [record()], title="cats", about={})
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "index.html").symlink_to(tmp_path / "a" / "index.html")
        with pytest.raises(FileExistsError):
            write_page(tmp_path / "b", [record()], title="dogs", about={})

    def test_asked_for_none_writes_nothing(self, tmp_path: Path) -> None:
        assert write_page(tmp_path / "x", [record()], title="cats", about={}, keep="none") is None
        assert not (tmp_path / "x").exists()

    def test_loads_neither_torch_nor_numpy(self, tmp_path: Path) -> None:
        """With xdist, the process that writes the page has loaded none of them."""
        (tmp_path / "records.json").write_text(json.dumps([record()]))
        code = (
            "import json, sys; from pathlib import Path; from pytest_gradcam.report.page.page import write_page; "
            "write_page(Path('report'), json.loads(Path('records.json').read_text()), title='x', about={}); "
            "print({'torch', 'numpy', 'PIL', 'cv2', 'scipy'} & set(sys.modules))"
        )
        found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "set()"


class TestWhatStandsOnIt:
    def test_cards_worst_first(self) -> None:
        records = [passed("t.py::fine"), record("t.py::bad", value=0.1), record("t.py::worse", value=-0.3)]
        assert read(records).of("span.name") == ["worse", "bad", "fine"]
        assert [card["data-category"] for card in read(records).cards()] == ["failed", "failed", "passed"]

    def test_an_expected_failure_is_not_red(self) -> None:
        (card,) = read([record(failed=False)]).cards()
        assert "is-expected" in card["class"] and "is-failed" not in card["class"]

    def test_every_number(self) -> None:
        """All that the record holds, once, under the name that it has there."""
        told = read([record(extra_of_tomorrow=0.125)]).told()
        assert told["value"] == "-0.26" and told["needed"] == "at least 0.15" and told["chance"] == "0"
        assert told["energy"] == "0.01" and told["region share"] == "0.17" and told["filled"] == "0.83"
        assert told["peak"] == "5, 89 (x, y)" and told["peak distance"] == "53 px" and told["frame"].startswith("96×96")
        assert told["class"] == "rocket (class 3)" and told["predicted"] == "rocket (class 3), p = 0.99"
        assert told["score"] == "7.25" and told["evidence"] == "3.5" and told["probability"] == "0.99"
        assert told["layer"] == "stages.3" and told["grid"] == "12×12" and told["engine"] == "hooks"
        assert told["where"] == "tests/test_cats.py:12" and told["markers"] == "gradcam" and told["model"] == "ResNet"
        assert told["extra of tomorrow"] == "0.125"

    def test_of_several_images(self) -> None:
        many = record(value=0.4, values=[0.1 * i for i in range(150)], interval=[0.2, None], confidence=0.95)
        told = read([many]).told()
        assert told["interval"] == "0.2 to no bound, each bound with 95% confidence"
        assert told["values"].endswith("… and 50 more") and told["values"].startswith("0, 0.1, 0.2, 0.3,")

    def test_pictures_tell_the_story_to_who_cannot_see_them(self) -> None:
        pictures = [attributes for tag, attributes in read([record()]).elements if tag == "img"]
        assert all(each["alt"] for each in pictures)
        (alt,) = {each["alt"] for each in pictures if "rocket" in each["alt"]}
        assert "1% of its mass" in alt and "by chance 17%" in alt and "53 pixels outside" in alt

    def test_scale_in_words(self) -> None:
        found = [attributes["aria-label"] for tag, attributes in read([record()]).elements if tag == "svg"]
        assert found == ["Value -0.26, at least 0.15 passes; chance is 0.00"]

    def test_counts(self) -> None:
        assert "3 judged, 1 failed, 2 passed" in text_of([record("a"), passed("b"), passed("c")])

    def test_a_verdict_without_a_map(self) -> None:
        alone = record(pictures={})
        del alone["grid"]
        found = read([alone])
        assert "no map" in found.of("span.no-picture") and not [tag for tag, _ in found.elements if tag == "img"]

    def test_a_verdict_whose_pictures_were_not_kept(self) -> None:
        found = read([record(pictures={})])
        assert "no picture" in found.of("span.no-picture")
        assert "No pictures of this verdict were kept." in found.of("p.quiet")

    def test_what_is_known_of_the_run(self) -> None:
        told = read([], about={"versions": {"torch": "2.9", "pytest": "9.0"}, "seconds": 3.5, "branch": None}).told()
        assert (told["torch"], told["pytest"], told["seconds"]) == ("2.9", "9.0", "3.5")
        assert "branch" not in told and "versions" not in told

    def test_no_verdict(self) -> None:
        assert "No verdict was made." in text_of([])
        assert "No verdict failed." in text_of([passed("a")], keep="failed")

    def test_numbers_that_are_none(self) -> None:
        """No scale, and no failure of ours."""
        for value in (float("nan"), float("inf"), None, 1e308):
            read([record(value=value, chance=value, threshold=-1e308 if value == 1e308 else 0.1)])

    def test_ids_of_cards_stay_from_run_to_run(self) -> None:
        """A link to a card that was sent yesterday: of the same test, and of the how-manieth verdict of it."""
        records = [record("b"), record("a"), record("a")]
        found = anchors(records)
        assert len(set(found)) == 3
        assert anchors([record("a")]) == [found[1]]

    def test_pictures_that_are_none_are_not_shown(self) -> None:
        """Nothing but a picture becomes an address."""
        odd = {
            "overlay": "https://evil.example/x.png",
            "seen": "data:image/svg+xml;base64,AAAA",
            "outline": 'M0 0"><b>',
        }
        card = card_of(record(pictures={**odd, "now": 3, "grid": "x y z", "grid_before": None}), "x")
        assert card.pictures == {} and card.drawn == {}


class TestWhatIsLeftOut:
    def test_up_to_500_nothing(self) -> None:
        records = many(passed("", pictures={}), "t", 500)
        assert len(read(records).cards()) == 500 and "are not on this page" not in text_of(records)

    def test_of_more_an_even_sample_of_those_that_did_not_fail(self) -> None:
        bad = many(record("", pictures={}), "bad", 100)
        fine = [{**each, "value": 0.2 + i / 1000} for i, each in enumerate(many(passed("", pictures={}), "t", 1600))]
        found = read([*fine, *bad])
        names = found.of("span.name")
        assert sum(name.startswith("bad") for name in names) == 100
        assert [name for name in names if name.startswith("t")] == [f"t{4 * i:04}" for i in range(400)]
        assert "1200 of 1700 verdicts are not on this page" in text_of([*fine, *bad])

    def test_a_sample_is_one_that_can_be_seen(self) -> None:
        """Where there are enough with pictures: of a long run not all are kept."""
        one = {"overlay": "data:image/webp;base64,AAAA"}
        fine = many(passed("", pictures={}), "blind", 600) + many(passed("", pictures=one), "seen", 520)
        assert {name[:4] for name in read(fine).of("span.name")} == {"seen"}

    def test_all_that_failed_stay(self) -> None:
        records = many(record("", pictures={}), "bad", 600) + many(passed("", pictures={}), "t", 200)
        assert len(read(records).cards()) == 650

    def test_asked_for_failed(self) -> None:
        records = [record("t.py::bad"), passed("t.py::fine"), record("t.py::expected", failed=False)]
        assert read(records, keep="failed").of("span.name") == ["bad"]
        assert "2 of 3 verdicts are not on this page: it was asked for those that failed" in text_of(
            records, keep="failed"
        )

    def test_pictures_of_what_passed_go_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best first; and cards only when no picture is left."""
        large = {"overlay": "data:image/webp;base64," + "A" * 100_000}
        records = [record("t.py::bad", pictures=large)]
        records += [passed(f"t.py::t{i}", pictures=large, value=0.2 + i / 10) for i in range(3)]
        monkeypatch.setattr(pages, "MOST_BYTES", 250_000)
        found = read(records)
        assert [tag for tag, _ in found.elements if tag in ("details", "img")] == ["details", "img"] * 2 + [
            "details"
        ] * 2
        assert "The pictures of 2 verdicts were left out" in text_of(records)
        monkeypatch.setattr(pages, "MOST_BYTES", 25_000)
        assert "4 verdicts were left out" in text_of(records)
        monkeypatch.setattr(pages, "MOST_BYTES", 6_000)
        found = read(records)
        assert found.of("span.name") == ["bad"]
        assert "3 of 4 verdicts are not on this page" in text_of(records)

    def test_the_page_stays_under_20_mb(self) -> None:
        """Whatever the pictures and the texts are."""
        huge = {name: "data:image/webp;base64," + "A" * 300_000 for name in ("seen", "overlay")}
        texts: dict[str, Any] = {
            "message": "<" * 100_000,
            "facts": [["é" * 5000, "&" * 90_000]] * 100,
            "label": '"' * 9000,
        }
        records = many(record("", pictures=huge, **texts), "t", 60)
        assert len(page_of(records, title="x" * 10**6, about={"x": "y" * 10**6})) < 20_000_000

    def test_a_long_text_is_cut(self) -> None:
        assert f"and {100_000 - 2000} more characters" in text_of([record(message=LONG)])


class TestWhatItMayDo:
    def test_policy_names_what_is_there(self) -> None:
        """The hashes are those of the style and the two scripts, as a browser takes them."""
        page = page_of([record()], title="x", about={}).decode()
        (policy,) = [each["content"] for tag, each in Read(page.encode()).elements if each.get("http-equiv")]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

        def hashes(tag: str) -> str:
            found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
            digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
            return " ".join(f"'sha256-{digest}'" for digest in digests)

        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert rules["img-src"] == "data:"
        assert rules["style-src"] == hashes("style") and rules["script-src"] == hashes("script")
        assert rules["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in policy and "http" not in policy

    def test_it_names_no_address(self) -> None:
        """Nothing but pictures that are in it and places on it; no handler and no style in an attribute."""
        for tag, attributes in read([record(), waiting()]).elements:
            for name, value in attributes.items():
                assert not name.startswith("on") and name != "style"
                if name in ("src", "href", "action", "data", "poster", "srcset"):
                    assert value.startswith(("data:", "#")), (tag, name, value)


class TestHostile:
    """Whatever a text holds, the page has the elements that it has with a harmless one."""

    FIELDS = (
        "message label layer method device engine region metric assertion model file received baseline folder overlay"
    ).split()

    def everywhere(self, text: str) -> dict[str, Any]:
        values: dict[str, Any] = dict.fromkeys(self.FIELDS, text)
        return record(
            f"tests/test_x.py::test_x[{text}]",
            **values,
            facts=[[text, text], ["fact", text]],
            markers=[text],
            predicted_label=text,
            line=text,
        ) | {f"extra {text}": text}

    def shape(self, page: bytes) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(sorted(attributes))) for tag, attributes in Read(page).elements]

    def test_there_are_enough(self) -> None:
        assert len(set(HOSTILE)) == len(HOSTILE) >= 50

    @pytest.mark.parametrize(
        "text", [text for text in HOSTILE if text.strip()], ids=range(len([t for t in HOSTILE if t.strip()]))
    )
    def test_no_text_becomes_markup(self, text: str) -> None:
        harmless = page_of([self.everywhere("harmless")], title="harmless", about={"harmless": "harmless"})
        page = page_of([self.everywhere(text)], title=text, about={text: text})
        tags = [tag for tag, _ in self.shape(harmless)]
        assert self.shape(page) == self.shape(harmless), set(tags)
        (card,) = Read(page).cards()
        assert json.loads(card["data-baseline"]) == text

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_no_character_steers(self, text: str) -> None:
        """No control or bidi character, nor a lone surrogate, reaches the page; it says which was there."""
        page = page_of([self.everywhere(text)], title=text, about={text: text}).decode("utf-8")
        assert all(character.isprintable() or character == "\n" for character in page)
        if "\x1b" in text:
            assert "\\x1b" in page

    def test_template_syntax_is_text(self) -> None:
        found = read([record(message="{{7*7}} {% raw %}")])
        assert found.of("h3.message") == ["{{7*7}} {% raw %}"]

    @pytest.mark.parametrize(
        "text", [t for t in HOSTILE if "\x00" not in t and t != LONG and "\ud800" not in t and "\udcff" not in t]
    )
    def test_command_runs_nothing_but_pytest(self, text: str) -> None:
        """What a shell makes of it: two words, the second the id; and nothing that steers where it is pasted."""
        line = command(text)
        assert line.isprintable()
        got = subprocess.run(
            ["bash", "-c", f"pytest() {{ printf '%s\\0' \"$@\"; }}; {line}"],
            capture_output=True,
            check=True,
            timeout=20,
        ).stdout.decode()
        assert got == ("./" if text.startswith(("-", "@")) else "") + text + "\0"
        assert not got.startswith(("-", "@"))

    def test_command_of_a_file_whose_name_is_no_text(self) -> None:
        assert command("test_\udcff.py::test_a") == "pytest $'test_\\xff.py::test_a'"

    def test_command_of_a_plain_id_is_plain(self) -> None:
        assert command("tests/test_a.py::test_b") == "pytest tests/test_a.py::test_b"
        assert shlex.split(command("a.py::t[x y]")) == ["pytest", "a.py::t[x y]"]
