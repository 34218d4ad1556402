"""A record as the page shows it: texts, a scale, the command that repeats it. Records in, values for the template out.

Every text is made printable here; the template escapes it. What must stay exact, an id to be approved, is JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.page.results import Category, Record, category, finite, waits
from pytest_gradcam.report.page.scale import Scale, scale_of
from pytest_gradcam.report.summary import told_apart

Rows: TypeAlias = list[tuple[str, str]]

LONGEST: Final = 2_000  # characters of one text: more is in results.json
MOST_FACTS: Final = 60
MOST_VALUES: Final = 100
_LABELS: Final[Mapping[Category, str]] = {
    "failed": "failed",
    "inconclusive": "inconclusive",
    "expected": "expected failure",
    "passed": "passed",
}
_PICTURE: Final = re.compile(r"data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")
_GRID: Final = re.compile(r"\d{1,3} \d{1,3} [A-Za-z0-9+/]+={0,2}")
_OUTLINE: Final = re.compile(r"[MLZ0-9. e+-]*")
PICTURES: Final = ("seen", "overlay", "second", "before", "now", "difference")
_GRIDS: Final = ("grid", "grid_before", "grid_second")

# What is shown where, by the names that records have; what is not named here is shown as it is, under the last head.
_GROUPS: Final = (
    ("Measured", ("metric", "value", "needed", "chance", "interval", "values")),
    ("Region", ("region", "frame", "energy", "region_share", "filled", "peak", "peak_distance")),
    ("Class", ("class", "score", "probability", "predicted", "evidence")),
    ("How", ("model", "layer", "grid", "method", "engine", "device", "seconds")),
    ("Test", ("assertion", "test", "where", "markers", "baseline", "received", "overlay")),
)
_UNITS: Final = {"peak_distance": " px", "seconds": " s"}
_TOLD: Final = frozenset(
    "threshold at_most confidence cls label predicted_label predicted_probability outcome passed failed nodeid message "
    "facts maps pictures folder file line category".split()
)


@dataclass(frozen=True, slots=True)
class Card:
    """One verdict as the template shows it.

    Attributes:
        id: of the element; the same from run to run.
        category: what the verdict counts as.
        label: the same, for a person.
        head: of the test's id, all but its last part.
        tail: its last part.
        message: the first line of what happened.
        value: the measured value.
        asks: what was needed: `needs 0.15`.
        scale: both, drawn; None where one is no number.
        tags: what a person tells verdicts by.
        facts: what the assertion has to say.
        groups: all that is known: a head, and rows of names and texts.
        mapped: whether a map was judged.
        command: what repeats the test.
        pictures: data URIs.
        drawn: of the browser: grids and the outline, as data attributes.
        alts: of each picture, what it shows.
        titles: of the pictures, where they have their own.
        facets: what the page can be filtered by.
        order: what the page can be sorted by.
        baseline: exact id of the baseline that waits, as JSON; empty where none does.
    """

    id: str
    category: Category
    label: str
    head: str
    tail: str
    message: str
    value: str
    asks: str
    scale: Scale | None
    tags: list[str]
    facts: Rows
    groups: list[tuple[str, Rows]]
    mapped: bool
    command: str
    pictures: dict[str, str]
    drawn: dict[str, str]
    alts: dict[str, str]
    titles: list[str]
    facets: dict[str, str]
    order: dict[str, str]
    baseline: str


def card_of(record: Record, anchor: str) -> Card:
    """The card of a record.

    Args:
        record: as `page.write_page` takes them.
        anchor: its id on the page.
    """
    kind = category(record)
    nodeid = str(record["nodeid"])
    head, tail = _split(shown(name_of(record)))
    value, asks = _asked(record)
    pictures = record.get("pictures")
    pictures = pictures if isinstance(pictures, Mapping) else {}
    titles = [shown(title) for title in str(pictures.get("titles") or "").split("\n")[:2]]
    facts = [(shown(name), shown(text)) for name, text in _pairs(record.get("facts"))[:MOST_FACTS]]
    seconds = finite(record.get("seconds"))
    sorted_by = finite(record.get("value"))
    return Card(
        id=anchor,
        category=kind,
        label=_LABELS[kind],
        head=head,
        tail=tail,
        message=shown(record["message"]),
        value=value,
        asks=asks,
        scale=scale_of(record),
        tags=[shown(tag) for tag in _tags(record) if tag],
        facts=facts,
        groups=_groups(record),
        mapped=record.get("grid") is not None,
        command=command(nodeid),
        pictures={name: pictures[name] for name in PICTURES if _fits(_PICTURE, pictures.get(name))},
        drawn=_drawn(pictures),
        alts=_alts(record, titles),
        titles=titles if any(titles) else [],
        facets={
            "assertion": shown(record["assertion"]),
            "model": shown(record.get("model") or ""),
            "markers": json.dumps([shown(marker) for marker in _listed(record.get("markers"))]),
        },
        order={
            "value": "" if sorted_by is None else repr(sorted_by),
            "seconds": "" if seconds is None else repr(seconds),
        },
        baseline=json.dumps(str(record["baseline"])) if waits(record) else "",
    )


def anchors(records: Sequence[Record]) -> list[str]:
    """An id for each record, the same in every run: of the test, and of the how-manieth verdict of it."""
    seen: dict[str, int] = {}
    found = []
    for record in records:
        nodeid = str(record["nodeid"])
        number = seen[nodeid] = seen.get(nodeid, 0) + 1
        digest = hashlib.sha256(f"{number} {nodeid}".encode("utf-8", "surrogatepass")).hexdigest()
        found.append(f"v-{digest[:12]}")
    return found


def shown(value: Any) -> str:
    """Any value as a text that a person may be shown: no character in it steers anything, and it is not too long."""
    text = "" if value is None else str(value)
    rest = len(text) - LONGEST
    if rest > 0:
        text = text[:LONGEST]
    lines = "\n".join(printable(line) for line in text.split("\n"))
    return lines if rest <= 0 else f"{lines} … and {rest} more characters"


def command(nodeid: str) -> str:
    """The command that runs the test again, for a shell; what does not print is spelt out, and does no harm."""
    if nodeid.startswith(("-", "@")):  # would be an option, or a file of options
        nodeid = f"./{nodeid}"
    if nodeid.isprintable():
        return f"pytest {shlex.quote(nodeid)}"
    # What a person pastes must not hold line breaks or the end of a paste: bash, zsh and ksh know `$'…'`.
    spelt = "".join(_in_ansi_c(character) for character in nodeid)
    return f"pytest $'{spelt}'"


def _in_ansi_c(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    try:
        data = character.encode("utf-8", "surrogateescape")  # as Python read the name of a file
    except UnicodeEncodeError:
        data = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)


def name_of(record: Record) -> str:
    """The test's node id, and where it has checks of several names that of this one."""
    return str(record.get("baseline") or record["nodeid"])


def _split(nodeid: str) -> tuple[str, str]:
    """The id before and from its last name on; what stands in brackets belongs to the name."""
    path, separator, names = nodeid.partition("::")
    if not separator:
        return "", path
    name, bracket, parameters = names.partition("[")
    before, colons, last = name.rpartition("::")
    return f"{path}::{before}{colons}", f"{last}{bracket}{parameters}"


def _asked(record: Record) -> tuple[str, str]:
    value, threshold = finite(record.get("value")), finite(record.get("threshold"))
    asks = "allowed" if record.get("at_most") else "needs"
    if value is None or threshold is None:
        return shown(record.get("value", "")), f"{asks} {shown(record.get('threshold', ''))}"
    texts = told_apart(value, threshold)
    return texts[0], f"{asks} {texts[1]}"


def _class(record: Record, index: str, label: str) -> str:
    if record.get(index) is None:
        return ""
    name = record.get(label)
    return f"class {record[index]}" if name is None else f"{name} (class {record[index]})"


def _tags(record: Record) -> list[str]:
    layer = record.get("layer")
    return [_class(record, "cls", "label"), str(record.get("model") or ""), f"layer {layer}" if layer else ""]


def _groups(record: Record) -> list[tuple[str, Rows]]:
    texts = dict(_texts(record))
    groups = [
        (head, [(name.replace("_", " "), texts.pop(name)) for name in names if texts.get(name)])
        for head, names in _GROUPS
    ]
    more = [(shown(name).replace("_", " "), text) for name, text in texts.items() if text]
    return [(head, rows) for head, rows in [*groups, ("More", more)] if rows]


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    """All that a record holds, by the names of `_GROUPS`."""
    threshold = _number(record.get("threshold"))
    yield "needed", f"at most {threshold}" if record.get("at_most") else f"at least {threshold}"
    yield "class", shown(_class(record, "cls", "label"))
    predicted = _class(record, "predicted", "predicted_label")
    if predicted and finite(record.get("predicted_probability")) is not None:
        predicted += f", p = {_number(record['predicted_probability'])}"
    yield "predicted", shown(predicted)
    interval = _listed(record.get("interval"))
    if len(interval) == 2:
        confidence = finite(record.get("confidence"))
        each = "" if confidence is None else f", each bound with {confidence:.0%} confidence"
        low, high = ("no bound" if bound is None else _number(bound) for bound in interval)
        yield "interval", f"{low} to {high}{each}"
    values = _listed(record.get("values"))
    if len(values) > 1:
        rest = len(values) - MOST_VALUES
        listed = ", ".join(_number(each) for each in values[:MOST_VALUES])
        yield "values", listed + (f" … and {rest} more" if rest > 0 else "")
    yield "test", shown(record["nodeid"])
    if record.get("file"):
        line = f":{record['line']}" if record.get("line") is not None else ""
        yield "where", shown(f"{record['file']}{line}")
    yield "markers", shown(", ".join(map(str, _listed(record.get("markers")))))
    for name, sizes, unit in (("grid", "×", ""), ("frame", "×", " (height × width)"), ("peak", ", ", " (x, y)")):
        numbers = _listed(record.get(name))
        if numbers:
            yield name, sizes.join(_number(each) for each in numbers) + unit
    done = {"predicted", "interval", "values", "grid", "frame", "peak", "markers"}
    for name, value in record.items():
        if name not in _TOLD and name not in done and value is not None:
            yield str(name), _number(value) + _UNITS.get(name, "")


def _alts(record: Record, titles: list[str]) -> dict[str, str]:
    """What each picture shows, for who cannot see it."""
    of = _class(record, "cls", "label") or "the score"
    energy, chance, region = finite(record.get("energy")), finite(record.get("region_share")), record.get("region")
    where = ""
    if energy is not None and chance is not None:
        where = f": {energy:.0%} of its mass is in {region}, by chance {chance:.0%} would be"
        distance = finite(record.get("peak_distance"))
        if distance is not None:
            where += f"; its peak lies {f'{distance:.0f} pixels outside' if distance > 0 else 'inside'}"
    outlined = ", with the region outlined" if region else ""
    first, last = [*titles, "", ""][:2]
    return {
        "seen": "What the model saw",
        "cam": shown(f"The map alone, for {of}"),
        "overlay": shown(f"Map of the evidence for {of} over what the model saw{outlined}{where}"),
        "second": shown(f"Map called {last or 'second'} over what the model saw"),
        "before": shown(f"Map called {first or 'baseline'} over what the model saw"),
        "now": shown(f"Map called {last or 'current'} over what the model saw"),
        "difference": "Difference of both maps: orange where evidence was gained, blue where it was lost",
    }


def _drawn(pictures: Mapping[str, Any]) -> dict[str, str]:
    found = {name: pictures[name] for name in _GRIDS if _fits(_GRID, pictures.get(name))}
    if _fits(_OUTLINE, pictures.get("outline")):
        found["outline"] = pictures["outline"]
    return found


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def picture(value: Any) -> str:
    """The data URI of a picture, if it is one; else empty."""
    return value if _fits(_PICTURE, value) else ""


def _number(value: Any) -> str:
    """A number with six digits; anything else as a text."""
    number = finite(value)
    return shown(value) if number is None or isinstance(value, int) else f"{number:.6g}"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return [(each[0], each[1]) for each in _listed(value) if isinstance(each, list | tuple) and len(each) == 2]
