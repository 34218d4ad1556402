"""The run as GitHub-flavoured Markdown, for the summary of a step: counts, and a table with the worst first.

All that comes from tests, models and files is data: it is shown as it is, or as code, in which nothing is markup, a
link, a mention or the end of a table's cell. Imports nothing but the standard library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.summary import bar, shortfall, told_apart

Record = Mapping[str, Any]

# GitHub takes a summary of 1 MiB; with texts cut at LONGEST characters, this many rows are far below.
ROWS: Final = 50
LONGEST: Final = 300

_MARKS: Final = {"failed": "❌", "expected": "☑️", "inconclusive": "⚠️", "passed": "✅"}
_ORDER: Final = tuple(_MARKS)
# Prose: letters, digits and marks that neither Markdown, nor GitHub after it, could take for more. Code is all else.
_PROSE: Final = re.compile(r"(?:[^\W_]|[ ,;()=%+'×·–…-]|[.:](?=[ )]|$)|(?<![^\W\d])\.(?=\d)|(?<=\d)/(?=\d))*")


def step_summary(records: Sequence[Record], *, title: str) -> str:
    """Markdown with a headline, a table of at most 50 verdicts, and the baselines that wait to be approved.

    The table of those that failed or could not tell is open, that of the others folded.

    Args:
        records: the verdicts of the run, as `records.recorder` keeps them, with `failed` (whether it counts as failed)
            and `received` (the path of a baseline that waits; None where none does).
        title: of the section.
    """
    ranked = sorted(records, key=lambda record: (_ORDER.index(_kind(record)), -_missing(record), record["nodeid"]))
    loud = [record for record in ranked if _kind(record) in ("failed", "inconclusive")]
    quiet = [record for record in ranked if _kind(record) not in ("failed", "inconclusive")]
    shown, folded = loud[:ROWS], quiet[: max(0, ROWS - len(loud))]
    parts = [f"## {_text(title)}", _headline(ranked)]
    if shown:
        parts.append(_table(shown))
        parts += _more(len(loud) - len(shown))
    if folded:
        rest = "\n\n".join([_table(folded), *_more(len(quiet) - len(folded))])
        parts.append(f"<details><summary>{_counted(quiet)}</summary>\n\n{rest}\n\n</details>")
    waiting = list(dict.fromkeys(str(record["baseline"]) for record in records if record.get("received")))
    if waiting:
        parts.append(_waiting(waiting))
    return "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """A text of any kind as code in a cell of a table: one line, shown as it is, cut in the middle where it is long."""
    return "&#124;".join(_span(part) for part in _cut(printable(text)).split("|"))


def _span(text: str) -> str:
    if not text:
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # Where it begins and ends with a blank, Markdown takes one away on each side.
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text.strip(" ") else f"{fence}{text}{fence}"


def _text(text: str) -> str:
    """A text as prose where nothing in it could be more than prose, else as code."""
    said = _cut(printable(text))
    return said if said == said.strip() and _PROSE.fullmatch(said) else code(text)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[: half - 1]}…{text[len(text) - half :]}"


def _kind(record: Record) -> str:
    if record["outcome"] == "failed" and not record["failed"]:
        return "expected"
    return str(record["outcome"])


def _missing(record: Record) -> float:
    missing = shortfall(record)
    return missing if math.isfinite(missing) else math.inf


def _headline(records: Sequence[Record]) -> str:
    if not records:
        return "nothing was judged"
    return f"{_MARKS[_kind(records[0])]} **{len(records)} judged**: {_counted(records)}"


def _counted(records: Sequence[Record]) -> str:
    kinds = [_kind(record) for record in records]
    said = {"failed": "failed", "expected": "failed as expected", "inconclusive": "inconclusive", "passed": "passed"}
    return ", ".join(f"{kinds.count(kind)} {text}" for kind, text in said.items() if kind in kinds)


def _table(records: Sequence[Record]) -> str:
    return "\n".join(["| | value | | needs | test | |", "|:-:|--:|:--|:--|:--|:--|", *(_row(each) for each in records)])


def _row(record: Record) -> str:
    value, threshold = told_apart(float(record["value"]), float(record["threshold"]))
    drawn = f"`{bar(record)}`" if math.isfinite(float(record["value"])) else ""
    asks = f"{'at most' if record['at_most'] else 'at least'} {threshold}"
    said = _text(record["message"].strip().partition("\n")[0])
    cells = (_MARKS[_kind(record)], value, drawn, asks, code(record.get("baseline") or record["nodeid"]), said)
    return f"| {' | '.join(cells)} |"


def _more(count: int) -> list[str]:
    return [f"… and {count} more"] if count else []


def _waiting(ids: Sequence[str]) -> str:
    one = len(ids) == 1
    lines = [f"**{len(ids)} baseline{'' if one else 's'} wait{'s' if one else ''}** to be looked at: `gradcam review`"]
    lines += [f"- {code(each)}" for each in ids[:ROWS]]
    if len(ids) > ROWS:
        lines.append(f"- … and {len(ids) - ROWS} more")
    return "\n".join([lines[0], "", *lines[1:]])
