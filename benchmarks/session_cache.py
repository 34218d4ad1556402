"""What ten assertions on one image cost beside one, in a session that shares its work: interleaved, one process.

    python -m benchmarks.session_cache [--threads N] [--rounds N] [--clock cpu]

One assertion is asked of an image that the session has not seen, by a warm process. The ten differ in metric, threshold
and side. With `one box` they are about one region, with `ten boxes` each is about another, and only the map and the
picture are shared. `alone` is what the same ten cost where nothing is shared. Prints a Markdown table: medians over the
rounds, and the medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18

from pytest_gradcam import AttentionError, GradcamError, Settings
from pytest_gradcam.assertions import Gradcam
from pytest_gradcam.assertions.contents import digest_of_tensors
from pytest_gradcam.assertions.fingerprint import fingerprint
from pytest_gradcam.assertions.sharing import Shared
from pytest_gradcam.settings import METRICS

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LAYER = "layer4"
CLS = 3
TEN = 10
TEN_BOXES = 3  # which image is asked about ten
# In turn, of those that pass: a failure is drawn as text, which would be measured too.
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    *((side, {}) for side in ("in", "out")),
    *((side, {"metric": metric}) for metric in METRICS for side in ("in", "out")),
    *(("in", {"threshold": threshold}) for threshold in (0.05, 0.1, 0.2, 0.3)),
    *(("out", {"threshold": threshold}) for threshold in (0.1, 0.2, 0.4, 0.6)),
)
Question = tuple[Any, ...]
ONE = ("one, sharing", "one, not sharing")
Box = tuple[int, int, int, int]


def boxes(width: int, height: int) -> list[Box]:
    """Boxes of a sixth of the picture, each a little further."""
    x, y = width // 64, height // 64
    sides = 2 * width // 5, 2 * height // 5
    return [((i + 6) * x, (i + 6) * y, (i + 6) * x + sides[0], (i + 6) * y + sides[1]) for i in range(2 * TEN)]


def ask(gradcam: Gradcam, model: Any, image: object, question: Question) -> None:
    """One assertion."""
    box, side, keywords = question
    call = gradcam.assert_attention_in_region if side == "in" else gradcam.assert_attention_outside_region
    call(model, image, box, CLS, layer=LAYER, **keywords)


def ask_all(gradcam: Gradcam, model: Any, image: object, questions: Sequence[Question]) -> None:
    """Several assertions on one image."""
    for question in questions:
        ask(gradcam, model, image, question)


def passing(settings: Settings, model: Any, image: object, found: Sequence[Box]) -> list[Question]:
    """Ten assertions that pass on an image, about one box or about ten."""
    shared, questions = Gradcam(settings, cache=Shared()), list[Question]()
    for side, keywords in [*ASKED, *ASKED]:
        for box in found if len(found) == 1 else found[len(questions) :]:
            with contextlib.suppress(AttentionError, GradcamError):
                ask(shared, model, image, (box, side, keywords))
                questions.append((box, side, keywords))
                break
        if len(questions) == TEN:
            break
    return questions


def seconds(call: Callable[[], object], now: Callable[[], float]) -> float:
    """Time of one call."""
    gc.collect()
    gc.disable()
    started = now()
    call()
    taken = now() - started
    gc.enable()
    return taken


def round_of(
    model: Any, images: Sequence[object], found: Sequence[Box], transform: Any, now: Callable[[], float]
) -> dict[str, float]:
    """Seconds of each contender, each on an image of its own that nobody has asked about."""
    settings = Settings().with_(transform=transform)
    asked = [passing(settings, model, image, found if i == TEN_BOXES else found[:1]) for i, image in enumerate(images)]
    plain, shared = Gradcam(settings), Gradcam(settings, cache=Shared())
    ask(shared, model, images[0], asked[0][0])  # the session is warm, the images are new
    one = seconds(lambda: ask(shared, model, images[1], asked[1][0]), now)
    ten = seconds(lambda: ask_all(shared, model, images[2], asked[2]), now)
    apart = seconds(lambda: ask_all(shared, model, images[TEN_BOXES], asked[TEN_BOXES]), now)
    before = seconds(lambda: ask(plain, model, images[4], asked[4][0]), now)
    alone = seconds(lambda: ask_all(plain, model, images[5], asked[5]), now)
    if any(len(each) != TEN for each in asked[2:4]):
        raise RuntimeError(f"{[len(each) for each in asked]} assertions pass, not ten: choose other boxes")
    return {
        "one, sharing": one,
        "one, not sharing": before,
        "ten, one box": ten,
        "ten, ten boxes": apart,
        "ten, alone": alone,
    }


def pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """Smooth random photographs of 500×375."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (500, 375))
        found.append(folder / f"{seed}-{number}.jpg")
        Image.fromarray(pixels).save(found[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session_cache")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu on a machine that is shared")
    asked = parser.parse_args(arguments)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    now = CLOCKS[asked.clock]
    torch.manual_seed(0)
    model = resnet18().eval()
    transform = ResNet18_Weights.DEFAULT.transforms()
    print(
        f"torch {torch.__version__}, threads {torch.get_num_threads()}, {asked.clock}, rounds {asked.rounds}, "
        "ResNet-18, 224 px"
    )
    tensors = [*model.parameters(), *model.buffers()]
    for name, call in (("contents", lambda: digest_of_tensors(tensors)), ("all of it", lambda: fingerprint(model))):
        taken = [seconds(call, now) for _ in range(15)]
        print(f"reading the model, {name}: {1000 * statistics.median(taken):.2f} ms")
    times: dict[str, list[dict[str, float]]] = {"path": [], "tensor": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(asked.rounds + 1):  # the first warms up
            paths = pictures(Path(name), 6, number)
            inputs = [torch.randn(1, 3, 224, 224) for _ in range(6)]
            rounds = {
                "path": round_of(model, paths, boxes(500, 375), transform, now),
                "tensor": round_of(model, inputs, boxes(224, 224), None, now),
            }
            if number:
                for kind, found in rounds.items():
                    times[kind].append(found)
    print("| image | contender | ms | ÷ one, sharing | ÷ one, not sharing |\n|---|---|--:|--:|--:|")
    for kind, taken_by in times.items():
        for contender in taken_by[0]:
            milliseconds = 1000 * statistics.median(each[contender] for each in taken_by)
            beside = [statistics.median(each[contender] / each[one] for each in taken_by) for one in ONE]
            print(f"| {kind} | {contender} | {milliseconds:.1f} | {beside[0]:.2f} | {beside[1]:.2f} |")


if __name__ == "__main__":
    main()
