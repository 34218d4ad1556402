"""What methods of hundreds of forwards take, beside the peers and beside those forwards: interleaved, one process.

    python -m benchmarks.perturbation [--threads N] [--rounds N] [--only score-cam] [--clock cpu]

Prints a Markdown table: medians of the ratios to the first contender of each task, within a round. The scores of many
inputs, which deletion curves are made of, are measured beside the plain forwards of the same inputs, 32 at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn

from pytest_gradcam import explain
from pytest_gradcam.cam.forwards import score_inputs
from pytest_gradcam.cam.running import Options

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SIDE = 224
BATCH = 32
INPUTS = 64
LAYER = "layer4"

Call = Callable[[], Any]


def prepared() -> tuple[nn.Module, Tensor, int]:
    """ResNet-18 in eval mode with random weights, an image, and its predicted class."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18").eval()
    image = torch.randn(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        return model, image, int(model(image).argmax())


def tasks(model: nn.Module, image: Tensor, cls: int) -> dict[str, dict[str, Call]]:
    """Per task, the contenders; every ratio is to the first."""
    from pytorch_grad_cam import AblationCAM, ScoreCAM as TheirScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import ScoreCAM

    many = torch.randn(INPUTS, 3, SIDE, SIDE)
    layer = model.get_submodule(LAYER)

    def torchcam() -> npt.NDArray[np.float32]:
        with ScoreCAM(model, LAYER, batch_size=BATCH) as extractor, torch.inference_mode():
            model(image)
            return extractor(class_idx=cls)[0][0].numpy()

    def grad_cam(kind: Any) -> Call:
        def call() -> npt.NDArray[np.float32]:
            with contextlib.redirect_stderr(io.StringIO()), kind(model, [layer]) as cam:  # its progress bar
                cam.batch_size = BATCH
                return cam(image, [ClassifierOutputTarget(cls)])[0]

        return call

    def plain() -> None:
        with torch.inference_mode():
            for start in range(0, INPUTS, BATCH):
                model(many[start : start + BATCH])

    return {
        "score-cam": {
            "ours": lambda: explain(model, image, cls, method="score-cam", layer=LAYER).cam,
            "torchcam": torchcam,
            "grad-cam": grad_cam(TheirScoreCAM),
        },
        "ablation-cam": {
            "ours": lambda: explain(model, image, cls, method="ablation-cam", layer=LAYER).cam,
            "grad-cam": grad_cam(AblationCAM),
        },
        "scores of 64 inputs": {
            "plain forwards, 32 at a time": plain,
            "ours": lambda: score_inputs(model, many, cls, Options()),
            "ours, 32 at a time": lambda: score_inputs(model, many, cls, Options(), batch=BATCH),
        },
    }


def measure(contenders: dict[str, Call], rounds: int, clock: str) -> dict[str, tuple[float, float]]:
    """Median ratio to the first contender, and median seconds, of each."""
    now = CLOCKS[clock]
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            gc.collect()
            started = now()
            contenders[name]()
            taken[name].append(now() - started)
    first = next(iter(taken.values()))
    return {
        name: (statistics.median(t / f for t, f in zip(times, first, strict=True)), statistics.median(times))
        for name, times in taken.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perturbation")
    parser.add_argument("--only", action="append", help="task; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    asked = parser.parse_args(arguments)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    print(f"torch {torch.__version__}, threads {torch.get_num_threads()}, {asked.clock}, rounds {asked.rounds}")
    print("| task | contender | ÷ first | seconds |\n|---|---|--:|--:|")
    for task, contenders in tasks(*prepared()).items():
        if asked.only is None or task in asked.only:
            for name, (ratio, seconds) in measure(contenders, asked.rounds, asked.clock).items():
                print(f"| {task} | {name} | {ratio:.2f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
