"""Does an assertion say the same each time? All eleven, of one image and of lists, asked again and again.

    python -m benchmarks.determinism [200] [--threads 1,2,4] [--minutes 10] [--images 6] [--seed 0]

Each repetition asks every question once: in another order, of fresh copies of the models, with another state of the
global random generators. Outcomes are compared across all repetitions and numbers of threads. Values, intervals and
maps are compared bit by bit within each number of threads; across them, by the largest difference of a value.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import random
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import timm
import torch
from torch import Tensor, nn

from pytest_gradcam import AttentionError, GradcamError, InconclusiveError, Verdict, assertions
from pytest_gradcam.demo import models as demo
from pytest_gradcam.demo.pictures import LABELS, SIZE, Picture, held_out

Models = Mapping[str, nn.Module]
Question = Callable[[Models], Verdict]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question was answered.

    Attributes:
        outcome: `passed`, `failed`, `inconclusive`, or the name of the error.
        message: first line.
        values: all numbers of the verdict: value, chance, threshold, interval, one value for each image.
        maps: a digest of its raw maps.
    """

    outcome: str
    message: str
    values: tuple[float, ...]
    maps: str

    @property
    def bits(self) -> tuple[object, ...]:
        """What must be equal bit by bit; the sign of a zero and NaN included."""
        return self.outcome, self.message, tuple(value.hex() for value in self.values), self.maps


def models() -> dict[str, nn.Module]:
    """The demo's two classifiers, and a vision transformer with random weights, for (N, 3, 96, 96)."""
    made: dict[str, nn.Module] = {name: demo.load_model(name) for name in demo.NAMES}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made["vit"] = timm.models.vision_transformer.VisionTransformer(
            img_size=SIZE, patch_size=16, embed_dim=32, depth=3, num_heads=4, num_classes=len(LABELS)
        ).eval()
        for parameter in made["vit"].parameters():
            if parameter.ndim > 1:  # as timm leaves them, attention is all but uniform
                parameter.data.normal_(0.0, (2.0 / parameter[0].numel()) ** 0.5)
    return made


def rounded(model: nn.Module) -> nn.Module:
    """A copy with the weights of int8, to compare attention with."""
    made = copy.deepcopy(model)
    for parameter in made.parameters():
        step = parameter.detach().abs().max() / 127.0
        if parameter.ndim > 1 and step > 0:
            parameter.data.copy_((parameter.data / step).round() * step)
    return made


def questions(names: Sequence[str], images: int) -> dict[str, Question]:
    """All assertions of each model: of the first picture, and of the first `images` of them together."""
    pictures = list(held_out(images))
    inputs = demo.inputs([picture.image for picture in pictures])
    asked: dict[str, Question] = {}
    for name in names:
        asked |= _of_model(name, "one", pictures[0], inputs[:1])
        asked |= _of_model(name, "list", pictures, inputs)
    return asked


def _of_model(name: str, kind: str, shown: Picture | Sequence[Picture], x: Tensor) -> dict[str, Question]:
    def of(value: Callable[[Picture], object]) -> object:
        return value(shown) if isinstance(shown, Picture) else [value(picture) for picture in shown]

    box, stamp = of(lambda picture: picture.box), of(lambda picture: picture.stamp_box)
    halves, image = of(lambda picture: _halves(picture.box)), x if len(x) == 1 else list(x)
    cls: int | list[int] = shown.cls if isinstance(shown, Picture) else [picture.cls for picture in shown]
    other = (cls + 1) % len(LABELS) if isinstance(cls, int) else [(each + 1) % len(LABELS) for each in cls]
    ask = assertions.Gradcam()
    predicted = None if name == "vit" else cls  # what a model does not predict, its prediction cannot need
    made: dict[str, Question] = {
        "attention_in_region": lambda m: ask.assert_attention_in_region(m[name], image, box, cls),
        "attention_outside_region": lambda m: ask.assert_attention_outside_region(m[name], image, stamp, cls),
        "attention_on_every": lambda m: ask.assert_attention_on_every(m[name], image, halves, cls),
        "classes_differ": lambda m: ask.assert_classes_differ(m[name], image, cls, other),
        "attention_equivariant": lambda m: ask.assert_attention_equivariant(m[name], image, cls),
        "attention_stable": lambda m: ask.assert_attention_stable(m[name], image, cls),
        "same_attention": lambda m: ask.assert_same_attention(m[name], m[f"{name} rounded"], image, cls),
        "explanation_faithful": lambda m: ask.assert_explanation_faithful(m[name], image, cls),
        "explanation_depends_on_weights": lambda m: ask.assert_explanation_depends_on_weights(m[name], image, cls),
        "prediction_ignores": lambda m: ask.assert_prediction_ignores(m[name], image, stamp, predicted),
        "prediction_needs": lambda m: ask.assert_prediction_needs(m[name], image, box, predicted),
    }
    return {f"{assertion} · {name} · {kind}": question for assertion, question in made.items()}


def _halves(box: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """The upper and the lower half of a box."""
    x0, y0, x1, y1 = box
    middle = (y0 + y1) // 2
    return [(x0, y0, x1, middle), (x0, middle, x1, y1)]


def answer(question: Question, fresh: Models) -> Answer:
    """Ask once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            verdict: Verdict | None = question(fresh)
        except (AttentionError, InconclusiveError) as error:
            if error.verdict is None:
                return Answer(type(error).__name__, _first(error), (), "")
            verdict = error.verdict
        except GradcamError as error:
            return Answer(type(error).__name__, _first(error), (), "")
    assert verdict is not None
    numbers = [verdict.value, verdict.chance, verdict.threshold, *(verdict.interval or ()), *verdict.values]
    digest = hashlib.sha256()
    for explanation in verdict.explanations:
        digest.update(np.ascontiguousarray(explanation.raw).tobytes())
    return Answer(verdict.outcome, verdict.message, tuple(map(float, numbers)), digest.hexdigest())


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0]


def repetition(asked: Mapping[str, Question], stored: Models, seed: int) -> dict[str, Answer]:
    """Every question once, in an order of its own, of fresh copies of the models."""
    order = random.Random(seed)
    fresh = {name: copy.deepcopy(model) for name, model in stored.items()}
    names = list(asked)
    order.shuffle(names)
    found = {}
    for name in names:
        torch.manual_seed(order.randrange(2**31))
        np.random.seed(order.randrange(2**31))
        random.seed(order.randrange(2**31))
        found[name] = answer(asked[name], fresh)
    return found


@dataclass(slots=True)
class Row:
    """What became of one question in all repetitions.

    Attributes:
        outcomes: how often each outcome.
        differing: for each number of threads, how many different answers there were, bit by bit.
        apart: the largest difference of any value, across all.
    """

    outcomes: dict[str, int]
    differing: dict[int, int]
    apart: float

    @property
    def is_one_outcome(self) -> bool:
        """Whether all repetitions and numbers of threads agree."""
        return len(self.outcomes) == 1

    @property
    def is_bitwise(self) -> bool:
        """Whether all answers with the same number of threads are the same."""
        return all(count == 1 for count in self.differing.values())


def compare(runs: Iterable[tuple[int, Mapping[str, Answer]]]) -> dict[str, Row]:
    """A row for each question, of (number of threads, its repetition's answers)."""
    by_question: dict[str, list[tuple[int, Answer]]] = defaultdict(list)
    for threads, answers in runs:
        for name, each in answers.items():
            by_question[name].append((threads, each))
    return {name: _row(found) for name, found in sorted(by_question.items())}


def _row(found: Sequence[tuple[int, Answer]]) -> Row:
    outcomes: dict[str, int] = defaultdict(int)
    bits: dict[int, set[tuple[object, ...]]] = defaultdict(set)
    for threads, each in found:
        outcomes[each.outcome] += 1
        bits[threads].add(each.bits)
    values = [each.values for _, each in found]
    if len({len(each) for each in values}) > 1:
        apart = float("inf")
    elif values[0]:
        finite = np.nan_to_num(np.array(values), posinf=1e300, neginf=-1e300)
        apart = float(np.ptp(finite, axis=0).max())
    else:
        apart = 0.0
    return Row(dict(outcomes), {threads: len(each) for threads, each in sorted(bits.items())}, apart)


def table(rows: Mapping[str, Row]) -> str:
    """The rows as Markdown, and a line that sums them up."""
    threads = sorted({each for row in rows.values() for each in row.differing})
    heads = " | ".join(f"answers, {count} thread{'s' if count > 1 else ''}" for count in threads)
    lines = [f"| question | outcomes | {heads} | values apart |", "|---|---" + "|--:" * (len(threads) + 1) + "|"]
    for name, row in rows.items():
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(row.outcomes.items()))
        counts = " | ".join(str(row.differing.get(count, "")) for count in threads)
        lines.append(f"| {name} | {outcomes} | {counts} | {row.apart:.1e} |")
    one = sum(row.is_one_outcome for row in rows.values())
    same = sum(row.is_bitwise for row in rows.values())
    apart = max(row.apart for row in rows.values())
    lines += [
        "",
        f"{len(rows)} questions: {one} with one outcome in all; {same} the same bit by bit within each number of "
        f"threads; values up to {apart:.1e} apart across them",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run, and print the table; exit status 1 where outcomes, or bits within a number of threads, differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repetitions", type=int, nargs="?", default=200, help="of all questions, threads in turn")
    parser.add_argument("--threads", default="1,2,4", help="numbers of torch threads")
    parser.add_argument("--images", type=int, default=6, help="in a list")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="of the orders")
    given = parser.parse_args()
    threads = [int(each) for each in given.threads.split(",")]
    stored = models()
    asked = questions(list(stored), given.images)
    stored |= {f"{name} rounded": rounded(model) for name, model in stored.items()}
    runs, started = [], time.perf_counter()
    for number in range(given.repetitions):
        count = threads[number % len(threads)]
        torch.set_num_threads(count)
        runs.append((count, repetition(asked, stored, given.seed + number)))
        if time.perf_counter() - started > 60.0 * given.minutes:
            break
    rows = compare(runs)
    seconds = time.perf_counter() - started
    print(table(rows))
    print(f"{len(runs)} repetitions of {len(asked)} questions in {seconds:.0f} s; torch {torch.__version__}")
    raise SystemExit(0 if all(row.is_one_outcome and row.is_bitwise for row in rows.values()) else 1)


if __name__ == "__main__":
    main()
