"""`audit`: a whole data set explained, measured, written down and judged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import pyarrow as pa
import torch
from torch import nn
from tqdm import tqdm

from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.audit.classes import Categories, classes_of
from pytest_gradcam.audit.compare import earlier
from pytest_gradcam.audit.data.convention import source_of
from pytest_gradcam.audit.data.opening import open_source
from pytest_gradcam.audit.data.sample import DataSetError, Source, Stream
from pytest_gradcam.audit.engines import local
from pytest_gradcam.audit.judging import Bad, Rule, judge
from pytest_gradcam.audit.preparing import Preparer, SliceOf, slices_of
from pytest_gradcam.audit.rechecking import rechecked
from pytest_gradcam.audit.report import AuditReport
from pytest_gradcam.audit.results import columns_of, remarks_of
from pytest_gradcam.audit.said import digest_of, said
from pytest_gradcam.audit.store import Folder
from pytest_gradcam.audit.work import TRIED, Work
from pytest_gradcam.audit.worst import looking
from pytest_gradcam.audit.writing import report_of
from pytest_gradcam.cam.running import LayerLike, MethodLike, ModelLike
from pytest_gradcam.errors import SettingsError, TransformError, said_by
from pytest_gradcam.explanations import ForwardLike
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.settings import Settings
from pytest_gradcam.transforms import Transform, declared_transform

ENGINES: Final = ("local", "ray")
BATCH_SIZE: Final = 32
FOLDER: Final = "gradcam-audit"


class AuditKeywords(TypedDict, total=False):
    """The keywords of `explain` that an audit takes; maps come from the hooks engine."""

    method: MethodLike
    layer: LayerLike
    transform: Transform | None
    device: str | torch.device
    labels: Sequence[str] | None
    forward: ForwardLike | None


def audit(
    model: ModelLike,
    dataset: object,
    *,
    metrics: Sequence[str] = ("calibrated_energy",),
    slices: Sequence[str] | Mapping[str, SliceOf] | None = None,
    batch_size: int = BATCH_SIZE,
    baseline: str | os.PathLike[str] | AuditReport | None = None,
    threshold: float | None = None,
    pass_rate: float = 0.9,
    confidence: float = 0.95,
    bad: Bad = "failed",
    images: str | os.PathLike[str] | None = None,
    categories: Categories | None = None,
    out: str | os.PathLike[str] = FOLDER,
    workers: int | None = None,
    engine: str = "local",
    cluster: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **explain: Unpack[AuditKeywords],
) -> AuditReport:
    """Where a model looks, over a whole data set: every image explained, measured, written down; and judged together.

    Rows are written as they come, and memory does not grow with the number of images. Called again with the same
    folder after it was killed, it goes on where it was; each image is counted once.

    Args:
        model: as for `explain`.
        dataset: a `torch.utils.data.Dataset` or iterable of `(image, target)` as torchvision's v2 transforms have them
            (`boxes`, `masks`, `labels`, in pixels of the image that is given); or a path: COCO's JSON, Pascal VOC's
            folder, a CSV file with boxes, a folder of images and masks.
        metrics: names of metrics; the first is judged.
        slices: what else is judged, each of its texts by itself: names of what the data set says of its images, or
            `class`; or for each name a callable, `Sample` → text, True, False or None.
        batch_size: images that go through the model together.
        baseline: an earlier audit of the same images, or its folder, to compare with.
        threshold: least value of an image that passes; None for the metric's default (calibrated energy: 0.15).
        pass_rate: least share of the images that must pass.
        confidence: of the decisions, corrected for how many there are (Holm).
        bad: what becomes of an image without a measurement: it counts as `failed`, or it is `excluded`.
        images: folder of the images, where the data set is a path and they are elsewhere.
        categories: for each category of the data set the model's class, where names and numbers do not tell.
        out: folder of the results, made where it is missing.
        workers: processes that load images; None: none on a CPU, where they would take it from the model, else 8.
        engine: `local`, or `ray`: the actors of a cluster.
        cluster: of the ray engine: `address`, `actors`, `gpus` (of each actor), `cpus` (likewise).
        progress: whether a bar is shown; None: on a terminal.
        explain: `method`, `layer`, `transform`, `device`, `labels`, `forward`, as for `explain`.

    Raises:
        DataSetError: the data set cannot be read.
        SettingsError: a value that is not served, or no image that counts.
        AuditError: the folder holds something else, or an audit of something else.
        GradcamError: as for `explain`, where no image can be explained.
        OSError: the results cannot be written.
    """
    report, _ = audited(
        model,
        dataset,
        explain,
        metrics=metrics,
        slices=slices,
        batch_size=batch_size,
        baseline=baseline,
        threshold=threshold,
        pass_rate=pass_rate,
        confidence=confidence,
        bad=bad,
        images=images,
        categories=categories,
        out=out,
        workers=workers,
        engine=engine,
        cluster=cluster,
        progress=progress,
    )
    return report


def audited(
    model: ModelLike,
    dataset: object,
    explain: Mapping[str, Any],
    *,
    metrics: Sequence[str],
    slices: Sequence[str] | Mapping[str, SliceOf] | None,
    batch_size: int,
    baseline: str | os.PathLike[str] | AuditReport | None,
    threshold: float | None,
    pass_rate: float,
    confidence: float,
    bad: Bad,
    images: str | os.PathLike[str] | None,
    categories: Categories | None,
    out: str | os.PathLike[str],
    workers: int | None,
    engine: str,
    cluster: Mapping[str, Any] | None,
    progress: bool | None,
    is_written: bool = True,
) -> tuple[AuditReport, Work]:
    """As `audit`, with the work, which can look at an image again; the page is written if that is asked."""
    rule, names, settings = _checked(metrics, threshold, pass_rate, confidence, bad, batch_size, engine, explain)
    source = _opened(dataset, images)
    work = _work(source, model, settings, names, slices, batch_size, categories)
    folder = Folder(Path(out))
    if baseline is not None:
        earlier(baseline, rule.metric, folder.path)  # before an hour's work is done for it
    with folder.taken():
        folder.begin(_asked(work))
        _compute(work, folder, workers, engine, cluster or {}, progress)
        folder.tell(_about(work, settings, folder))
        named = list(dict.fromkeys(slices or ()))
        judged = judge(columns_of(folder.results, rule.metric, named), rule, named)
        if is_written:
            report = report_of(folder.path, judged, baseline, looking(work.source, work.preparer))
        else:
            report = AuditReport(folder.path, judged, about=folder.about() or {})
        folder.clear()  # all is written: what is asked again is computed again
        return report, work


def _checked(
    metrics: Sequence[str],
    threshold: float | None,
    pass_rate: float,
    confidence: float,
    bad: Bad,
    batch_size: int,
    engine: str,
    explain: Mapping[str, Any],
) -> tuple[Rule, tuple[str, ...], Settings]:
    """What was asked, once it was seen to be served.

    Raises:
        SettingsError: it is not.
    """
    if isinstance(metrics, str) or not metrics:
        raise SettingsError(f"metrics is {metrics!r}: pass one name or more, in a list")
    for name in metrics:
        if name not in METRICS:
            raise SettingsError(f"unknown metric {name!r}: the metrics are {', '.join(METRICS)}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise SettingsError(f"batch_size is {batch_size!r}: give a whole number, 1 or more")
    if engine not in ENGINES:
        raise SettingsError(f"unknown engine {engine!r}: the engines are {', '.join(ENGINES)}")
    rule = Rule(metrics[0], threshold, pass_rate, confidence, bad)
    return rule, tuple(dict.fromkeys(metrics)), Settings().with_(**explain)


def _opened(dataset: object, images: str | os.PathLike[str] | None) -> Source | Stream:
    if isinstance(dataset, str | os.PathLike):
        return open_source(Path(dataset), None if images is None else Path(images))
    if images is not None:
        raise SettingsError("images is the folder of a data set that is a path, and the data set is none")
    return source_of(dataset)


def _work(
    source: Source | Stream,
    model: ModelLike,
    settings: Settings,
    metrics: tuple[str, ...],
    slices: Sequence[str] | Mapping[str, SliceOf] | None,
    batch_size: int,
    categories: Categories | None,
) -> Work:
    transform, why = _transform(model, settings.transform)
    preparer = Preparer(transform, why, None, slices_of(slices))
    options = Asking("audit", settings).options
    if source.categories is not None:
        if not isinstance(source, Source):
            raise SettingsError("a stream with categories is not served: give it class indices of the model")
        inputs = _some_input(source, preparer)
        classes, labels = classes_of(source.categories, categories, model, inputs, options)
        preparer.classes = classes
        options = options if labels is None else replace(options, labels=labels)
    elif categories is not None:
        raise SettingsError("categories is given, and the data set has none: its class indices are the model's")
    return Work(source, preparer, model, options, metrics, batch_size)


def _transform(model: object, given: Transform | None) -> tuple[Transform | None, str]:
    """The transform of pictures, or why there is none: model input needs none."""
    if given is not None:
        return given, ""
    try:
        return declared_transform(model), ""
    except TransformError as error:
        return None, said_by(error)


def _some_input(source: Source, preparer: Preparer) -> torch.Tensor:
    """The first image that can be read, as model input.

    Raises:
        DataSetError: there is none among the first hundred.
    """
    first: Exception | None = None
    for index in range(min(len(source), TRIED)):
        try:
            return preparer.prepared(source[index].image).tensor
        except Exception as error:  # of ours, of PIL, or of the user's transform; each will be a row
            if isinstance(error, TransformError):
                raise
            first = error if first is None else first
    said = "it has no images" if first is None else f"the first of them: {said_by(first)}"
    raise DataSetError(f"no image of the data set can be read: {said}") from first


def _compute(
    work: Work, folder: Folder, workers: int | None, engine: str, cluster: Mapping[str, Any], progress: bool | None
) -> None:
    """Compute what is missing, and make the results of it."""
    done = folder.done()
    if done:
        work = rechecked(work, folder, done)
    made: dict[int, range] = {}
    if isinstance(work.source, Source):
        made = {number: work.indices(number) for number in work.parts()}
        missing = [number for number in made if number not in done]
        had = sum(len(made[number]) for number in made if number in done)
        if engine == "ray":
            from pytest_gradcam.audit.engines.ray import compute  # an extra of its own

            parts: Iterator[tuple[int, pa.Table | None, int]] = compute(work, missing, **cluster)
        else:
            parts = local.compute(work, missing, _workers(work, workers))
        with _bar(len(work.source), had, progress) as bar:
            for number, rows, count in parts:
                _keep(folder, number, rows)
                bar.update(count)
    else:
        if engine != "local":
            raise SettingsError(
                "a stream is gone through from its beginning, on one machine: pass a data set with a length"
            )
        first = 0
        with _bar(None, 0, progress) as bar:
            for number, rows, count in local.stream(work, done):
                made[number] = range(first, first + count)
                first += count
                _keep(folder, number, rows)
                bar.update(count)
    if not made:
        raise DataSetError("the data set has no images")
    folder.finish(made, work.metrics)


def _keep(folder: Folder, number: int, rows: pa.Table | None) -> None:
    if rows is not None:
        folder.keep(number, rows)


def _workers(work: Work, workers: int | None) -> int:
    if workers is not None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise SettingsError(f"workers is {workers!r}: give how many processes load images, 0 or more")
        return workers
    device = str(work.options.device)
    uses_accelerator = torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()
    return min(8, os.cpu_count() or 1) if device != "cpu" and uses_accelerator else 0


@contextmanager
def _bar(count: int | None, done: int, progress: bool | None) -> Iterator[tqdm]:
    hidden = None if progress is None else not progress
    with tqdm(total=count, initial=done, unit=" images", desc="audit", disable=hidden, leave=False) as bar:
        yield bar


def _asked(work: Work) -> dict[str, Any]:
    """All that the rows depend on."""
    options = work.options
    return {
        "data set": work.source.fingerprint,
        "images": len(work.source) if isinstance(work.source, Source) else None,
        "model": digest_of(work.model),
        "method": said(options.method),
        "layer": _layer(work.model, options.layer),
        "forward": said(options.forward),
        "transform": None if work.preparer.transform is None else said(work.preparer.transform),
        "labels": None if options.labels is None else list(options.labels),
        "classes": None if work.preparer.classes is None else list(work.preparer.classes),
        "metrics": sorted(work.metrics),
        "slices": {name: said(made) for name, made in sorted(work.preparer.slices.items())},
        "batch size": work.batch_size,
    }


def _layer(model: ModelLike, layer: LayerLike) -> Any:
    """A layer by its name, where it is a module of the model."""
    if isinstance(layer, nn.Module) and isinstance(model, nn.Module):
        names = [name for name, module in model.named_modules() if module is layer]
        return names[0] if names else said(layer)
    if isinstance(layer, list | tuple):
        return [_layer(model, each) for each in layer]
    return layer


def _about(work: Work, settings: Settings, folder: Folder) -> dict[str, Any]:
    return {
        "remarks": [*getattr(work.source, "remarks", ()), *remarks_of(folder.results)],
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "device": str(settings.device),
    }
