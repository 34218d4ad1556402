"""Tests of paired measurements: whether something changed, and which way. Numbers in, p-values out."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pytest_gradcam.statistics import rate_p

EXACT: Final = 50  # differences: of more, the sum of ranks is as good as normal


def signed_rank(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Two-sided p of Wilcoxon's signed-rank test, and which way the differences lean: below 0, above, or 0.

    What did not change says nothing, and is left out; of up to 50 others the p-value is exact, whatever is tied, and
    infinite differences are the largest.

    F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945) 80-83.

    Args:
        differences: (n,), not NaN.
    """
    changed = differences[differences != 0]
    if changed.size == 0:
        return 1.0, 0.0
    ranks = rankdata(np.abs(changed))
    positive, total = float(ranks[changed > 0].sum()), float(ranks.sum())
    lean = 2.0 * positive - total
    if changed.size > EXACT:
        z = abs(lean) / math.sqrt(float(np.square(ranks).sum()))
        return math.erfc(z / math.sqrt(2.0)), lean
    # The chance of each sum of ranks, doubled so that tied ones are whole, over all signs that the ranks can have.
    steps = np.rint(2.0 * ranks).astype(int)
    chances = np.zeros(int(steps.sum()) + 1)
    chances[0] = 1.0
    for step in steps.tolist():
        chances = 0.5 * chances + 0.5 * np.concatenate([np.zeros(step), chances[:-step]])
    place = round(2.0 * positive)
    return min(1.0, 2.0 * float(min(chances[: place + 1].sum(), chances[place:].sum()))), lean


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of as many changes one way and the other, where each is as likely (McNemar, 1947; exact).

    Args:
        lost: changes one way.
        gained: changes the other way.
    """
    return 1.0 if lost + gained == 0 else min(1.0, 2.0 * rate_p(min(lost, gained), lost + gained, 0.5)[0])
