"""The page of a report: `index.html`, one file that asks nobody for anything, and `results.json` beside it.

Jinja2 and the standard library only. Everything that a record holds is data: the template escapes it, the policy in
the page's head lets nothing run but our one script, and that script makes no markup from text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from markupsafe import Markup

from pytest_gradcam.files import make_ignored, write_whole
from pytest_gradcam.report.page.cards import anchors, card_of, shown
from pytest_gradcam.report.page.parts import PAGE, environment, frame, refuse_others, source
from pytest_gradcam.report.page.results import Record, counts, results, worst_first

Keep: TypeAlias = Literal["all", "failed", "none"]

RESULTS: Final = "results.json"
MOST: Final = 500  # verdicts on a page, unless more have failed
LEAST_OTHERS: Final = 50  # of those that did not fail, however many did
MOST_BYTES: Final = 19_500_000  # 20 MB, and room for what surrounds the cards


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
        refuse_others(folder / name)
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
    script = f"{source('theme.js')}\n{source('page.js')}"
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            title=shown(title),
            **frame(source("page.css"), script, source("early.js")),
            cards=[Markup(card) for card in cards],
            counts=counts(records),
            left=left,
            only_failed=keep == "failed",
            about=list(told(about)),
            key=hashlib.sha256("".join(cards).encode()).hexdigest()[:16],
        )
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
    template = environment().get_template("card.html.j2")
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


def told(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, one below the other, those of mappings too."""
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from told(value)
        elif value is not None:
            yield shown(name).replace("_", " "), shown(value)
