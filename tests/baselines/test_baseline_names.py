"""Files of baselines: each check has its own on every file system, and a name cannot lead out of the folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from pytest_gradcam.baselines.names import CheckName, checked_name, folder_of
from pytest_gradcam.baselines.shelf import Shelf
from pytest_gradcam.errors import BaselineError

# What Windows reserves, whatever follows the first dot (learn.microsoft.com, Naming Files, Paths, and Namespaces).
RESERVED = {"con", "prn", "aux", "nul", "clock$", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}

telling = st.sampled_from(
    [
        *[
            "con",
            "NUL",
            "com1",
            "aux.x",
            ".",
            "..",
            "/",
            "\\",
            ":",
            "@",
            "~",
            "[",
            "]",
            " ",
            "é",
            "e\u0301",
            "ſ",
            "\u212a",
        ],
        *["ß", "ss", "\0", "\n", "\x7f", "\u202e", "\ud800", "\U0001f600", "x" * 130, "é" * 70, "::", "한", "test_a"],
        *["A", "a", "İ"],
    ]
)
spelt = st.lists(telling | st.text(max_size=3), max_size=4).map("".join)
names = st.just("") | st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.,=+ -]{0,58}[A-Za-z0-9_+=-])?", fullmatch=True).filter(
    lambda name: re.split(r"[. ]", name.lower())[0] not in RESERVED
)
checks = st.builds(CheckName, st.just("test_a.py"), spelt, names)


def folded(path: str) -> set[str]:
    """What file systems that fold case, normalise or both may make of a path."""
    forms = {unicodedata.normalize(form, path) for form in ("NFC", "NFD")}
    return forms | {each.casefold() for each in forms} | {unicodedata.normalize("NFD", each.upper()) for each in forms}


def is_plain(check: CheckName) -> bool:
    return "~" not in check.stem


def shelf(folder: Path, test: str, taken: dict[str, tuple[str, CheckName]]) -> Shelf:
    return Shelf(
        folder,
        "test_a.py",
        test,
        f"test_a.py::{test}",
        folder,
        folder / "received",
        None,
        False,
        str,
        print,
        taken=taken,
    )


@settings(max_examples=1500)
@given(checks, checks)
def test_no_two_checks_share_a_file(one: CheckName, other: CheckName) -> None:
    assume(one != other)
    assert one.file != other.file
    if folded(one.file) & folded(other.file):  # left to `Shelf.slot`, which sees both
        assert is_plain(one) and is_plain(other)
        assert str(one).casefold() == str(other).casefold()


@settings(max_examples=1000)
@given(spelt, names)
def test_spellings_that_a_file_system_takes_for_one_have_their_own_digests(test: str, name: str) -> None:
    one = CheckName("test_a.py", test, name)
    forms = [unicodedata.normalize(form, test) for form in ("NFC", "NFD", "NFKC")]
    for other in {test.lower(), test.upper(), test.swapcase(), test.casefold(), *forms} - {test}:
        check = CheckName("test_a.py", other, name)
        if not (is_plain(one) and is_plain(check)):
            assert not folded(one.file) & folded(check.file)


@settings(max_examples=500)
@given(spelt, spelt)
def test_no_two_test_files_share_a_folder(one: str, other: str) -> None:
    assume(one != other)
    if folded(folder_of(one)) & folded(folder_of(other)):
        assert unicodedata.normalize("NFC", one).casefold() == unicodedata.normalize("NFC", other).casefold()


@pytest.mark.parametrize(
    ("one", "other"), [("test_a.txt", "test_a.txt.py"), ("test_a", "test_a.py"), ("é.py", "e\u0301.py")]
)
def test_test_files_whose_names_are_nearly_one(one: str, other: str) -> None:
    assert not folded(folder_of(one)) & folded(folder_of(other))


@settings(max_examples=1500)
@given(spelt, spelt, names)
def test_every_component_is_taken_by_every_file_system(module: str, test: str, name: str) -> None:
    folder, _, file = CheckName(module, test, name).file.partition("/")
    stem = file.removesuffix(".safetensors")
    assert stem != file
    for component in (folder, stem):
        assert 0 < len(component.encode()) <= 120
        assert not re.search(r'[<>:"|?*\\/]', component)
        assert all(unicodedata.category(character)[0] != "C" for character in component)
        assert component[-1] not in ". "
        assert component.split(".")[0].rstrip().lower() not in RESERVED
    assert ".." not in (folder, file)


@pytest.mark.parametrize(
    ("check", "file"),
    [
        (("test_cats.py", "test_reads"), "test_cats/test_reads.safetensors"),
        (("test_cats.py", "TestCat.test_reads[tabby]"), "test_cats/TestCat.test_reads[tabby].safetensors"),
        (("test_cats.py", "test_reads", "ears"), "test_cats/test_reads@ears.safetensors"),
        (("test_cats.py", "test_reads[0.5-a b]", "x y"), "test_cats/test_reads[0.5-a b]@x y.safetensors"),
        (("guide.md", "guide.md"), "guide.md/guide.md.safetensors"),
    ],
)
def test_what_is_plain_keeps_its_spelling(check: tuple[str, ...], file: str) -> None:
    assert CheckName(*check).file == file


@pytest.mark.parametrize(
    "test", ["test_x[a/b]", "test_x[../../etc/passwd]", "test_x[é]", "nul", "test_x[a@b]", "test_x[~]", "x" * 121, ""]
)
def test_what_is_not_plain_gets_a_digest(test: str) -> None:
    assert re.fullmatch(r"[^/~]+~[0-9a-f]{10}@ears", CheckName("test_a.py", test, "ears").stem)


def test_the_file_of_a_check_is_the_same_in_every_version() -> None:
    """Baselines are committed: another spelling would lose them all."""
    assert CheckName("test_a.py", "test_x[a/b]", "left").stem == "test_x[a_b]~dbd22cef1d@left"
    assert folder_of("tést.py") == "tést~e9a2e8dccc"


@pytest.mark.parametrize("name", ["ears", "left-ear", "a b", "v1.2", "a=b,c+d", "_", "7", "x" * 60, "console", "com"])
def test_names_that_are_taken_as_they_are(name: str) -> None:
    assert checked_name(name) == name


def test_no_name_is_the_only_check() -> None:
    assert checked_name(None) == ""


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            "../x",
            "..",
            ".",
            ".x",
            "/etc/passwd",
            "C:\\x",
            "a/b",
            "a\\b",
            "a\0b",
            "\0",
            "CON",
            "con",
            "nul.x",
            "COM1",
        ],
        *["lpt9.a.b", "aux", "conin$", "t\u0435st", "a\uff0fb", "a\u2215b", "a\u202eb", "a\u200db", "a.", "a ", " a"],
        *["a\n", "-a", "é", "a@b", "a~b", "a:b", "a*b", "~", "a[b]", "\uff41", "a\u00a0b"],
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(BaselineError, match="cannot name a baseline: it becomes part of a file's name") as caught:
        checked_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("length", [61, 121, 10**6])
def test_a_name_that_is_too_long_is_told_in_few_words(length: int) -> None:
    with pytest.raises(BaselineError, match=f"has {length} characters: use 60 at most") as caught:
        checked_name("/" * length)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("name", [7, b"ears", ("a",), 0.5, True])
def test_a_name_that_is_no_text(name: Any) -> None:
    with pytest.raises(BaselineError, match="cannot name a baseline"):
        checked_name(name)


@settings(max_examples=1000)
@given(st.text() | spelt)
def test_a_name_that_is_taken_is_one_component(name: str) -> None:
    try:
        checked_name(name)
    except BaselineError:
        return
    assert re.fullmatch(r"[\w.,=+ -]{1,60}", name, re.ASCII)
    path = Path("/a/b") / CheckName("test_a.py", "test_x", name).file
    assert path.parent == Path("/a/b/test_a")
    assert name.split(".")[0].rstrip().lower() not in RESERVED


def test_tests_whose_names_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    taken: dict[str, tuple[str, CheckName]] = {}
    shelf(tmp_path, "test_x[a]", taken).slot(None)
    with pytest.raises(
        BaselineError, match=r"test_x\[A\] and test_a.py::test_x\[a\] would share .* where case is ignored"
    ):
        shelf(tmp_path, "test_x[A]", taken).slot(None)


def test_two_checks_of_one_test_need_names(tmp_path: Path) -> None:
    of_test = shelf(tmp_path, "test_x", {})
    of_test.slot("left")
    of_test.slot("right")
    for name in ("left", "Left"):
        with pytest.raises(BaselineError, match=r"two checks of test_a.py::test_x would share .*give each a name"):
            of_test.slot(name)


def test_the_same_test_may_ask_again(tmp_path: Path) -> None:
    """As with pytest-rerunfailures: a new fixture for the same test."""
    taken: dict[str, tuple[str, CheckName]] = {}
    first, again = (shelf(tmp_path, "test_x", taken).slot("left") for _ in range(2))
    assert first.path == again.path == tmp_path / "__gradcam__/test_a/test_x@left.safetensors"
