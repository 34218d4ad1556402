"""`Gradcam`: explain and the assertions, bound to settings; what the `gradcam` fixture returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias, Unpack

from torch import Tensor

from pytest_gradcam import explanations
from pytest_gradcam.assertions import attention, checking, maps, reliance, trust
from pytest_gradcam.assertions.asking import Asking, Record, listed, one_class_each
from pytest_gradcam.assertions.dataset import PASS_RATE, DataSet, judge_dataset
from pytest_gradcam.assertions.keywords import AssertKeywords, DatasetKeywords, SuiteKeywords
from pytest_gradcam.assertions.sharing import Shared
from pytest_gradcam.baselines.shelf import Shelf
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.explanations import ClassesLike, ExplainKeywords
from pytest_gradcam.settings import Settings, check_keywords
from pytest_gradcam.verdicts import Verdict

# One class, or one for each of several images.
AskedClass: TypeAlias = ClassLike | ClassesLike


class Gradcam:
    """`explain` and the assertions, bound to settings; what the `gradcam` fixture returns.

    Every keyword of the functions can be given to the methods too, and wins over the settings.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        record: Record | None = None,
        shelf: Shelf | None = None,
        cache: Shared | None = None,
    ) -> None:
        """Bind.

        Args:
            settings: None for the defaults.
            record: called with every verdict, passed or failed, before anything is raised; the text that it returns is
                named in the failure's message as the overlay's path.
            shelf: the baselines of the test that asks; without them there is no `check`.
            cache: what is shared with other tests; None to compute everything anew.
        """
        self.settings = Settings() if settings is None else settings
        self._record = record
        self._shelf = shelf
        self._cache = cache

    def __repr__(self) -> str:
        settings, plain = self.settings, Settings()
        names = [field.name for field in fields(Settings)]
        changed = [name for name in names if getattr(settings, name) != getattr(plain, name)]
        return f"Gradcam({', '.join(f'{name}={getattr(settings, name)!r}' for name in changed)})"

    def explain(
        self, model: ModelLike, image: object, cls: ClassLike = None, **keywords: Unpack[ExplainKeywords]
    ) -> Explanation:
        """As the function `explain`, with these settings."""
        if self._cache is None:
            return explanations.explain(model, image, cls, **self._explain_arguments("explain", keywords))
        asking = self._asking("explain", keywords, ExplainKeywords)
        (explanation,) = asking.explain(model, [asking.prepare(model, image)], [cls])
        return explanations.warned([explanation])[0]

    def prefetch(
        self,
        model: ModelLike,
        images: Tensor | Sequence[object],
        classes: ClassesLike | ClassLike = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> None:
        """Compute the maps of many images in batches, for tests of this session that will each ask for one of them.

        A map of a batch equals that of the image alone up to rounding, about 1e-6 of its largest value. Where nothing
        is shared (no session, or the setting `cache` is off), and for a model that cannot be told from another state of
        itself, nothing is computed.

        Args:
            model: as for `explain`.
            images: a list of images as for `explain`, of any sizes, or a float tensor (N, C, H, W).
            classes: one for each image, or a single one, or None, for all of them; as the tests will ask for them.
            keywords: as for `explain`; those that the tests will have.

        Raises:
            GradcamError: as for `explain`.
        """
        asking = self._asking("prefetch", keywords, ExplainKeywords)
        given = listed(images)
        asking.explain_ahead(model, given, one_class_each(classes, len(given)))

    def explain_batch(
        self,
        model: ModelLike,
        images: Tensor | Sequence[object],
        classes: ClassesLike | ClassLike = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """As the function `explain_batch`, with these settings."""
        arguments = self._explain_arguments("explain_batch", keywords)
        return explanations.explain_batch(model, images, classes, **arguments)

    def explain_classes(
        self,
        model: ModelLike,
        image: object,
        classes: ClassesLike | None = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """As the function `explain_classes`, with these settings."""
        arguments = self._explain_arguments("explain_classes", keywords)
        return explanations.explain_classes(model, image, classes, **arguments)

    def assert_attention_in_region(
        self,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: AskedClass = None,
        **keywords: Unpack[AssertKeywords],
    ) -> Verdict:
        """As the function `assert_attention_in_region`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_attention_in_region", keywords, AssertKeywords)
        return asking.deliver(attention.judge_region(asking, model, image, bbox, cls, inside=True))

    def assert_attention_outside_region(
        self,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: AskedClass = None,
        **keywords: Unpack[AssertKeywords],
    ) -> Verdict:
        """As the function `assert_attention_outside_region`, with these settings."""
        __tracebackhide__ = True
        assertion = "assert_attention_outside_region"
        check_keywords(assertion, keywords, AssertKeywords.__annotations__)
        asked: dict[str, Any] = dict(keywords)
        asked["outside_threshold"] = asked.pop("threshold", None)  # None takes the settings, then the metric's default
        asking = self._asking(assertion, asked, AssertKeywords, own=("outside_threshold",))
        return asking.deliver(attention.judge_region(asking, model, image, bbox, cls, inside=False))

    def assert_attention_on_every(
        self,
        model: ModelLike,
        image: object,
        regions: object,
        cls: AskedClass = None,
        *,
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_attention_on_every`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_attention_on_every", keywords, SuiteKeywords, own=("threshold",))
        return asking.deliver(attention.judge_every(asking, model, image, regions, cls, threshold=threshold))

    def assert_classes_differ(
        self,
        model: ModelLike,
        image: object,
        cls: AskedClass,
        other: AskedClass,
        *,
        similarity: str = "pearson",
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_classes_differ`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_classes_differ", keywords, SuiteKeywords, own=("similarity", "threshold"))
        return asking.deliver(
            maps.judge_classes_differ(asking, model, image, cls, other, similarity=similarity, threshold=threshold)
        )

    def assert_attention_equivariant(
        self,
        model: ModelLike,
        image: object,
        cls: AskedClass = None,
        *,
        under: maps.Under = "hflip",
        similarity: str = "pearson",
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_attention_equivariant`, with these settings."""
        __tracebackhide__ = True
        own = ("under", "similarity", "threshold")
        asking = self._asking("assert_attention_equivariant", keywords, SuiteKeywords, own=own)
        return asking.deliver(
            maps.judge_equivariant(asking, model, image, cls, under=under, similarity=similarity, threshold=threshold)
        )

    def assert_attention_stable(
        self,
        model: ModelLike,
        image: object,
        cls: AskedClass = None,
        *,
        noise: float = maps.NOISE,
        draws: int = maps.DRAWS,
        similarity: str = "pearson",
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_attention_stable`, with these settings."""
        __tracebackhide__ = True
        own = ("noise", "draws", "similarity", "threshold")
        asking = self._asking("assert_attention_stable", keywords, SuiteKeywords, own=own)
        return asking.deliver(
            maps.judge_stable(
                asking, model, image, cls, noise=noise, draws=draws, similarity=similarity, threshold=threshold
            )
        )

    def assert_same_attention(
        self,
        model_a: ModelLike,
        model_b: ModelLike,
        images: object,
        classes: AskedClass = None,
        *,
        similarity: str = "pearson",
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_same_attention`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_same_attention", keywords, SuiteKeywords, own=("similarity", "threshold"))
        return asking.deliver(
            maps.judge_same(asking, model_a, model_b, images, classes, similarity=similarity, threshold=threshold)
        )

    def assert_explanation_faithful(
        self,
        model: ModelLike,
        image: object,
        cls: AskedClass = None,
        *,
        steps: int = trust.STEPS,
        draws: int = trust.DRAWS,
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_explanation_faithful`, with these settings."""
        __tracebackhide__ = True
        own = ("steps", "draws", "threshold")
        asking = self._asking("assert_explanation_faithful", keywords, SuiteKeywords, own=own)
        return asking.deliver(
            trust.judge_faithful(asking, model, image, cls, steps=steps, draws=draws, threshold=threshold)
        )

    def assert_explanation_depends_on_weights(
        self,
        model: ModelLike,
        image: object,
        cls: AskedClass = None,
        *,
        draws: int = trust.RANDOMISATIONS,
        similarity: str = "pearson",
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_explanation_depends_on_weights`, with these settings."""
        __tracebackhide__ = True
        own = ("draws", "similarity", "threshold")
        asking = self._asking("assert_explanation_depends_on_weights", keywords, SuiteKeywords, own=own)
        return asking.deliver(
            trust.judge_depends_on_weights(
                asking, model, image, cls, draws=draws, similarity=similarity, threshold=threshold
            )
        )

    def assert_prediction_ignores(
        self,
        model: ModelLike,
        image: object,
        region: object,
        cls: AskedClass = None,
        *,
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_prediction_ignores`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_prediction_ignores", keywords, SuiteKeywords, own=("threshold",))
        return asking.deliver(reliance.judge_ignores(asking, model, image, region, cls, threshold=threshold))

    def assert_prediction_needs(
        self,
        model: ModelLike,
        image: object,
        region: object,
        cls: AskedClass = None,
        *,
        threshold: float | None = None,
        **keywords: Unpack[SuiteKeywords],
    ) -> Verdict:
        """As the function `assert_prediction_needs`, with these settings."""
        __tracebackhide__ = True
        asking = self._asking("assert_prediction_needs", keywords, SuiteKeywords, own=("threshold",))
        return asking.deliver(reliance.judge_needs(asking, model, image, region, cls, threshold=threshold))

    def assert_dataset_attention(
        self,
        model: ModelLike,
        dataset: object,
        *,
        metric: str | None = None,
        threshold: float | None = None,
        pass_rate: float | None = None,
        **keywords: Unpack[DatasetKeywords],
    ) -> Verdict:
        """As the function `assert_dataset_attention`, with these settings; 0.9 where these name no pass rate."""
        __tracebackhide__ = True
        own = [field.name for field in fields(DataSet) if field.name != "data"]
        known = [*DatasetKeywords.__annotations__, "metric", "threshold", "pass_rate"]
        check_keywords("assert_dataset_attention", keywords, known)
        given: dict[str, Any] = {**keywords, "threshold": threshold} | ({} if metric is None else {"metric": metric})
        data = DataSet(dataset, **{name: given.pop(name) for name in own if name in given})
        asking = self._asking("assert_dataset_attention", given, AssertKeywords)
        named = asking.settings.pass_rate != Settings().pass_rate
        default = asking.settings.pass_rate if named else PASS_RATE
        rate = default if pass_rate is None else pass_rate
        return asking.deliver(judge_dataset(asking, model, data, pass_rate=rate))

    def check(
        self,
        model: ModelLike,
        image: object,
        cls: ClassLike = None,
        *,
        name: str | None = None,
        floor: str | None = None,
        pearson: float | None = None,
        shift: float | None = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> Verdict:
        """The model must go on looking where it looks today: its map against the baseline beside the test.

        The baseline is written by `--gradcam-update=new`, or approved with `gradcam review`.

        Args:
            model: as for `explain`.
            image: as for `explain`; one image.
            cls: as for `explain`.
            name: tells several checks of one test apart.
            floor: how close the map must be: `same_weights` (Pearson ≥ .999: quantising, exporting, another device or
                version) or `retrained` (≥ .90); None for that of the settings.
            pearson: least correlation of the raw CAMs; None for the floor's.
            shift: largest earth mover's distance of the CAMs, in cells of the grid; None for the floor's.
            keywords: as for `explain`.

        Raises:
            AttentionError: the map, or what it is made from, has changed.
            MissingBaselineError: there is no baseline, and the run was not told to write it.
            BaselineError: the baseline cannot be read or written, or two checks would share it.
            GradcamError: as for `explain`.
        """
        __tracebackhide__ = True
        own = ("name", "floor", "pearson", "shift")
        given: dict[str, Any] = {**keywords} if floor is None else {**keywords, "floor": floor}
        check_keywords("check", keywords, [*ExplainKeywords.__annotations__, *own])
        asking = Asking("check", self.settings.with_(**given), self._record, self._cache)
        return asking.deliver(
            checking.judge_check(asking, self._shelf, model, image, cls, name=name, pearson=pearson, shift=shift)
        )

    def _asking(self, assertion: str, keywords: Mapping[str, Any], known: type, own: Sequence[str] = ()) -> Asking:
        """The question, with the settings that hold for it.

        Args:
            assertion: its name.
            keywords: what was given besides the assertion's own keywords.
            known: the TypedDict of what may be given.
            own: the assertion's own keywords, which an error lists too.
        """
        check_keywords(assertion, keywords, [*known.__annotations__, *own])
        given = {name: value for name, value in keywords.items() if value is not None or name not in _NONE_IS_DEFAULT}
        return Asking(assertion, self.settings.with_(**given), self._record, self._cache)

    def _explain_arguments(self, operation: str, keywords: ExplainKeywords) -> ExplainKeywords:
        check_keywords(operation, keywords, ExplainKeywords.__annotations__)
        settings = self.settings.with_(**keywords)
        return {
            "method": settings.method,
            "layer": settings.layer,
            "engine": settings.engine,
            "transform": settings.transform,
            "device": settings.device,
            "labels": settings.labels,
            "forward": settings.forward,
        }


# Given as None, these take the settings, as if they had not been given.
_NONE_IS_DEFAULT = ("threshold", "outside_threshold")
