"""Names of a test's files: readable where they can be, never shared, accepted by every file system."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import assume, example, given, strategies as st

from pytest_gradcam.report.names import LONGEST, artifact_name

# Ids as pytest makes them, ids of other people's collectors, and spellings that differ by as little as possible.
PIECES = st.one_of(
    st.sampled_from(
        [
            "test_a",
            "test_A",
            "a",
            "A",
            "a.png",
            "a.py",
            "con",
            "NUL.txt",
            "..",
            ".",
            "",
            " ",
            "a.",
            "a-2",
            "~",
            "é",
            "e\u0301",
        ]
    ),
    st.text(min_size=0, max_size=12),
)
JOINTS = st.sampled_from(["/", "::", "[", "]", "", "-", "\\"])
NODEIDS = st.lists(st.tuples(PIECES, JOINTS), min_size=1, max_size=6).map(
    lambda parts: "".join(piece + joint for piece, joint in parts)
)
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")}


def folded(path: str) -> str:
    """How the most forgetful file system would remember the path: case ignored, Unicode decomposed and compatible."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", path).casefold())


@pytest.mark.parametrize(
    ("nodeid", "path"),
    [
        ("test_demo.py::test_reads_the_object[cup-017]", "test_demo.py/test_reads_the_object[cup-017]"),
        ("tests/vision/test_demo.py::test_it", "tests/vision/test_demo.py/test_it"),
        ("test_demo.py::group::test_it[0.5-a b]", "test_demo.py/group/test_it[0.5-a b]"),
        ("test_demo.py::test_it[..]", "test_demo.py/test_it[..]"),
    ],
)
def test_a_plain_id_keeps_its_spelling(nodeid: str, path: str) -> None:
    assert artifact_name(nodeid) == path


@pytest.mark.parametrize(
    ("nodeid", "start"),
    [
        ("test_demo.py::TestCats::test_it", "test_demo.py/TestCats/test_it~"),
        ("test_demo.py::test_it[a/b::c]", "test_demo.py/test_it[a_b__c]~"),
        ("../test_demo.py::test_it", "__/test_demo.py/test_it~"),
        ("/other/test_demo.py::test_it", "_/other/test_demo.py/test_it~"),
        ("C:\\test_demo.py::test_it", "C__test_demo.py/test_it~"),
        ("aux/test_demo.py::test_it", "_aux/test_demo.py/test_it~"),
        ("test_demo.py::con", "test_demo.py/_con~"),
        ("test_demo.py::test_it[a]-2", "test_demo.py/test_it[a]-2~"),
        ("tests/test_demo.py::test_é", "tests/test_demo.py/test_é~"),
        ("tests/test_demo.py::test_e\u0301", "tests/test_demo.py/test_é~"),
        ("test_demo.py::test_it[line\nbreak]", "test_demo.py/test_it[line_break]~"),
        ("", "_~"),
    ],
)
def test_any_other_id_is_spelt_safely_and_ends_in_a_hash(nodeid: str, start: str) -> None:
    name = artifact_name(nodeid)
    assert name.startswith(start)
    assert len(name) == len(start) + 10


def test_the_name_of_an_id_never_changes() -> None:
    """Later runs must find what earlier runs wrote, so the hash is a fact and not an accident of the process."""
    assert artifact_name("test_a.py::TestB::test_c") == "test_a.py/TestB/test_c~5f47e22e9a"


@given(first=NODEIDS, second=NODEIDS)
@example(first="test_a.py::test_x[A]", second="test_a.py::test_x[a]")
@example(first="a/b.py::c", second="a/b.py/c")
@example(first="a.py::b::c", second="a.py::b/c")
@example(first="test_a.py::test_é", second="test_a.py::test_e\u0301")
@example(first="test_a.py::test_x[a:b]", second="test_a.py::test_x[a?b]")
@example(first="test_a.py::test_x ", second="test_a.py::test_x")
@example(first="test_a.py::test_ß", second="test_a.py::test_ss")
@example(first="test_a.py::test_" + "x" * 200, second="test_a.py::test_" + "x" * 201)
def test_two_tests_never_share_a_path(first: str, second: str) -> None:
    assume(first != second)
    assert folded(artifact_name(first)) != folded(artifact_name(second))


@given(first=NODEIDS, second=NODEIDS)
@example(first="test_a.py::test_x", second="test_a.py::test_x.png::test_y")
@example(first="a.py::b", second="a.py/b.png/c.py::d")
@example(first="a.py::b", second="a.py/b.png/c.py::D")
@example(first="a.py::b", second="a.py::b-2")
def test_no_overlay_takes_the_place_of_another_tests_overlay_or_folder(first: str, second: str) -> None:
    assume(first != second)
    files = [f"{artifact_name(first)}{suffix}" for suffix in (".png", "-2.png")]
    others = [f"{artifact_name(second)}{suffix}" for suffix in (".png", "-2.png")]
    taken = {folded(str(part)) for other in others for part in (PurePosixPath(other), *PurePosixPath(other).parents)}
    assert not taken & {folded(file) for file in files}


@given(nodeid=NODEIDS)
@example(nodeid="é" * 200)
@example(nodeid="test_a.py::test_x[" + "\U0001f600" * 60 + "]")
@example(nodeid="con." + "x" * 200)
@example(nodeid="\ud800")
def test_every_component_is_one_that_every_file_system_takes(nodeid: str) -> None:
    name = artifact_name(nodeid)
    assert not PurePosixPath(name).is_absolute()
    assert not PureWindowsPath(name).drive
    for component in name.split("/"):
        assert component not in ("", ".", "..")
        assert len(component.encode("utf-8")) <= LONGEST == 120
        assert component == unicodedata.normalize("NFC", component)
        assert not set(component) & set('<>:"|?*\\/')
        assert component.rstrip(". ") == component
        assert component.partition(".")[0].strip().lower() not in RESERVED
        assert all(unicodedata.category(character)[0] != "C" for character in component)
