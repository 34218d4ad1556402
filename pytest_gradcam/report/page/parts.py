"""What every page of ours has in common: templates that escape, a policy that lets nothing in, nothing overwritten.

Jinja2 and the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

PAGE: Final = "index.html"
# What tells a file of ours from anybody else's, by its ending; it stands near the beginning.
_OURS: Final = {".html": b'<meta name="generator" content="pytest-gradcam">', ".json": b'"made_by": "pytest-gradcam"'}
_PAGE: Final = "pytest_gradcam.report.page"


def frame(style: str, script: str, early: str) -> dict[str, str]:
    """Style, scripts and policy of a page, for its template.

    Args:
        style: CSS.
        script: what runs at the end of the page.
        early: what runs before anything is drawn.
    """
    return {
        "policy": _policy(style, early, script),
        "style": Markup(style),
        "early": Markup(early),
        "script": Markup(script),
    }


@cache
def environment(package: str = _PAGE) -> Environment:
    """Jinja2 for the templates of a package."""

    def load(name: str) -> str:
        return source(name, package)

    return Environment(
        loader=FunctionLoader(load),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


@cache
def source(name: str, package: str = _PAGE) -> str:
    """A file beside the templates of a package."""
    return (files(package) / "templates" / name).read_text("utf-8").replace("\r\n", "\n")


def refuse_others(path: Path) -> None:
    """Nothing of somebody else's is written over: a folder of a report may be one that holds other things.

    Args:
        path: of a file that is to be written, `.html` or `.json`.

    Raises:
        FileExistsError: what stands there is not ours.
    """
    if not os.path.lexists(path):
        return
    head = b""
    if path.is_file():  # opening a pipe would wait for its other end
        with path.open("rb") as file:
            head = file.read(4096)
    if path.is_symlink() or _OURS[path.suffix] not in head:
        raise FileExistsError(
            None, "what stands there was not written by pytest-gradcam: name another folder", str(path)
        )


def _policy(style: str, *scripts: str) -> str:
    """What a page may do: nothing but show its own pictures, in our style, and run our scripts."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
