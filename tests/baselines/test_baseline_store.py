"""Baselines on the disk: what is no plain file is refused at once, and nothing that is not ours is removed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.format import MOST_BYTES, Received, dumps
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.report.overlay import _marked_png
from tests.baselines.made import baseline, same

PICTURE = _marked_png(np.zeros((4, 4, 3), np.uint8))
posix = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and modes are those of POSIX")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def bound_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # its path may have few characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@posix
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (folder, "is no baseline: it is no plain file"),
        (pipe, "is no baseline: it is no plain file"),
        (device, "is no baseline: it is no plain file"),
        (link_to_itself, "cannot be read: Too many levels of symbolic links"),
        (bound_socket, "cannot be read: No such device or address"),
        (too_large, f"is no baseline: it has {MOST_BYTES + 1} bytes, more than any baseline"),
    ],
)
def test_what_is_no_plain_file_is_refused_at_once(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make(path)
    open_before = os.listdir("/dev/fd")
    for read in (store.read, store.read_bytes, store.read_received):
        began = time.monotonic()
        with pytest.raises(BaselineError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert time.monotonic() - began < 5
    assert len(os.listdir("/dev/fd")) == len(open_before)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    store.write(path, baseline())
    path.chmod(0)
    with pytest.raises(BaselineError, match="cannot be read: Permission denied"):
        store.read(path)


def test_an_error_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    store.write(tmp_path / "a.safetensors", baseline())
    for name in ("open", "fstat", "fdopen"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            with pytest.raises(BaselineError, match="cannot be read: Input/output error"):
                store.read(tmp_path / "a.safetensors")


def test_a_name_longer_than_the_file_system_allows(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="cannot be read"):
        store.read(tmp_path / ("x" * 300))
    with pytest.raises(BaselineError, match="cannot be written"):
        store.write(tmp_path / ("x" * 300), baseline())


def test_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "a.safetensors", tmp_path / "folder/a.safetensors", tmp_path / "file/a.safetensors"):
        assert store.read(path) is None
        assert store.read_bytes(path) is None
        with pytest.raises(BaselineError, match="there is no "):
            store.read_received(path)


def test_what_was_written_is_read_also_through_a_link(tmp_path: Path) -> None:
    data = store.write(tmp_path / "a/b/c.safetensors", baseline())
    assert data == dumps(baseline()) == store.read_bytes(tmp_path / "a/b/c.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "a/b/c.safetensors")
    for path in (tmp_path / "a/b/c.safetensors", tmp_path / "link"):
        found = store.read(path)
        assert found is not None and same(found, baseline())
    received = Received("a", "b", "", False)
    store.write(tmp_path / "r", baseline(), received)
    assert store.read_received(tmp_path / "r")[1] == received


def test_broken_bytes_name_the_file_and_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"<<<<<<< HEAD\n")
    with pytest.raises(BaselineError) as caught:
        store.read(path)
    assert str(caught.value) == (
        f"{path} cannot be used: it holds the marks of a merge conflict: take one side whole, with `git checkout`. "
        "Nothing was changed: restore it, or remove it and write it anew with --gradcam-update=new"
    )
    assert path.read_bytes() == b"<<<<<<< HEAD\n"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.safetensors"
    store.write(path, baseline())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BaselineError) as caught:
        store.write(path, baseline(1))
    assert (
        str(caught.value) == f"{path} cannot be written: No space left on device; what was there before is there still"
    )
    assert path.read_bytes() == dumps(baseline())
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with pytest.raises(BaselineError, match="cannot be written: "):
        store.write(path / "below", baseline())


def test_what_is_listed(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a/z.safetensors", "a/deep/er/x.safetensors", "a/notes.txt", "a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "in/folder.safetensors").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.safetensors").write_bytes(b"")
    (tmp_path / "in/link.safetensors").symlink_to(tmp_path / "out/x.safetensors")
    (tmp_path / "in/linked").symlink_to(tmp_path / "out")
    (tmp_path / "in/around").symlink_to(tmp_path / "in")
    names = [path.relative_to(tmp_path / "in").as_posix() for path in store.listed(tmp_path / "in")]
    assert names == ["a/deep/er/x.safetensors", "a/z.safetensors", "b.safetensors"]
    assert store.listed(tmp_path / "nowhere") == store.listed(tmp_path / "a.png") == []


class TestRemoving:
    def test_the_baseline_its_picture_and_its_folders_once_they_are_empty(self, tmp_path: Path) -> None:
        one, other = (tmp_path / "__gradcam__/test_a" / f"{name}.safetensors" for name in ("test_x[0.5]", "test_y"))
        for path in (one, other):
            store.write(path, baseline())
        (one.parent / "test_x[0.5].png").write_bytes(PICTURE)
        store.remove(one)
        assert os.listdir(one.parent) == ["test_y.safetensors"]
        store.remove(other)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("kind", ["of somebody else's", "a link", "a folder", "text"])
    def test_a_picture_that_is_not_ours_stays(self, kind: str, tmp_path: Path) -> None:
        path, picture = tmp_path / "m/test_x.safetensors", tmp_path / "m/test_x.png"
        store.write(path, baseline())
        if kind == "of somebody else's":
            Image.new("RGB", (4, 4)).save(picture)
        elif kind == "a link":
            (tmp_path / "ours.png").write_bytes(PICTURE)
            picture.symlink_to(tmp_path / "ours.png")
        elif kind == "a folder":
            picture.mkdir()
        else:
            picture.write_bytes(b"pytest-gradcam")
        store.remove(path)
        assert os.listdir(tmp_path / "m") == ["test_x.png"]

    def test_what_is_gone_already(self, tmp_path: Path) -> None:
        store.remove(tmp_path / "a/b/c.safetensors")
        assert tmp_path.exists()

    def test_what_cannot_be_removed(self, tmp_path: Path) -> None:
        (tmp_path / "m/a.safetensors").mkdir(parents=True)
        with pytest.raises(BaselineError, match=r"a.safetensors cannot be removed: "):
            store.remove(tmp_path / "m/a.safetensors")


def test_cleaning_takes_drafts_of_the_folder_and_below_and_nothing_through_links(tmp_path: Path) -> None:
    for name in ("in", "in/a", "in/a/b", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".gradcam-0123.tmp").write_bytes(b"half")
        (tmp_path / name / "x.safetensors").write_bytes(b"whole")
    (tmp_path / "in/linked").symlink_to(tmp_path / "out")
    store.clean(tmp_path / "in")
    store.clean(tmp_path / "nowhere")
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [
        "in/a/b/x.safetensors",
        "in/a/x.safetensors",
        "in/x.safetensors",
        "out/.gradcam-0123.tmp",
        "out/x.safetensors",
    ]
