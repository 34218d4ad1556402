"""axe-core from the npm registry, by npm itself, kept in the user's cache: `python -m tests.browser.axe` fetches it."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "4.14.1"
SHA512: Final = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


class AxeMissingError(Exception):
    """axe-core is not there, and cannot be fetched."""


def source() -> str:
    """The script.

    Raises:
        AxeMissingError: npm is missing, the registry does not answer, or what came is not that version.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-gradcam"
    kept = cache / f"axe-core-{VERSION}.tgz"
    if not kept.is_file() or not _is_right(kept):
        _fetch(kept)
    with tarfile.open(kept) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def _fetch(target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise AxeMissingError("npm is missing, which fetches axe-core: apt-get install npm")
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                [npm, "pack", "--silent", f"axe-core@{VERSION}"],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise AxeMissingError(f"npm cannot fetch axe-core {VERSION}: {error}") from None
        came = Path(folder) / f"axe-core-{VERSION}.tgz"
        if not _is_right(came):
            raise AxeMissingError(f"what npm fetched is not axe-core {VERSION}: its digest is another")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(came, target.with_suffix(".part"))
        target.with_suffix(".part").replace(target)


def _is_right(archive: Path) -> bool:
    return base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode("ascii") == SHA512


if __name__ == "__main__":
    print(f"axe-core {VERSION}: {len(source())} characters")
