"""The page of a report: `index.html`, one file that asks nobody for anything, and `results.json` beside it.

Jinja2 and the standard library only. Everything that a record holds is data: the template escapes it, the policy in
the page's head lets nothing run but our one script, and that script makes no markup from text.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pytest_gradcam.files import make_ignored, write_whole
from pytest_gradcam.report.page.cards import anchors, card_of, shown
from pytest_gradcam.report.page.results import Record, counts, results, worst_first

Keep: TypeAlias = Literal["all", "failed", "none"]

PAGE: Final = "index.html"
RESULTS: Final = "results.json"
MOST: Final = 500  # verdicts on a page, unless more have failed
LEAST_OTHERS: Final = 50  # of those that did not fail, however many did
MOST_BYTES: Final = 19_500_000  # 20 MB, and room for what surrounds the cards
_OURS: Final = {PAGE: b'<meta name="generator" content="pytest-gradcam">', RESULTS: b'"made_by": "pytest-gradcam"'}
_TEMPLATES: Final = files("pytest_gradcam.report.page") / "templates"


@dataclass(frozen=True, slots=True)
class Left:
    """What did not go onto a page.

    Attributes:
        verdicts: how many verdicts are on it no more, by choice or for want of room.
        pictures: of how many that are on it the pictures are not.
    """

    verdicts: int
    pictures: int


def write_page(
    folder: Path,
    records: Sequence[Record],
    *,
    title: str,
    about: Mapping[str, Any],
    keep: Keep = "all",
) -> Path | None:
    """Write the page of a run and its machine-readable twin, each whole or not at all.

    Args:
        folder: where to; one that is made is ignored by git.
        records: of the run's verdicts, in the order of the run: `records.to_record`, and `failed`; where they are known
            also `pictures`, `file`, `line`, `markers`, `model`, `baseline` and `received`.
        title: of the page.
        about: of the run: versions, platform, when it started, how long it took.
        keep: `all`: up to 500, of more all that failed and of the others as many as there is room for, spread evenly
            from the worst to the best; `failed`; or `none`: nothing is written.

    Returns:
        The page's path; None where nothing was written.

    Raises:
        OSError: a file cannot be written, or what stands in its place is none of ours.
    """
    if keep == "none":
        return None
    page = page_of(records, title=title, about=about, keep=keep)
    for name in (PAGE, RESULTS):
        _refuse_others(folder / name)
    make_ignored(folder)
    write_whole(folder / PAGE, page)
    try:
        write_whole(folder / RESULTS, results(records, about))
    except BaseException:
        (folder / RESULTS).unlink(missing_ok=True)  # that of an earlier run would contradict the page
        raise
    return folder / PAGE


def page_of(records: Sequence[Record], *, title: str, about: Mapping[str, Any], keep: Keep = "all") -> bytes:
    """The page, UTF-8; arguments as for `write_page`."""
    names = dict(zip(map(id, records), anchors(records), strict=True))
    ordered = worst_first(records)
    kept = _kept(ordered, keep)
    cards, pictures_left = _fitting([(record, names[id(record)]) for record in kept])
    left = Left(verdicts=len(records) - len(cards), pictures=pictures_left)
    parts = _environment()
    style, script, early = (_source(name) for name in ("page.css", "page.js", "early.js"))
    html = parts.get_template("page.html.j2").render(
        title=shown(title),
        policy=_policy(style, early, script),
        style=Markup(style),
        early=Markup(early),
        script=Markup(script),
        cards=[Markup(card) for card in cards],
        counts=counts(records),
        left=left,
        only_failed=keep == "failed",
        about=list(_rows(about)),
        key=hashlib.sha256("".join(cards).encode()).hexdigest()[:16],
    )
    return html.encode()


def _kept(ordered: Sequence[Record], keep: Keep) -> list[Record]:
    """What goes onto the page, worst first."""
    failed = [record for record in ordered if record["failed"]]
    if keep == "failed":
        return failed
    room = max(MOST - len(failed), LEAST_OTHERS)
    others = [record for record in ordered if not record["failed"]]
    if len(others) > room:
        # Of a long run the plugin keeps not all pictures of what passed: a sample that can be seen says more.
        seen = [record for record in others if record.get("pictures")]
        others = seen if len(seen) >= room else others
        others = [others[place * len(others) // room] for place in range(room)]
    chosen = {id(record) for record in (*failed, *others)}
    return [record for record in ordered if id(record) in chosen]


def _fitting(records: Sequence[tuple[Record, str]]) -> tuple[list[str], int]:
    """The cards that the page has room for, as HTML, and of how many the pictures found none.

    Pictures go first, then cards, each from the end of the list: those of verdicts that passed, the best of them first.
    """
    template = _environment().get_template("card.html.j2")
    cards = [card_of(record, anchor) for record, anchor in records]
    rendered = [template.render(card=card, dropped=False) for card in cards]
    sizes = [len(html.encode()) for html in rendered]
    total, without = sum(sizes), 0
    for place in reversed(range(len(cards))):
        if total <= MOST_BYTES:
            break
        if cards[place].pictures:
            rendered[place] = template.render(card=replace(cards[place], pictures={}, drawn={}), dropped=True)
            total -= sizes[place]
            sizes[place] = len(rendered[place].encode())
            total += sizes[place]
            without += 1
    while total > MOST_BYTES:
        without -= bool(cards[len(rendered) - 1].pictures)
        rendered.pop()
        total -= sizes.pop()
    return rendered, without


def _rows(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, one below the other, those of mappings too."""
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from _rows(value)
        elif value is not None:
            yield shown(name).replace("_", " "), shown(value)


def _refuse_others(path: Path) -> None:
    """Nothing of somebody else's is written over: a folder of a report may be one that holds other things.

    Raises:
        FileExistsError: what stands there is not ours.
    """
    if not os.path.lexists(path):
        return
    head = b""
    if path.is_file():  # opening a pipe would wait for its other end
        with path.open("rb") as file:
            head = file.read(4096)
    if path.is_symlink() or _OURS[path.name] not in head:
        raise FileExistsError(
            None, "what stands there was not written by pytest-gradcam: name another folder", str(path)
        )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


@cache
def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8").replace("\r\n", "\n")


def _policy(style: str, *scripts: str) -> str:
    """What the page may do: nothing but show its own pictures, in our style, and run our scripts."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')}'"
