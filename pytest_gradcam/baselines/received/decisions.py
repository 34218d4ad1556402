"""Decisions about received maps as a file, which the page of a report saves and `gradcam approve` takes.

    {"schema": 1, "approved": ["tests/test_cats.py::test_reads[tabby]@ears"], "rejected": []}

`schema` is 1. `approved` and `rejected` are ids of received maps, spelt in full: the node id of the test and, where its
check has a name, `@` and the name. None stands twice; one that stands in neither is left waiting. There are no other
keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_gradcam.baselines.received.foreign import read_at_most
from pytest_gradcam.errors import BaselineError

SCHEMA: Final = 1
MOST_BYTES: Final = 16 * 2**20
_KEYS: Final = ("schema", "approved", "rejected")


@dataclass(frozen=True, slots=True)
class Approvals:
    """What a person has decided.

    Attributes:
        approved: ids of maps that become baselines.
        rejected: ids of maps that are discarded.
    """

    approved: tuple[str, ...]
    rejected: tuple[str, ...]


def read_approvals(path: Path) -> Approvals:
    """The decisions in a file.

    Raises:
        BaselineError: it cannot be read, or holds anything but decisions.
    """
    data = read_at_most(path, MOST_BYTES, "file of approvals")
    try:
        return _approvals(json.loads(data, object_pairs_hook=_once))
    except RecursionError:
        raise BaselineError(f"{path} holds no approvals: its brackets nest without end") from None
    except (TypeError, ValueError) as error:  # no UTF-8, no JSON, or not what we wrote
        raise BaselineError(f"{path} holds no approvals: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _approvals(about: Any) -> Approvals:
    if type(about) is not dict or not {"schema"} <= about.keys():
        raise TypeError(f"it must be an object with the keys {', '.join(_KEYS)}")
    schema = about["schema"]
    if type(schema) is not int or schema < 1:
        raise TypeError(f"its schema {schema!r} is none")
    if schema > SCHEMA:
        raise ValueError(f"it has schema {schema}, and this version reads {SCHEMA}: upgrade pytest-gradcam")
    if about.keys() != set(_KEYS):
        raise TypeError(f"it has the keys {', '.join(map(repr, about))}, and not {', '.join(_KEYS)}")
    approved, rejected = _ids(about["approved"], "approved"), _ids(about["rejected"], "rejected")
    seen: set[str] = set()
    for each in (*approved, *rejected):
        if each in seen:
            raise ValueError(f"the id {each!r} stands in it twice")
        seen.add(each)
    return Approvals(approved, rejected)


def _ids(values: Any, key: str) -> tuple[str, ...]:
    if type(values) is not list or not all(type(each) is str and each for each in values):
        raise TypeError(f"{key!r} must be a list of ids")
    return tuple(values)
