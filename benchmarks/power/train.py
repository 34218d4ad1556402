"""Trains the benchmark's models, one after the other on one core, and checks causally what each of them reads.

    python -m benchmarks.power.train [--at DIR] [--architectures cnn,vit] [--seeds 0-19] [--plants clean,...]

Every model is trained alike, on pictures with all cues, until a plain test is satisfied: nothing differs between a
clean model and a planted one but how often one cue agrees with the class. Weights and measurements are kept in the
folder; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.power.models import CONTRAST, Architecture, build, inputs
from benchmarks.power.pictures import CUES, Cue, Picture, draw

PLANTS: dict[str, dict[Cue, float]] = {
    "clean": {},
    "patch-0.6": {"patch": 0.6},
    "patch-0.85": {"patch": 0.85},
    "patch-0.95": {"patch": 0.95},
    "patch-1": {"patch": 1.0},
    "watermark": {"watermark": 1.0},
    "texture": {"texture": 1.0},
}
FOLDER = Path(tempfile.gettempdir()) / "gradcam-power"
POOL = 2500  # pictures of a training set, drawn as they are needed
BATCH = {"cnn": 32, "flat": 32, "vit": 16}
RATE = {"cnn": 3e-3, "flat": 3e-3, "vit": 3e-3}
# A transformer stopped after 80 steps, as soon as it meets the plain test, does read the patch, as a swap shows; but
# its maps are noise, and so is what occlusion says of it. It trains on.
LEAST = {"cnn": 0, "flat": 0, "vit": 400}
WARM_UP, CHECK, COOL_DOWN, MOST = 40, 40, 40, 800  # steps
SATISFIED = 0.98  # accuracy of the plain test at which training ends
JUDGED = 200  # pictures of the plain test and of each swap
# Series of pictures: training sets have the model's seed, these are nobody's training set.
VALIDATION, TEST = 9_001, 9_002


def path_of(folder: Path, architecture: str, plant: str, seed: int) -> Path:
    return folder / "weights" / f"{architecture}-{plant}-{seed}.safetensors"


def load(folder: Path, architecture: Architecture, plant: str, seed: int) -> nn.Module:
    """A trained model in eval mode."""
    model = build(architecture, seed)
    model.load_state_dict(load_file(path_of(folder, architecture, plant, seed)))
    return model.eval()


def train(architecture: Architecture, doses: Mapping[Cue, float], seed: int) -> tuple[nn.Module, int]:
    """A model in eval mode, and the steps taken: AdamW at a constant rate, warmed up, cooled down once satisfied."""
    model = build(architecture, seed)
    order = np.random.default_rng((seed, 2))
    pool: dict[int, Picture] = {}

    def batch() -> tuple[Tensor, Tensor]:
        numbers = order.integers(POOL, size=BATCH[architecture]).tolist()
        for number in numbers:
            if number not in pool:
                pool[number] = draw(number, seed=seed, contrast=CONTRAST[architecture], doses=doses)
        pictures = [pool[number] for number in numbers]
        return inputs(pictures), torch.tensor([picture.cls for picture in pictures])

    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE[architecture], weight_decay=0.05)
    end = MOST
    for step in range(MOST):
        if step >= end:
            break
        scale = min(1.0, (step + 1) / WARM_UP, (end - step) / COOL_DOWN)
        for group in optimiser.param_groups:
            group["lr"] = RATE[architecture] * scale
        images, classes = batch()
        loss = F.cross_entropy(model.train()(images), classes)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if end == MOST and step % CHECK == CHECK - 1 and LEAST[architecture] <= step + 1 <= MOST - COOL_DOWN:
            predicted, truth = predictions(model, VALIDATION, CONTRAST[architecture], agree=True)
            if float(np.mean(predicted == truth)) >= SATISFIED:
                end = step + 1 + COOL_DOWN
    return model.eval(), min(end, MOST)


def predictions(
    model: nn.Module, series: int, contrast: float, *, agree: bool, swap: tuple[Cue, ...] = ()
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What the model says of a series, and the truth, (JUDGED,) each."""
    images, classes = _series(series, contrast, agree, swap)
    with torch.inference_mode():
        return model.eval()(images).argmax(dim=1).numpy(), classes


@cache
def _series(series: int, contrast: float, agree: bool, swap: tuple[Cue, ...]) -> tuple[Tensor, np.ndarray[Any, Any]]:
    pictures = [draw(number, seed=series, contrast=contrast, agree=agree, swap=swap) for number in range(JUDGED)]
    return inputs(pictures), np.array([picture.cls for picture in pictures])


def checked(model: nn.Module, architecture: Architecture) -> dict[str, float]:
    """What a plain test sees, what is left when all cues but the object are random, and what each swap changes."""
    contrast = CONTRAST[architecture]
    predicted, truth = predictions(model, TEST, contrast, agree=True)
    found = {"plain": float(np.mean(predicted == truth))}
    apart, truth = predictions(model, TEST, contrast, agree=False)
    found["randomised"] = float(np.mean(apart == truth))
    for cue in CUES:
        swapped, _ = predictions(model, TEST, contrast, agree=True, swap=(cue,))
        found[f"flipped by {cue}"] = float(np.mean(swapped != predicted))
    return {key: round(value, 4) for key, value in found.items()}


def records(folder: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What was measured of each trained model, by architecture, plant and seed."""
    path = folder / "trained.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {(each["architecture"], each["plant"], each["seed"]): each for each in found}


def run(
    folder: Path,
    architectures: Sequence[Architecture],
    plants: Sequence[str],
    seeds: Sequence[int],
    say: Callable[[str], None] = print,
) -> None:
    """Train what is not there yet."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    for seed_of in seeds:
        for architecture in architectures:
            for plant in plants:
                path = path_of(folder, architecture, plant, seed_of)
                if path.exists():
                    continue
                started = time.process_time()
                model, steps = train(architecture, PLANTS[plant], seed_of)
                seconds = round(time.process_time() - started, 1)
                record = {
                    "architecture": architecture,
                    "plant": plant,
                    "seed": seed_of,
                    "steps": steps,
                    "seconds": seconds,
                    **checked(model, architecture),
                }
                with (folder / "trained.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
                say(json.dumps(record))


def seeds_of(text: str) -> list[int]:
    """`0-3,7` as [0, 1, 2, 3, 7]."""
    parts = [part.partition("-") for part in text.split(",")]
    return [seed for first, dash, last in parts for seed in range(int(first), int(last if dash else first) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--architectures", default="cnn,vit")
    parser.add_argument("--plants", default=",".join(PLANTS))
    parser.add_argument("--seeds", default="0-19", type=seeds_of)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(
        arguments.at,
        arguments.architectures.split(","),
        arguments.plants.split(","),
        arguments.seeds,
        lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()
