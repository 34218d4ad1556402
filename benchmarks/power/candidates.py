"""Which map and which rule: candidates for `auto`, judged on the fit seeds by how well they tell plants from clean.

    python -m benchmarks.power.candidates [--at DIR] [--seeds 0,2,4] > candidates.md

Maps are computed here with plain torch, so that methods and fusings that the package does not have can be judged too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks.power.maps import Raws, grids, value
from benchmarks.power.models import CONTRAST, Architecture, inputs
from benchmarks.power.pictures import Picture, draw
from benchmarks.power.train import FOLDER, PLANTS, load, path_of, records, seeds_of

MAPS = 9_003  # series of the pictures that maps are made of
PICTURES = 40
SUITE, DRAWS = 20, 2000
THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
RELIANT = 0.5  # a plant counts where swapping its cue flips at least this share of the predictions
TINY = 1e-30


# Methods: activations and gradients, (N, C, h, w) each, to raw CAMs (N, h, w).


def grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Selvaraju et al., 2017, eq. 1, 2."""
    return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1)


def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """Draelos & Carin, 2020, eq. 8."""
    return (g * a).sum(dim=1)


def grad_cam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Chattopadhay et al., 2018, eq. 19 with the score's exponential taken as the score."""
    below = 2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3
    alpha = g**2 / torch.where(below.abs() > TINY, below, torch.ones_like(below))
    return ((alpha * g.clamp(min=0)).sum(dim=(2, 3), keepdim=True) * a).sum(dim=1)


def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Jiang et al., 2021, eq. 5, 6."""
    return (g.clamp(min=0) * a).sum(dim=1)


def xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Fu et al., 2020, eq. 8."""
    total = a.sum(dim=(2, 3), keepdim=True)
    weights = (g * a).sum(dim=(2, 3), keepdim=True) / torch.where(total.abs() > 1e-8, total, torch.ones_like(total))
    return (weights * a).sum(dim=1)


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Grad-CAM": grad_cam,
    "HiResCAM": hirescam,
    "Grad-CAM++": grad_cam_plus_plus,
    "LayerCAM": layercam,
    "XGrad-CAM": xgrad_cam,
}


# Fusing: raw CAMs of several layers, (L, N, h, w), to one (N, h, w).


def _evidence(raws: Raws) -> Raws:
    total: Raws = np.maximum(np.maximum(raws, 0.0).sum(axis=(2, 3), keepdims=True), TINY)
    return total


def _top(raws: Raws) -> Raws:
    top: Raws = np.maximum(raws.max(axis=(2, 3), keepdims=True), TINY)
    return top


def _size(raws: Raws) -> Raws:
    total: Raws = np.maximum(np.abs(raws).sum(axis=(2, 3), keepdims=True), TINY)
    return total


FUSINGS: dict[str, Callable[[Raws], Raws]] = {
    "mean, signed": lambda raws: raws.mean(axis=0),
    "by evidence, signed": lambda raws: (raws / _evidence(raws)).mean(axis=0),
    "by maximum, signed": lambda raws: (raws / _top(raws)).mean(axis=0),
    "by sum of magnitudes, signed": lambda raws: (raws / _size(raws)).mean(axis=0),
    "mean, ReLU'd": lambda raws: np.maximum(raws, 0).mean(axis=0),
    "by evidence, ReLU'd": lambda raws: np.maximum(raws / _evidence(raws), 0).mean(axis=0),
    "by maximum, ReLU'd": lambda raws: np.maximum(raws / _top(raws), 0).mean(axis=0),
}


def candidates(model: nn.Module, pictures: Sequence[Picture]) -> Iterator[tuple[str, str, Raws]]:
    """(method, layers, raw CAMs) of each candidate."""
    pairs = grids(model, inputs(pictures), [picture.cls for picture in pictures])
    for name, method in METHODS.items():
        raws = np.stack([method(a, g).double().numpy() for a, g in pairs])
        if len(raws) == 1:
            yield name, "last grid", raws[0]
            continue
        for i, raw in enumerate(raws):
            yield name, f"block {i + 1} of {len(raws)}", raw
        for title, fuse in FUSINGS.items():
            yield name, f"all blocks, {title}", fuse(raws)
            yield name, f"last half, {title}", fuse(raws[len(raws) // 2 :])
            yield name, f"but the last, {title}", fuse(raws[:-1])


def pictures_of(architecture: Architecture) -> list[Picture]:
    """Those that maps are made of: every cue agrees, as in a test set from the same source."""
    return [draw(number, seed=MAPS, contrast=CONTRAST[architecture], agree=True) for number in range(PICTURES)]


def auroc(positive: Iterable[float], negative: Iterable[float]) -> float:
    """How often a positive is above a negative, ties counted half."""
    a, b = np.asarray(list(positive)), np.asarray(list(negative))
    return float(stats.mannwhitneyu(a, b).statistic) / (len(a) * len(b))


def judged(values: Raws, wanted: float, random: np.random.Generator, *, inside: bool = True) -> dict[str, float]:
    """Shares of suites of `SUITE` pictures, drawn from one model's values (N,), that each rule passes.

    For `outside`, values and threshold are negated: at most `t` is at least `-t` of the negative.
    """
    sign = 1.0 if inside else -1.0
    known = sign * np.where(np.isnan(values), -sign * 1.0, values)  # no evidence is no pass
    drawn = known[np.argsort(random.random((DRAWS, len(known))), axis=1)[:, :SUITE]]
    mean, error = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / np.sqrt(SUITE)
    at = sign * wanted
    hits = (drawn >= at).sum(axis=1)
    least = stats.beta.ppf(0.05, hits, SUITE - hits + 1)
    least = np.where(hits == 0, 0.0, least)
    return {
        "mean": float(np.mean(mean >= at)),
        "t bound": float(np.mean(mean - stats.t.ppf(0.95, SUITE - 1) * error >= at)),
        "rate .5": float(np.mean(least >= 0.5)),
        "rate .8": float(np.mean(least >= 0.8)),
    }


def measure(folder: Path, architecture: Architecture, seeds: Sequence[int]) -> dict[str, Any]:
    """{candidate: {plant: {seed: {"object": values, "patch": values}}}} over the models that are there."""
    pictures = pictures_of(architecture)
    found: dict[str, Any] = {}
    for plant in PLANTS:
        for seed in seeds:
            if not path_of(folder, architecture, plant, seed).exists():
                continue
            model = load(folder, architecture, plant, seed)
            for method, layers, raws in candidates(model, pictures):
                of_model = found.setdefault(f"{method} | {layers}", {}).setdefault(plant, {}).setdefault(str(seed), {})
                for region in ("object", "patch"):
                    pairs = zip(raws, pictures, strict=True)
                    of_model[region] = [round(value(raw, picture.boxes[region]), 4) for raw, picture in pairs]
    return found


SHORTCUTS = ("patch-0.85", "patch-0.95", "patch-1", "watermark", "texture")


def reliant(folder: Path, architecture: str) -> dict[str, set[str]]:
    """For each shortcut the seeds whose model was seen to rely on it."""
    known = records(folder)
    return {
        plant: {
            str(seed)
            for (arch, name, seed), record in known.items()
            if arch == architecture and name == plant and record[f"flipped by {plant.split('-')[0]}"] >= RELIANT
        }
        for plant in SHORTCUTS
    }


def table(found: dict[str, Any], planted: dict[str, set[str]]) -> str:
    """AUROC of single pictures: clean against each plant, and the smallest of them; then the patch's box."""
    head = ["candidate", *SHORTCUTS, "least", "patch: outside", "clean median", "no evidence"]
    lines = []
    for candidate, plants in found.items():
        clean = {seed: np.array(each["object"]) for seed, each in plants["clean"].items()}
        flat = np.nan_to_num(np.concatenate(list(clean.values())), nan=-9.0)
        cells = []
        for plant in SHORTCUTS:
            chosen = [
                np.array(each["object"]) for seed, each in plants.get(plant, {}).items() if seed in planted[plant]
            ]
            cells.append(auroc(flat, np.nan_to_num(np.concatenate(chosen), nan=-9.0)) if chosen else float("nan"))
        on_patch = [
            np.array(each["patch"])
            for plant in SHORTCUTS[:3]
            for seed, each in plants.get(plant, {}).items()
            if seed in planted[plant]
        ]
        clean_patch = np.concatenate([np.array(each["patch"]) for each in plants["clean"].values()])
        outside = auroc(np.nan_to_num(np.concatenate(on_patch), nan=9.0), np.nan_to_num(clean_patch, nan=9.0))
        silent = np.mean([np.isnan(each["object"]).mean() for of in plants.values() for each in of.values()])
        row = [*cells, float(np.nanmin(cells)), outside, float(np.median(flat)), float(silent)]
        cells_of_row = " | ".join(f"{cell:.3f}" for cell in row)
        lines.append((row[5], f"| {candidate.replace(' | ', ', ')} | {cells_of_row} |"))
    lines.sort(key=lambda each: -each[0])
    title = "| " + " | ".join(head) + " |\n|---" + "|--:" * (len(head) - 1) + "|"
    return "\n".join([title, *(line for _, line in lines)])


def rules(found: dict[str, Any], planted: dict[str, set[str]], chosen: Sequence[str]) -> str:
    """Pass rates of suites, for each candidate chosen, threshold and rule: clean, and each plant."""
    lines = [
        "| candidate | threshold | rule | clean passed | least clean | " + " | ".join(SHORTCUTS) + " | worst |",
        "|---|--:|---|--:|--:" + "|--:" * (len(SHORTCUTS) + 1) + "|",
    ]
    for candidate in chosen:
        for wanted in THRESHOLDS:
            random = np.random.default_rng(0)
            rates: dict[str, list[dict[str, float]]] = {}
            for plant in ("clean", *SHORTCUTS):
                of = found[candidate].get(plant, {})
                rates[plant] = [
                    judged(np.array(each["object"]), wanted, random)
                    for seed, each in of.items()
                    if plant == "clean" or seed in planted[plant]
                ]
            for rule in ("mean", "t bound", "rate .5", "rate .8"):
                means = [np.mean([each[rule] for each in rates[plant]]) if rates[plant] else np.nan for plant in rates]
                worst = max([each[rule] for plant in SHORTCUTS for each in rates[plant]], default=np.nan)
                least = min(each[rule] for each in rates["clean"])
                cells = " | ".join(f"{mean:.3f}" for mean in means[1:])
                lines.append(
                    f"| {candidate.replace(' | ', ', ')} | {wanted} | {rule} | {means[0]:.3f} | {least:.3f} | "
                    f"{cells} | {worst:.3f} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--architectures", default="cnn,vit")
    parser.add_argument("--seeds", default="0,2,4,6,8,10,12,14,16,18", type=seeds_of)
    parser.add_argument(
        "--rules", nargs="*", default=[], help="candidates whose rules are judged, as in the table's rows"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for architecture in arguments.architectures.split(","):
        found = measure(arguments.at, architecture, arguments.seeds)
        (arguments.at / f"candidates-{architecture}.json").write_text(json.dumps(found), encoding="utf-8")
        planted = reliant(arguments.at, architecture)
        asked = {str(seed) for seed in arguments.seeds}
        counts = ", ".join(f"{plant} {len(seeds & asked)}" for plant, seeds in planted.items())
        print(f"\n## {architecture}\n\nModels seen to rely on their cue: {counts}.\n")
        print(table(found, planted))
        print("\n" + rules(found, planted, [each for each in arguments.rules if each in found]))


if __name__ == "__main__":
    main()
