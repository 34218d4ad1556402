"""Occlusion and RISE of one image: the forwards that they need, and their raw CAMs. Formulas: `blackbox.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pytest_gradcam.cam.blackbox import (
    FINENESS,
    MASK_CELLS,
    MASKS,
    mean_colour,
    occluded,
    occlusion,
    occlusion_grid,
    random_masks,
    revealed,
    rise,
    windows,
)
from pytest_gradcam.cam.captured import labels_for
from pytest_gradcam.cam.forwards import Caller, Doubles, Scorer, chunks_of, facts_of_image, read_scores, takes_batches
from pytest_gradcam.cam.found import Found
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.cam.model import logits_of
from pytest_gradcam.cam.progress import progress
from pytest_gradcam.cam.raw import checked, coarsest
from pytest_gradcam.cam.running import Run
from pytest_gradcam.cam.scores import ClassLike, classes_of

# A score that moved by no more than this many steps of its type, as a share of the largest, has not moved.
UNMOVED = 4.0


def of_image(run: Run, classes: Sequence[ClassLike] | None) -> Found:
    """The raw CAMs of one image, for these classes, which share the forwards; all classes for None."""
    output = Caller(run)(run.inputs)
    labels = labels_for(run, output)
    asked = classes_of(output, classes, labels)
    fill = mean_colour(run.inputs)
    score = Scorer(run, asked, one_at_a_time=not takes_batches(run, fill.expand_as(run.inputs)))
    whole = read_scores(output, 1, asked)[0]
    largest = max([float(np.abs(whole).max()), *(_largest(output) if any(isinstance(c, int) for c in asked) else ())])
    rounding = UNMOVED * torch.finfo(coarsest(run, run.inputs)).eps * largest
    name = METHODS[str(run.options.method)].name
    raws = checked(_WAYS[name](run.inputs, fill, score, rounding), {}, "the input")
    return Found(raws, facts_of_image(output, asked), "the input", name, labels, "forwards")


def _largest(output: Any) -> list[float]:
    return [float(logits_of(output).detach().abs().max())]


def _occlusion(image: Tensor, fill: Tensor, score: Scorer, rounding: float) -> Tensor:
    grid = occlusion_grid(int(image.shape[2]), int(image.shape[3]))
    covered = windows(grid)
    whole: dict[int, Doubles] = {}
    falls = []
    for chunk in progress(chunks_of(covered, score.size), -(-len(covered) // score.size), "occlusion"):
        count = len(chunk)
        if count not in whole:  # the image in a batch of the same size, where rounding is the same
            whole[count] = score(image.expand(count, -1, -1, -1))
        falls.append(whole[count] - score(occluded(image, fill, grid, chunk)))
    return occlusion(grid, covered, _moved(np.concatenate(falls), rounding))


def _rise(image: Tensor, fill: Tensor, score: Scorer, rounding: float) -> Tensor:
    height, width = int(image.shape[2]), int(image.shape[3])
    grid = min(height, FINENESS * MASK_CELLS), min(width, FINENESS * MASK_CELLS)
    seen, scores = [], []
    drawn = random_masks(MASKS, height, width)
    chunks = iter(lambda: list(islice(drawn, score.size)), [])
    for masks in progress(chunks, -(-MASKS // score.size), "rise"):
        together = torch.stack(masks)
        scores.append(score(revealed(image, fill, together)))
        seen.append(functional.adaptive_avg_pool2d(together[:, None].double(), grid)[:, 0])
    found = np.concatenate(scores)
    return rise(torch.cat(seen), _moved(found - found.mean(axis=0), rounding))


def _moved(falls: Doubles, rounding: float) -> Doubles:
    return np.where(np.abs(falls) <= rounding, 0.0, falls)


_WAYS = {"occlusion": _occlusion, "rise": _rise}
