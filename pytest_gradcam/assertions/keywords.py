"""The keywords of the assertions, as types: what a checker sees, and what an error lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pytest_gradcam.explanations import ExplainKeywords

if TYPE_CHECKING:
    from pytest_gradcam.audit.preparing import SliceOf


class SuiteKeywords(ExplainKeywords, total=False):
    """The keywords that all assertions take: how maps are made, and how several images are judged together."""

    judge_by: str
    pass_rate: float
    confidence: float
    inconclusive: str


class AssertKeywords(SuiteKeywords, total=False):
    """The keywords of the assertions on regions, for whoever hands them on."""

    metric: str
    threshold: float | None


class DatasetKeywords(ExplainKeywords, total=False):
    """The further keywords of the assertion on a data set."""

    confidence: float
    inconclusive: str
    images: str | os.PathLike[str] | None
    categories: Mapping[str, int | str] | None
    slices: Sequence[str] | Mapping[str, SliceOf] | None
    bad: Literal["failed", "excluded"]
    batch_size: int
    workers: int | None
    out: str | os.PathLike[str] | None
