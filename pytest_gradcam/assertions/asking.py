"""What every assertion does around its own measurement: settings, images made ready, maps made, verdicts delivered."""

from __future__ import annotations

import hashlib
import inspect
import unittest
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from torch import Tensor

from pytest_gradcam import explanations
from pytest_gradcam.assertions.sharing import Mask, Shared
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import ClassError, GradcamError, ImageError
from pytest_gradcam.images import Prepared, carry_region, prepare
from pytest_gradcam.regions import Region
from pytest_gradcam.report.terminal import failure_text
from pytest_gradcam.settings import Settings
from pytest_gradcam.verdicts import (
    AttentionError,
    InconclusiveError,
    InconclusiveWarning,
    Verdict,
    ZeroEvidenceError,
)

Record = Callable[[Verdict], "str | None"]
# What explanation a list of images may hold at once: images of one size go through the model together.
BATCH = 16

T = TypeVar("T")
Images: TypeAlias = Sequence[object]


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """One assertion being asked.

    Attributes:
        assertion: its name.
        settings: those that hold for it.
        record: who is told of the verdict.
        cache: what is shared with the other tests of the session; None where nothing is.
    """

    assertion: str
    settings: Settings
    record: Record | None = None
    cache: Shared | None = None

    @property
    def options(self) -> Options:
        """How maps are computed."""
        settings = self.settings
        return Options(
            method=settings.method,
            layer=settings.layer,
            engine=settings.engine,
            device=settings.device,
            labels=settings.labels,
            forward=settings.forward,
        )

    def prepare(self, model: object, image: object) -> Prepared:
        """One image made ready for the model."""
        if self.cache is not None:
            return self.cache.prepare(model, image, self.settings.transform)
        return prepare(image, model=model, transform=self.settings.transform)

    def carry(self, region: Region, prepared: Prepared) -> Mask:
        """A region in the input frame."""
        return carry_region(region, prepared) if self.cache is None else self.cache.carry(region, prepared)

    def explain(
        self,
        model: ModelLike,
        prepared: Sequence[Prepared],
        classes: Sequence[ClassLike],
        *,
        options: Options | None = None,
    ) -> list[Explanation]:
        """A map for each image, computed in batches; zero evidence passes.

        Args:
            model: as for `explain`.
            prepared: images of any sizes.
            classes: one for each.
            options: None for those of the settings.
        """
        options = self.options if options is None else options
        found: dict[int, Explanation] = {}
        for chunk in _chunks(prepared):
            with naming(chunk[0] if len(chunk) == 1 and len(prepared) > 1 else None):
                asked = model, [prepared[i] for i in chunk], [classes[i] for i in chunk], options
                compute = partial(explanations.explain_prepared, *asked)
                made = compute() if self.cache is None else self.cache.explain(*asked, compute)
            found.update(zip(chunk, made, strict=True))
        return [found[i] for i in range(len(prepared))]

    def explain_ahead(self, model: ModelLike, images: Sequence[object], classes: Sequence[ClassLike]) -> None:
        """Compute maps in batches for tests that will each ask for one; nothing where nothing is shared.

        Args:
            model: as for `explain`.
            images: of any kind and size.
            classes: one for each.
        """
        if self.cache is None:
            return
        prepared = []
        for i, image in enumerate(images):
            with naming(i):
                prepared.append(self.prepare(model, image))
        alone = replace(self, cache=None)
        self.cache.compute_ahead(
            model,
            prepared,
            classes,
            self.options,
            lambda indices: alone.explain(model, [prepared[i] for i in indices], [classes[i] for i in indices]),
        )

    def with_evidence(self, explanation: Explanation) -> Explanation:
        """The explanation, if there is one.

        Raises:
            ZeroEvidenceError: the map is zero everywhere.
        """
        if explanation.evidence <= 0:
            raise ZeroEvidenceError(
                f"no evidence: nothing at {explanation.layer} ({explanation.method}) speaks for "
                f"{class_name(explanation)}, its score is {explanation.score:.4g}: there is no map to judge. Judge "
                "another class, or see whether the layer's gradient vanishes"
            )
        return explanation

    def deliver(self, verdict: Verdict) -> Verdict:
        """Record the verdict, and return it if it passed.

        Raises:
            AttentionError: it failed, or it is inconclusive and `inconclusive` is `fail`.
            InconclusiveError: it is inconclusive, and `inconclusive` is `error`.
            SkipTest: it is inconclusive, and `inconclusive` is `skip`.
        """
        __tracebackhide__ = True
        on_inconclusive = self.settings.inconclusive
        if verdict.outcome == "inconclusive" and on_inconclusive == "fail":
            verdict = replace(verdict, outcome="failed")
        overlay = None if self.record is None else self.record(verdict)
        if verdict.outcome == "passed":
            return verdict
        if verdict.outcome == "failed":
            raise AttentionError(failure_text(verdict, overlay), verdict)
        if on_inconclusive == "skip":
            raise unittest.SkipTest(verdict.message)
        if on_inconclusive == "warn":
            warnings.warn(verdict.message, InconclusiveWarning, stacklevel=_callers())
            return verdict
        raise InconclusiveError(failure_text(verdict, overlay), verdict)


def _callers() -> int:
    """How many frames of ours lie between `deliver` and whoever asked."""
    level, frame = 1, inspect.currentframe()
    frame = None if frame is None else frame.f_back  # `deliver`
    while frame is not None and frame.f_globals.get("__name__", "").startswith("pytest_gradcam.assertions"):
        level, frame = level + 1, frame.f_back
    return level


def is_list(image: object) -> bool:
    """Whether several images were given: a list or tuple of them, or a batch, (N, C, H, W) with N other than 1."""
    if isinstance(image, Tensor):
        return image.ndim == 4 and image.shape[0] != 1
    if isinstance(image, np.ndarray):
        return image.ndim == 4
    return isinstance(image, list | tuple)


def listed(images: Any) -> list[object]:
    """The images of a list or batch.

    Raises:
        ImageError: there are none.
    """
    found = list(images)
    if not found:
        raise ImageError("there are no images: the list is empty")
    return found


def one_class_each(classes: Any, count: int) -> list[ClassLike]:
    """A class for each of several images; a single one, or None, is that of all.

    Raises:
        ClassError: there is another number of them.
    """
    if isinstance(classes, Tensor | np.ndarray) and classes.ndim:
        classes = classes.tolist()
    if isinstance(classes, list | tuple):
        if len(classes) != count:
            raise ClassError(f"{len(classes)} classes for {count} images: pass one for each image, or one for all")
        return list(classes)
    return [classes] * count


def refuse_copies(prepared: Sequence[Prepared], also: Sequence[object]) -> None:
    """Refuse images that are there twice: an interval over copies claims to know what it does not.

    Args:
        prepared: the images.
        also: for each image, what else is asked of it; the same image may be asked different things.

    Raises:
        ImageError: two of them are the same, and are asked the same.
    """
    seen: dict[tuple[str, str], int] = {}
    for i, (each, asked) in enumerate(zip(prepared, also, strict=True)):
        tensor = each.tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(repr(tensor.shape).encode())
        digest.update(tensor.float().numpy().tobytes())
        key = (digest.hexdigest(), repr(asked))
        if key in seen:
            raise ImageError(
                f"images {seen[key]} and {i} are the same, and are asked the same: copies tell nothing new, and the "
                "interval would pretend that they do. Pass each image once"
            )
        seen[key] = i


@contextmanager
def naming(index: int | None) -> Iterator[None]:
    """Errors of ours that are raised inside say which of several images they are about."""
    try:
        yield
    except GradcamError as error:
        if index is not None and error.args and isinstance(error.args[0], str):
            error.args = (f"image {index}: {error.args[0]}", *error.args[1:])
        raise


def class_name(explanation: Explanation) -> str:
    """`class 3 (cat)`, or `the score` where a callable gave it."""
    if explanation.cls is None:
        return "the score"
    return f"class {explanation.cls}" + (f" ({explanation.label})" if explanation.label is not None else "")


def _chunks(prepared: Sequence[Prepared]) -> Iterator[list[int]]:
    """Indices of images that go through the model together: of one size and type, `BATCH` at most."""
    by_kind: dict[tuple[object, ...], list[int]] = {}
    for i, each in enumerate(prepared):
        by_kind.setdefault((*each.tensor.shape, each.tensor.dtype, each.tensor.device), []).append(i)
    for indices in by_kind.values():
        for start in range(0, len(indices), BATCH):
            yield indices[start : start + BATCH]
