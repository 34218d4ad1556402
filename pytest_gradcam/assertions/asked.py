"""The images that one comparison of maps is asked of, one or several, and the verdict on them alone or together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_gradcam.assertions.asking import Asking, is_list, listed, naming, one_class_each, refuse_copies
from pytest_gradcam.assertions.together import Claim, Measured, verdict_of_many, verdict_of_one
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import VacuousThresholdError
from pytest_gradcam.images import Prepared
from pytest_gradcam.verdicts import Sight, Verdict, ZeroEvidenceError


@dataclass(frozen=True, slots=True)
class CannotTell:
    """What is measured of an image of which the assertion would say nothing: of several images it is left out.

    Attributes:
        why: a sentence without its full stop, with a mend.
        in_short: what is wrong with its map.
    """

    why: str
    in_short: str


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The images of one assertion, made ready, and the class that is asked for in each.

    Attributes:
        several: whether a list was given, which is judged together.
        prepared: the images.
        classes: one for each.
    """

    several: bool
    prepared: Sequence[Prepared]
    classes: Sequence[ClassLike]

    @classmethod
    def of(cls, asking: Asking, model: object, image: object, classes: object) -> Asked:
        """The images made ready for a model.

        Raises:
            GradcamError: no images, images that cannot be read, or another number of classes.
        """
        several = is_list(image)
        images = listed(image) if several else [image]
        each_class = one_class_each(classes, len(images)) if several else [classes]
        prepared = []
        for i, each in enumerate(images):
            with naming(i if several else None):
                prepared.append(asking.prepare(model, each))
        return cls(several, prepared, each_class)  # type: ignore[arg-type]  # `scores` checks what a class is

    def classes_each(self, classes: object) -> list[ClassLike]:
        """Another class for each image."""
        return one_class_each(classes, len(self.prepared)) if self.several else [classes]  # type: ignore[list-item]  # as above

    def refuse_copies(self, also: Sequence[object] | None = None) -> None:
        """Refuse images that are there twice, and are asked the same.

        Args:
            also: for each image, what is asked of it besides its class.

        Raises:
            ImageError: there are some.
        """
        if self.several:
            questions = also or [None] * len(self.classes)
            asked = [f"{cls} {question}" for cls, question in zip(self.classes, questions, strict=True)]
            refuse_copies(self.prepared, asked)

    def explain(self, asking: Asking, model: ModelLike) -> list[Explanation]:
        """A map for each image."""
        return asking.explain(model, self.prepared, self.classes)

    def judged(
        self,
        asking: Asking,
        claim: Claim,
        measured: Callable[[int], Measured | CannotTell],
        maps: Sequence[Explanation],
        worst: float,
    ) -> Verdict:
        """The verdict: on one image, or on all that can tell, together.

        Args:
            asking: the settings that hold.
            claim: what is claimed.
            measured: index of an image → what was measured of it.
            maps: the maps of the images.
            worst: the value of an image without evidence, where the rate is judged: it counts as failed.

        Raises:
            VacuousThresholdError: no image can tell.
        """
        if not self.several:
            only = measured(0)
            if isinstance(only, CannotTell):
                raise VacuousThresholdError(only.why)
            return verdict_of_one(asking, claim, only)
        found: list[Measured] = []
        left_out: dict[int, CannotTell] = {}
        for i, explanation in enumerate(maps):
            with naming(i):
                try:
                    each = measured(i)
                except ZeroEvidenceError:
                    if asking.settings.judge_by != "rate":
                        raise
                    each = Measured(worst, worst, worst, (Sight(explanation),), has_evidence=False)
            if isinstance(each, CannotTell):
                left_out[i] = each
            else:
                found.append(replace(each, index=i))
        if not found:
            i, first = next(iter(left_out.items()))
            raise VacuousThresholdError(f"none of {len(maps)} images can tell: image {i}: {first.why}")
        if left_out:
            names = ", ".join(str(i) for i in [*left_out][:8]) + (" …" if len(left_out) > 8 else "")
            short = next(iter(left_out.values())).in_short
            fact = f"{len(left_out)} of {len(maps)} images, {short}: image{'s' if len(left_out) > 1 else ''} {names}"
            claim = replace(claim, details=(*claim.details, ("left out", fact)))
        return verdict_of_many(asking, claim, found)


def same_classes(maps: Sequence[Explanation], asked: Sequence[ClassLike]) -> list[ClassLike]:
    """The classes that were explained, for another map of the same; a callable stays what it is."""
    return [each if made.cls is None else made.cls for made, each in zip(maps, asked, strict=True)]
