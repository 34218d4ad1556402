"""Received files that somebody made to write where they must not: refused by name, and nothing at all has changed."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from pytest_gradcam import cli
from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.format import digest_of
from pytest_gradcam.baselines.names import CheckName
from tests.baselines.received_files import Project, project, snapshot, spot

OWN = CheckName("test_cats.py", "test_reads")
OTHER = CheckName("test_cats.py", "test_other")
TARGET = "tests/__gradcam__/test_cats/test_reads.safetensors"
OTHERS = "tests/__gradcam__/test_cats/test_other.safetensors"
Prepare: TypeAlias = Callable[[Project, Path], object]


def lying(**says: Any) -> Prepare:
    return lambda made, outside: made.receive(OWN, says=says)


def lying_there(target: str) -> Prepare:
    """A file that lies at the very place that its target names, and knows the digest of what is there."""
    return of_check(OWN, target)


def of_check(check: CheckName, target: str = TARGET, **says: Any) -> Prepare:
    """Likewise, with the map of any check."""

    def prepare(made: Project, outside: Path) -> None:
        there = store.read_bytes(made.root / target)
        replaces = "" if there is None else digest_of(there)
        made.receive(check, place=target, says={"target": target, "replaces": replaces, **says})

    return prepare


def with_link(link: str, to: str) -> Prepare:
    """A link in rootdir, at `link`, to something outside."""

    def prepare(made: Project, outside: Path) -> None:
        made.receive(OWN)
        path = made.root / link
        if path.is_dir():
            path.rename(outside / "was")
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside / to)

    return prepare


def received_link(link: str, to: str) -> Prepare:
    """A link among the received files, to a received file or a folder of some."""

    def prepare(made: Project, outside: Path) -> None:
        made.receive(OWN)
        path = made.received / link
        (path.rename if path.exists() else outside.joinpath)(outside / to)
        path.symlink_to(outside / to)

    return prepare


def with_picture(data: bytes | Callable[[bytes], bytes]) -> Prepare:
    def prepare(made: Project, outside: Path) -> None:
        path = made.receive(OWN).with_suffix(".png")
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return prepare


def picture_is_a_link(made: Project, outside: Path) -> None:
    path = made.receive(OWN).with_suffix(".png")
    path.rename(outside / "picture.png")
    path.symlink_to(outside / "picture.png")


def picture_is_a_pipe(made: Project, outside: Path) -> None:
    path = made.receive(OWN).with_suffix(".png")
    path.unlink()
    os.mkfifo(path)


def picture_is_huge(made: Project, outside: Path) -> None:
    path = made.receive(OWN).with_suffix(".png")
    os.truncate(path, 33 * 2**20)


def picture_beside_the_baseline_is_a_link(made: Project, outside: Path) -> None:
    path = made.receive(OWN).with_suffix(".png")
    (outside / "ours.png").write_bytes(path.read_bytes())
    there = made.target(OWN).with_suffix(".png")
    there.symlink_to(outside / "ours.png")


def received_is_huge(made: Project, outside: Path) -> None:
    os.truncate(made.receive(OWN), 65 * 2**20)


def received_is_a_pipe(made: Project, outside: Path) -> None:
    path = made.receive(OWN)
    path.unlink()
    os.mkfifo(path)


def nested_without_end(made: Project, outside: Path) -> None:
    """More folders in each other than Python has frames, and than a path has bytes."""
    made.received.mkdir(parents=True)
    deep = os.open(made.received, os.O_RDONLY)
    try:
        for _ in range(2100):
            os.mkdir("d", dir_fd=deep)
            inner = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = inner
    finally:
        os.close(deep)


def link_loop(made: Project, outside: Path) -> None:
    made.receive(OWN)
    path = made.target(OWN)
    path.unlink()
    path.symlink_to(path.name)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def foreign_png() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (4, 4)).save(written, "PNG")
    return written.getvalue()


IEND = chunk(b"IEND", b"")

HOSTILE: dict[str, Prepare] = {
    "parent": lying(target="../x"),
    "parent of a baseline": lying(target="../users/tests/__gradcam__/test_cats/test_reads.safetensors"),
    "parent inside": lying(target="tests/../tests/__gradcam__/test_cats/test_reads.safetensors"),
    "absolute": lying(target="/tmp/tests/__gradcam__/test_cats/test_reads.safetensors"),
    "of a drive": lying(target="C:/tests/__gradcam__/test_cats/test_reads.safetensors"),
    "beside a drive": lying(target="C:tests/__gradcam__/test_cats/test_reads.safetensors"),
    "of a share": lying(target="//server/share/tests/__gradcam__/test_cats/test_reads.safetensors"),
    "backslashes": lying(target="tests\\__gradcam__\\test_cats\\test_reads.safetensors"),
    "a backslash that climbs": lying(target="tests\\..\\..\\x/__gradcam__/test_cats/test_reads.safetensors"),
    "NUL": lying(target="tests/__gradcam__/test_cats/test_reads.safetensors\0.png"),
    "empty": lying(target=""),
    "dot": lying(target="./" + TARGET),
    "twice a slash": lying(target=TARGET.replace("/", "//", 1)),
    "no __gradcam__": lying_there("tests/test_cats/test_reads.safetensors"),
    "__gradcam__ elsewhere": lying_there("__gradcam__/tests/test_cats/test_reads.safetensors"),
    "deeper than __gradcam__": lying_there("tests/__gradcam__/more/test_cats/test_reads.safetensors"),
    "spelt otherwise": lying_there(TARGET.replace("__gradcam__", "__GRADCAM__")),
    "a conftest": lying(target="tests/conftest.py"),
    "another test's target": lying(target=OTHERS),
    "another test's target and place": lying_there(OTHERS),
    "another test's check": of_check(OTHER),
    "another test's check under this one's id": of_check(OTHER, id="tests/test_cats.py::test_reads"),
    "another test's id": lying(id="tests/test_cats.py::test_other"),
    "an id with an escape sequence": lying(id="tests/test_cats.py::test_reads\x1b]0;owned\x07"),
    "an id that hides what it is": lying(id="tests/test_cats.py::test_reads\u202e"),
    "a half of a character": lying(target="tests/\ud800/__gradcam__/test_cats/test_reads.safetensors"),
    "another place": lambda made, outside: made.receive(OWN, place=OTHERS),
    "a module that is a path": of_check(CheckName("../test_cats.py", "test_reads")),
    "a module that does not exist": of_check(
        CheckName("test_none.py", "test_reads"),
        "tests/__gradcam__/test_none/test_reads.safetensors",
        id="tests/test_none.py::test_reads",
    ),
    "a folder that does not exist": lambda made, outside: made.receive(OWN, folder="more/tests"),
    "a name that no file system takes": lambda made, outside: made.receive(OWN, says={"target": "x" * 5000}),
    "a target that is a number": lying(target=3),
    "preview that is a text": lying(preview="yes"),
    "no digest": lying(replaces=None),
    "a link of the tests' folder": with_link("tests", "was"),
    "a link of __gradcam__": with_link("tests/__gradcam__", "was"),
    "a link of the module's folder": with_link("tests/__gradcam__/test_cats", "was"),
    "a link of the baseline": with_link(TARGET, "precious"),
    "a link of the baseline to nothing": with_link(TARGET, "nothing"),
    "a loop of links": link_loop,
    "a received file that is a link": received_link(TARGET, "received.safetensors"),
    "a received folder that is a link": received_link("tests/__gradcam__", "received"),
    "all that was received is a link": received_link("", "received"),
    "a received file that is a pipe": received_is_a_pipe,
    "a received file that is huge": received_is_huge,
    "folders without end": nested_without_end,
    "a picture that is a link": picture_is_a_link,
    "a picture that is a pipe": picture_is_a_pipe,
    "a picture that is huge": picture_is_huge,
    "a picture that is none": with_picture(b"#!/bin/sh\nreboot\n"),
    "a picture that is empty": with_picture(b""),
    "a picture of somebody else's": with_picture(foreign_png()),
    "a picture with something behind it": with_picture(lambda data: data + b"PK\x03\x04"),
    "a picture with something in it": with_picture(
        lambda data: data.removesuffix(IEND) + chunk(b"eXIf", b"secret") + IEND
    ),
    "a picture with a text": with_picture(
        lambda data: data.removesuffix(IEND) + chunk(b"tEXt", b"Comment\0<script>") + IEND
    ),
    "a picture that was cut off": with_picture(lambda data: data[:-20]),
    "a picture that was changed": with_picture(lambda data: data[:300] + b"\0\0" + data[302:]),
    "a picture beside the baseline that is a link": picture_beside_the_baseline_is_a_link,
}


@pytest.fixture
def attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Project, Path]]:
    """A project with the baselines of two tests, and a folder outside of it with something precious."""
    made = project(tmp_path / "users")
    made.keep(OWN)
    made.keep(OTHER, spot(3, 3))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(made.target(OWN).read_bytes())
    monkeypatch.chdir(made.root)
    yield made, outside
    if (made.received / "d").exists():  # pytest removes old folders by a recursion
        subprocess.run(["rm", "-rf", made.received], check=True)


@pytest.mark.parametrize("how", HOSTILE)
def test_nothing_is_changed(how: str, attacked: tuple[Project, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made, outside = attacked
    HOSTILE[how](made, outside)
    whole = made.root.parent
    before = snapshot(whole)
    assert cli.main(["approve", "--all"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("BaselineError: ")
    assert "\x1b" not in said.err + said.out
    assert "\0" not in said.err + said.out
    assert snapshot(whole) == before


@pytest.mark.parametrize("how", HOSTILE)
def test_nor_by_review(
    how: str, attacked: tuple[Project, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, outside = attacked
    HOSTILE[how](made, outside)
    whole = made.root.parent
    before = snapshot(whole)
    monkeypatch.setattr("sys.stdin", io.StringIO("A\na\nA\n"))
    assert cli.main(["review"]) == 1
    said = capsys.readouterr()
    assert "BaselineError: " in said.err
    assert "\x1b" not in said.err + said.out
    assert snapshot(whole) == before


def test_the_corpus_is_refused_for_what_is_wrong_with_it(attacked: tuple[Project, Path]) -> None:
    """The same file without a lie is approved: it is not something else that stops the others."""
    made, _ = attacked
    made.receive(OWN)
    assert cli.main(["approve", "--all"]) == 0
    assert store.read(made.target(OTHER)) is not None


def test_one_hostile_file_does_not_stop_the_others(attacked: tuple[Project, Path]) -> None:
    made, _ = attacked
    made.receive(OWN)
    made.receive(OTHER, spot(5, 1), says={"target": TARGET})
    kept = made.target(OTHER).read_bytes()
    assert cli.main(["approve", "--all"]) == 1
    found = store.read(made.target(OWN))
    assert found is not None
    assert found.check == OWN
    assert found.raw[5, 5] == found.raw.max()
    assert made.target(OTHER).read_bytes() == kept


def test_a_link_inside_of_rootdir_is_followed(attacked: tuple[Project, Path]) -> None:
    made, _ = attacked
    kept = made.root / "kept"
    made.target(OWN).parent.parent.rename(kept)
    made.target(OWN).parent.parent.symlink_to(kept)
    made.receive(OWN)
    assert cli.main(["approve", "--all"]) == 0
    assert (kept / "test_cats" / "test_reads.png").exists()
