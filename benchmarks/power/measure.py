"""Measures every plant by every assertion that could find it, suite by suite, and keeps what the verdicts said.

    python -m benchmarks.power.measure [--at DIR] [--seeds 0-19] [--output benchmarks/power/results.json]

Each measure calls the assertion itself, with its defaults, on disjoint suites of pictures of one model. What it asks
for, which suites it passes and what else follows from its numbers is the report's business.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pytest_gradcam
from benchmarks.power.maps import fused
from benchmarks.power.models import CONTRAST, Architecture, inputs
from benchmarks.power.pictures import CLASSES, Cue, Picture, draw
from benchmarks.power.plants import (
    DIFFER,
    EVERY_BLOCK,
    IGNORES,
    IN,
    OUT,
    PLANTS,
    RETRAINED,
    SAME,
    Behind,
    Plant,
    Subject,
)
from benchmarks.power.train import FOLDER, load, records, seeds_of
from pytest_gradcam import AttentionError, InconclusiveError, Verdict

SERIES = 9_004  # of pictures that nothing else was trained on, chosen by or judged on
SUITE = 20
SUITES = 3  # of a held-out model; one of a model that thresholds are fitted on
FEWER = 1  # where each picture takes a map or many forwards of its own
SLOW = (IGNORES, EVERY_BLOCK[OUT], EVERY_BLOCK[SAME])
LEARNT = 0.95  # accuracy with every cue random below which a clean model is none: training is not always lucky
RESULTS = Path(__file__).parent / "results.json"
UNITS = {SAME: 1000, RETRAINED: 1000, EVERY_BLOCK[SAME]: 1000}  # of the values that are kept; 100 of the others
CUE_BOXES: tuple[Cue, ...] = ("patch", "watermark")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What is measured: a subject, what it is compared with, and one suite of pictures on which every cue agrees.

    Attributes:
        subject: as a test meets it.
        before: the same model before anything was broken.
        other: a clean model of another training.
        pictures: of a test set from the same source as the training set.
        cue: the region that must not be read, where there is one.
    """

    subject: Subject
    before: Subject
    other: Subject
    pictures: Sequence[Picture]
    cue: Cue = "patch"

    @property
    def images(self) -> Tensor:
        """Model input, (N, 3, H, W)."""
        return inputs(self.pictures)

    @property
    def classes(self) -> list[int]:
        """The true classes."""
        return [picture.cls for picture in self.pictures]

    @property
    def asked(self) -> list[int]:
        """The classes that the test asks for."""
        return [(cls + self.subject.shift) % CLASSES for cls in self.classes]

    def boxes(self, cue: Cue) -> list[tuple[int, int, int, int]]:
        """Where the cue is, in each picture."""
        return [picture.boxes[cue] for picture in self.pictures]


def _keywords(subject: Subject, **keywords: Any) -> dict[str, Any]:
    """How the subject's map is read, and the keywords of the assertion."""
    distort = subject.distort
    if distort is None:
        return {"layer": subject.layer, **keywords}

    def distorted(model: nn.Module, images: Tensor, target: int) -> Any:
        return distort(pytest_gradcam.explain(model, images, target).raw)

    return {"method": distorted, **keywords}


def in_object(case: Case, **keywords: Any) -> Verdict:
    """The evidence lies in the object's box."""
    asked = case.subject.model, case.images, case.boxes("object"), case.asked
    return pytest_gradcam.assert_attention_in_region(*asked, **_keywords(case.subject, **keywords))


def in_object_by_every_block(case: Case, **keywords: Any) -> Verdict:
    """The same, of a map that is read from every block."""
    asked = case.subject.model, case.images, case.boxes("object"), case.asked
    return pytest_gradcam.assert_attention_in_region(*asked, method=fused, **keywords)


def outside_cue_by_every_block(case: Case, **keywords: Any) -> Verdict:
    """The evidence does not lie in the cue's box, of a map that is read from every block."""
    asked = case.subject.model, case.images, case.boxes(case.cue), case.asked
    return pytest_gradcam.assert_attention_outside_region(*asked, method=fused, **keywords)


def same_as_before_by_every_block(case: Case, **keywords: Any) -> Verdict:
    """The maps are those of the same weights, both read from every block."""
    subject, before = case.subject, case.before.model

    def read(model: nn.Module, images: Tensor, target: int) -> Any:
        if model is before:
            return fused(model, images, target)
        if isinstance(model, Behind):
            images = model.change(images)
            model = model.model
        raw = fused(model, images, (target + subject.shift) % CLASSES, 1 if subject.early else None)
        return raw if subject.distort is None else subject.distort(raw)

    asked = before, subject.model, case.images, case.classes
    return pytest_gradcam.assert_same_attention(*asked, method=read, **keywords)


def outside_cue(case: Case, **keywords: Any) -> Verdict:
    """The evidence does not lie in the cue's box."""
    asked = case.subject.model, case.images, case.boxes(case.cue), case.asked
    return pytest_gradcam.assert_attention_outside_region(*asked, **_keywords(case.subject, **keywords))


def ignores_cue(case: Case, **keywords: Any) -> Verdict:
    """What is predicted stays without the cue's box."""
    return pytest_gradcam.assert_prediction_ignores(case.subject.model, case.images, case.boxes(case.cue), **keywords)


def classes_differ(case: Case, **keywords: Any) -> Verdict:
    """The map of the class is not that of the next."""
    following = [(cls + 1) % CLASSES for cls in case.asked]
    asked = case.subject.model, case.images, case.asked, following
    return pytest_gradcam.assert_classes_differ(*asked, **_keywords(case.subject, **keywords))


def same_as_before(case: Case, **keywords: Any) -> Verdict:
    """The maps are those of the same weights; what the test does amiss, it does to the subject alone."""
    subject, before = case.subject, case.before.model

    def read(model: nn.Module, images: Tensor, target: int) -> Any:
        if model is before:
            return pytest_gradcam.explain(model, images, target).raw
        asked = (target + subject.shift) % CLASSES
        raw = pytest_gradcam.explain(model, images, asked, layer=subject.layer).raw
        return raw if subject.distort is None else subject.distort(raw)

    how: dict[str, Any] = {"method": read} if subject.is_read_amiss else {}
    return pytest_gradcam.assert_same_attention(before, subject.model, case.images, case.classes, **how, **keywords)


def same_as_another(case: Case, **keywords: Any) -> Verdict:
    """The maps are those of a clean model of another training."""
    return pytest_gradcam.assert_same_attention(
        case.other.model, case.subject.model, case.images, case.classes, **keywords
    )


MEASURES: dict[str, Callable[..., Verdict]] = {
    IN: in_object,
    EVERY_BLOCK[IN]: in_object_by_every_block,
    EVERY_BLOCK[OUT]: outside_cue_by_every_block,
    EVERY_BLOCK[SAME]: same_as_before_by_every_block,
    OUT: outside_cue,
    IGNORES: ignores_cue,
    DIFFER: classes_differ,
    SAME: same_as_before,
    RETRAINED: same_as_another,
}


def judged(measure: Callable[..., Verdict], case: Case) -> tuple[str, Verdict | None]:
    """The outcome, `p`, `f` or `i`, and the verdict.

    A picture without any evidence fails the suite, and leaves no verdict; that by the rate then tells what the other
    pictures have.
    """
    try:
        verdict: Verdict | None = measure(case)
    except (AttentionError, InconclusiveError) as error:
        verdict = error.verdict
    if verdict is not None:
        return verdict.outcome[0], verdict
    try:
        return "f", measure(case, judge_by="rate")
    except (AttentionError, InconclusiveError) as error:
        return "f", error.verdict


def measured(name: str, case: Case, suites: int) -> dict[str, Any]:
    """What the verdicts on the suites of one model said.

    `outcomes` has a letter for each suite, `low` and `high` the bounds of each mean, null where there is no mean,
    `values` the value of each picture, in hundredths or of similarities in thousandths, null where there is no map.
    """
    found: dict[str, Any] = {"outcomes": "", "low": [], "high": [], "values": []}
    for i in range(suites):
        suite = replace(case, pictures=case.pictures[i * SUITE : (i + 1) * SUITE])
        outcome, verdict = judged(MEASURES[name], suite)
        found["outcomes"] += outcome
        is_mean = verdict is not None and verdict.metric != "pass_rate"
        low, high = verdict.interval if verdict is not None and verdict.interval and is_mean else (None, None)
        found["low"].append(None if low is None else round(low, 4))
        found["high"].append(None if high is None else round(high, 4))
        if verdict is None:
            found["values"] += [None] * SUITE
            continue
        seen = [sight.explanation.evidence > 0 for sight in verdict.sights] or [True] * len(verdict.values)
        values = zip(verdict.values, seen, strict=True)
        found["values"] += [round(value * UNITS.get(name, 100)) if is_mean or has else None for value, has in values]
        if is_mean:
            found["threshold"] = verdict.threshold
    return found


def partner(seed: int, seeds: Sequence[int]) -> int:
    """The clean training that a seed is compared with: the one before of its half, so that the halves stay apart."""
    half = sorted(each for each in seeds if each % 2 == seed % 2 and each != seed)
    return max((each for each in half if each < seed), default=half[0])


def measures_of(case: Case, plant: Plant, suites: int) -> dict[str, Any]:
    """What each assertion that is meant for the plant said of it, by name."""
    names: dict[str, Case] = dict.fromkeys([*plant.meant, *plant.also], case)
    if plant.is_honest:  # what is honest must keep clear of every cue
        for name in [name for name in names if name in (OUT, IGNORES, EVERY_BLOCK[OUT])]:
            del names[name]
            names.update({f"{name}: {cue}": replace(case, cue=cue) for cue in CUE_BOXES})
    if not hasattr(case.before.model, "blocks"):
        names = {name: each for name, each in names.items() if name.partition(":")[0] not in EVERY_BLOCK.values()}
    found = {}
    for name, each in names.items():
        base = name.partition(":")[0]
        is_slow = base in SLOW or each.subject.distort is not None or (base == SAME and each.subject.is_read_amiss)
        found[name] = measured(base, each, min(suites, FEWER) if is_slow else suites)
    return found


def rows(
    folder: Path, architecture: Architecture, seeds: Sequence[int], done: Collection[tuple[str, str, int]] = ()
) -> Iterator[dict[str, Any]]:
    """A row for each plant and seed that is not done."""
    known = records(folder)
    learnt = {
        seed: known[architecture, "clean", seed]["randomised"] >= LEARNT
        for seed in seeds
        if (architecture, "clean", seed) in known
    }
    clean = {seed: Subject(load(folder, architecture, "clean", seed)) for seed in learnt if learnt[seed]}
    for seed in sorted(learnt.keys() - clean.keys()):
        if (architecture, "clean", seed) not in done:
            yield {"architecture": architecture, "plant": "clean", "seed": seed, "excluded": "never learnt the object"}
    count = SUITE * SUITES
    pictures = [draw(n, seed=SERIES, contrast=CONTRAST[architecture], agree=True) for n in range(count)]
    truth = np.array([picture.cls for picture in pictures])
    for seed in learnt:
        for plant in PLANTS:
            if architecture not in plant.only or (architecture, plant.trained, seed) not in known:
                continue
            if (plant.trained == "clean" and seed not in clean) or (architecture, plant.name, seed) in done:
                continue
            if plant.make is None:
                subject = Subject(load(folder, architecture, plant.trained, seed))
            else:
                subject = plant.make(clean[seed])
            other = clean[partner(seed, list(clean))]
            case = Case(subject, clean.get(seed, other), other, pictures, plant.cue or "patch")
            row: dict[str, Any] = {"architecture": architecture, "plant": plant.name, "seed": seed}
            if plant.make is None:
                record = known[architecture, plant.trained, seed]
                row |= {key: record[key] for key in record if key not in ("architecture", "plant", "seed", "seconds")}
            else:
                with torch.inference_mode():
                    predicted = subject.model(inputs(pictures)).argmax(dim=1).numpy()
                row["plain"] = round(float(np.mean(predicted == truth)), 4)
            if plant.make is None:
                explained = pytest_gradcam.explain(subject.model, inputs(pictures[:1])[0], int(truth[0]))
                row["layer"] = explained.layer  # what `auto` finds
            row["measures"] = measures_of(case, plant, SUITES if seed % 2 else 1)
            yield row


def save(path: Path, found: Sequence[dict[str, Any]], thresholds: dict[str, float]) -> None:
    """Write what is measured so far: the thresholds that the package asked for, and a line for each row."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in found)
    path.write_text(f'{{"thresholds":{json.dumps(thresholds)},\n"rows":[\n{lines}\n]}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--architectures", default="cnn,vit")
    parser.add_argument("--seeds", default="0-19", type=seeds_of)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep what is in the output, and add what is missing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a map without evidence is counted, not announced
    found: list[dict[str, Any]] = []
    thresholds: dict[str, float] = {}
    if arguments.resume and arguments.output.exists():
        kept = json.loads(arguments.output.read_text(encoding="utf-8"))
        found, thresholds = kept["rows"], kept["thresholds"]
    done = {(row["architecture"], row["plant"], row["seed"]) for row in found}
    for architecture in arguments.architectures.split(","):
        for row in rows(arguments.at, architecture, arguments.seeds, done):
            for name, measure in row.get("measures", {}).items():
                wanted = measure.pop("threshold", math.nan)
                if not math.isnan(wanted):
                    thresholds[name.partition(":")[0]] = wanted
            found.append(row)
            save(arguments.output, found, thresholds)
            print(architecture, row["plant"], row["seed"], flush=True)
    save(arguments.output, found, thresholds)


if __name__ == "__main__":
    main()
