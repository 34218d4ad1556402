"""Workflow commands of GitHub Actions: failed verdicts as annotations on the lines of their tests. Lines out.

Imports nothing but the standard library: with xdist this runs in a process that has loaded neither torch nor numpy.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.summary import shortfall

Record = Mapping[str, Any]

# Of each kind, GitHub shows as many for a step.
MOST: Final = 10
_LONGEST: Final = 2000  # characters of a message or a title; GitHub takes 4 kB of a message


def annotations(records: Sequence[Record]) -> list[str]:
    """`::error file=…,line=…,title=…::message` for each verdict that failed, `::warning` for each that could not tell.

    At most ten of each, the worst first; where there are more, the tenth says how many. Nothing in a record can begin a
    command or a property of its own.
    https://docs.github.com/actions/reference/workflow-commands-for-github-actions

    Args:
        records: the verdicts of the run, with `failed`, `file` (from the root of the repository) and `line` (from 1);
            the last two may be None.
    """
    failed = [record for record in records if record["failed"] and record["outcome"] != "inconclusive"]
    unsure = [record for record in records if record["outcome"] == "inconclusive"]
    return [*_lines("error", failed, "failed"), *_lines("warning", unsure, "could not tell")]


def _lines(command: str, records: Sequence[Record], what: str) -> list[str]:
    worst = sorted(records, key=lambda record: (-shortfall(record), record["nodeid"]))
    shown = worst if len(worst) <= MOST else worst[: MOST - 1]
    lines = [_line(command, record) for record in shown]
    left = len(worst) - len(shown)
    if left:
        lines.append(f"::{command} title=attention::{left} more verdicts {what}: the log of this step has all of them")
    return lines


def _line(command: str, record: Record) -> str:
    properties = {"file": record.get("file"), "line": record.get("line"), "title": record["nodeid"]}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value is not None)
    message = [record["message"], *(f"{name}: {text}" for name, text in record.get("facts", ()))]
    if record.get("overlay"):
        message.append(f"overlay: {record['overlay']}")
    return f"::{command} {given}::{_data(message)}"


def _property(value: object) -> str:
    return _escaped(_cut(printable(str(value)))).replace(":", "%3A").replace(",", "%2C")


def _data(lines: Sequence[str]) -> str:
    """A message of several lines; what would steer a terminal is spelt out, for the log shows it too."""
    return _escaped(_cut("\n".join(printable(line) for each in lines for line in each.splitlines())))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
