"""Intervals over many images, and decisions with three outcomes. Numbers in, numbers out; nothing here knows images.

Every bound is one-sided: the true value is below `low` with a probability of at most 1 - confidence, and above `high`
likewise, so that the pair is a two-sided interval at 2 · confidence - 1 (at the default 0.95: 90%). A suite passes by
one bound or fails by the other, and confidence is the most that each of these two may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

Numbers: TypeAlias = Sequence[float] | npt.NDArray[np.floating]
Decision: TypeAlias = Literal["passed", "failed", "inconclusive"]

# With fewer images, whoever shows an interval says so: it is wide, and that of a mean trusts a shape nobody has seen.
FEW: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a true value is likely to be.

    Attributes:
        low: one-sided lower bound; -inf where nothing is known.
        high: one-sided upper bound; inf where nothing is known.
        confidence: of each bound, in (0.5, 1).
    """

    low: float
    high: float
    confidence: float

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        if not self.low <= self.high:  # also NaN, which no decision may rest on
            raise ValueError(f"the interval goes from {self.low} to {self.high}: its bounds must be numbers in order")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Bounds of a rate that are never too narrow, whatever the rate (Clopper & Pearson, 1934); what decisions rest on.

    Args:
        successes: images that hit, 0 to n.
        n: images, 1 or more.
        confidence: of each bound, one-sided, in (0.5, 1).

    Raises:
        ValueError: counts or confidence out of range.
    """
    _check_counts(successes, n)
    _check_confidence(confidence)
    misses = n - successes
    # Quantiles of the beta distribution; at the ends they have no density, and the bound is the end.
    low = float(special.betaincinv(successes, misses + 1, 1.0 - confidence)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, misses, confidence)) if misses else 1.0
    return Interval(low, high, confidence)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Bounds of a rate that are about right on average (Wilson, 1927): to be shown, not decided by.

    For some rates they are too narrow: of 20 images, a lower bound meant for 95% holds for 92.1% of the suites if the
    true rate is .88, and for 80% if it is .01.

    Args:
        successes: images that hit, 0 to n.
        n: images, 1 or more.
        confidence: of each bound, one-sided, in (0.5, 1).

    Raises:
        ValueError: counts or confidence out of range.
    """
    _check_counts(successes, n)
    _check_confidence(confidence)
    z, rate = float(special.ndtri(confidence)), successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = middle - reach if successes else 0.0  # else rounding may leave the range
    high = middle + reach if successes < n else 1.0
    return Interval(low, high, confidence)


def t_interval(values: Numbers, confidence: float = 0.95) -> Interval:
    """Bounds of a mean by Student's t: `mean ± t · s / √n` (Student, 1908).

    Exact for normal values. Of skewed ones, such as calibrated energies, the bound on the side of the long tail is too
    near: at a skewness of ±0.6 and 20 images, one meant for 95% holds for 93.4%, and the other for 96.2%.
    `skewed_interval` mends that.

    One value says nothing of how far values lie apart: its interval is everything. Values that are all equal have an
    interval of width 0: that is what the formula gives, and right only where equal values mean that nothing varies.

    Args:
        values: (n,), one for each image.
        confidence: of each bound, one-sided, in (0.5, 1).

    Raises:
        ValueError: no values, values that are not finite, or a confidence out of range.
    """
    return _mean_interval(values, confidence, lambda t, skew, n: t)


def skewed_interval(values: Numbers, confidence: float = 0.95) -> Interval:
    """Bounds of a mean by Student's t with the values' skewness taken out by a cubic transformation (Hall, 1992).

    As near to its confidence as `t_interval` where values are symmetric, and nearer where they are skewed: at a
    skewness of ±0.6 and 20 images, bounds meant for 95% hold for 95.0% and 95.7%. What decisions on means rest on.
    P. Hall, "On the removal of skewness by transformation", J. R. Stat. Soc. B 54 (1992) 221-228, with Student's
    quantiles in place of normal ones. One value, and values that are all equal: as for `t_interval`.

    Args:
        values: (n,), one for each image.
        confidence: of each bound, one-sided, in (0.5, 1).

    Raises:
        ValueError: as for `t_interval`.
    """
    return _mean_interval(values, confidence, _skewed)


def decide(interval: Interval, threshold: float, at_most: bool = False) -> Decision:
    """Whether the true value is at or above a threshold: passed, failed, or too close to tell.

    Passed if the whole interval is at or above the threshold, failed if the whole interval is below it. A true value at
    the threshold is on the passing side. Each of the two decisions is wrong with a probability of at most
    1 - confidence, as far as the interval keeps its own.

    Args:
        interval: of the true value.
        threshold: what it is compared with.
        at_most: whether the true value is to be at or below the threshold instead.

    Raises:
        ValueError: the threshold is not finite.
    """
    if not math.isfinite(threshold):
        raise ValueError(f"the threshold is {threshold}: nothing can be decided by it, give a finite number")
    low, high = (-interval.high, -interval.low) if at_most else (interval.low, interval.high)
    wanted = -threshold if at_most else threshold
    if low >= wanted:
        return "passed"
    return "failed" if high < wanted else "inconclusive"


def rate_p(successes: int, n: int, rate: float) -> tuple[float, float]:
    """How likely counts as low, and as high, as this one are at a true rate: exact binomial tails.

    `clopper_pearson` inverts them: its upper bound is below the rate where the first is below 1 - confidence, its
    lower bound is at it or above where the second is.

    Args:
        successes: images that hit, 0 to n.
        n: images, 1 or more.
        rate: true rate, in [0, 1].

    Raises:
        ValueError: counts or rate out of range.
    """
    _check_counts(successes, n)
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate is {rate}: give one from 0 to 1")
    return float(special.bdtr(successes, n, rate)), float(special.bdtrc(successes - 1, n, rate)) if successes else 1.0


def holm(p_values: Numbers) -> npt.NDArray[np.float64]:
    """p-values of several questions, adjusted so that one of all is wrong as rarely as one alone would be (Holm, 1979).

    Whatever the questions have to do with each other: the chance that any adjusted value of a true null hypothesis is
    at or below a level is at most that level.

    Args:
        p_values: (n,), each in [0, 1]; of no questions, none.

    Raises:
        ValueError: values that are no probabilities.
    """
    found = np.asarray(p_values, np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():  # also NaN
        raise ValueError("the p-values are not all in [0, 1], in a row")
    order = np.argsort(found, kind="stable")
    steps = np.minimum(found[order] * (found.size - np.arange(found.size)), 1.0)
    adjusted = np.empty_like(found)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def permutation_p(value: float, null_values: Numbers) -> float:
    """How often chance does as well: `(1 + #{null ≥ value}) / (1 + n)`, never 0 (Phipson & Smyth, 2010).

    Args:
        value: what was measured; high is what was hoped for.
        null_values: (n,), the same measurement where nothing but chance is at work, for example shuffled regions.

    Raises:
        ValueError: no null values, or a value that is not finite.
    """
    null = _finite(null_values, "null values")
    if not math.isfinite(value):
        raise ValueError(f"the value is {value}: give a finite number")
    return (1 + int((null >= value).sum())) / (1 + null.size)


def _mean_interval(values: Numbers, confidence: float, quantile: Callable[[float, float, int], float]) -> Interval:
    """Bounds `mean - s / √n · quantile(±t, skewness, n)`."""
    found = _finite(values, "values")
    _check_confidence(confidence)
    n = found.size
    if n == 1:
        return Interval(-math.inf, math.inf, confidence)
    if (found == found[0]).all():  # else the mean's rounding would show as spread
        return Interval(float(found[0]), float(found[0]), confidence)
    mean, t = float(found.mean()), float(special.stdtrit(n - 1, confidence))
    apart = found - mean
    spread = math.sqrt(float((apart**2).mean()))
    skew = float(((apart / spread) ** 3).mean()) if spread > 0 else 0.0  # squares of tiny values may vanish
    error = spread / math.sqrt(n - 1)  # = s / √n, s with n - 1
    return Interval(mean - error * quantile(t, skew, n), mean - error * quantile(-t, skew, n), confidence)


def _skewed(t: float, skew: float, n: int) -> float:
    """T for which Hall's `g(T) = T + γ(T²/3 + 1/6)/√n + γ²T³/(27n)`, which is nearly symmetric, equals t."""
    lean = skew / math.sqrt(n)
    if abs(lean) < 1e-6:  # the quotient below would amplify rounding, and its limit is this
        return t
    return 3.0 / lean * (math.cbrt(1.0 + lean * (t - lean / 6.0)) - 1.0)


def _finite(values: Numbers, noun: str) -> npt.NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"the {noun} are {found.shape}: give one or more in a row")
    if not np.isfinite(found).all():
        raise ValueError(f"the {noun} are not finite: some are NaN or infinite")
    return found


def _check_counts(successes: int, n: int) -> None:
    if not (n >= 1 and n % 1 == 0):  # not the other way round: NaN compares false
        raise ValueError(f"n is {n}: a rate needs a whole number of images, 1 or more")
    if not (0 <= successes <= n and successes % 1 == 0):
        raise ValueError(f"{successes} successes of {n}: give a whole number from 0 to {n}")


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise ValueError(f"the confidence is {confidence}: give one above 0.5 and below 1, such as 0.95")
