"""How often an audit is wrong where nothing is: decisions over 50 slices, comparisons, clusters. Prints a table.

`python -m benchmarks.audit_statistics [runs]`; about three minutes on one core for 1,000 runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pytest_gradcam.audit.clusters import cluster
from pytest_gradcam.audit.judging import Columns, Rule, Texts, judge
from pytest_gradcam.audit.paired import signed_rank
from pytest_gradcam.statistics import holm

SLICES = 50
IMAGES = 40  # of each slice
RATE = 0.9


def judged(runs: int) -> tuple[float, float]:
    """Share of audits in which a slice at exactly the rate that is needed fails: as decided, and by its rate alone."""
    rng = np.random.default_rng(0)
    site = np.repeat([f"{number:02}" for number in range(SLICES)], IMAGES)
    count = len(site)
    wrong = naive = 0
    for _ in range(runs):
        value = np.where(rng.random(count) < RATE, 0.5, 0.0)
        columns = Columns(
            index=np.arange(count),
            status=np.full(count, "measured"),
            value=value,
            chance=np.full(count, 0.1),
            filled=np.full(count, 0.8),
            cls=Texts.of([""] * count),
            about={"site": Texts.of(site)},
        )
        found = judge(columns, Rule(pass_rate=RATE), ["site"])
        groups = [found.overall, *found.slices]
        wrong += any(group.outcome == "failed" for group in groups)
        naive += any((group.rate or 0.0) < RATE for group in groups)
    return wrong / runs, naive / runs


def compared(runs: int, changed: float) -> tuple[float, float]:
    """Share of comparisons without an effect in which a slice is called worse or better: corrected, and not.

    Args:
        runs: how many comparisons.
        changed: share of the images whose value is another at all.
    """
    rng = np.random.default_rng(1)
    wrong = alone = 0
    for _ in range(runs):
        before, now = rng.beta(4, 2, (2, SLICES, IMAGES))
        change = np.where(rng.random((SLICES, IMAGES)) < changed, now - before, 0.0)
        p_values = np.array([signed_rank(each)[0] for each in [*change, change.ravel()]])
        wrong += bool((holm(p_values) <= 0.05).any())
        alone += bool((p_values <= 0.05).any())
    return wrong / runs, alone / runs


def blobs(
    rng: np.random.Generator, places: npt.NDArray[np.float64], width: tuple[float, float], noise: float
) -> npt.NDArray[np.float32]:
    """Maps on a grid of 8 by 8, each warm about its place (x, y)."""
    y, x = (np.mgrid[:8, :8] + 0.5) / 8
    spread = rng.uniform(*width, len(places))[:, None, None]
    apart = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2
    maps = np.exp(-apart / 2 / spread**2) * rng.uniform(0.5, 2, (len(places), 1, 1))
    noisy = maps + noise * rng.normal(0, 0.3, maps.shape)
    return np.asarray(np.maximum(noisy, 1e-9).reshape(len(places), -1), np.float32)


def clustered(runs: int) -> None:
    """How often clusters are found: where there are none, and where some maps gather in a corner."""
    rng = np.random.default_rng(2)
    kinds: dict[str, Callable[[int], npt.NDArray[np.float32]]] = {
        "objects anywhere": lambda n: blobs(rng, rng.uniform(0.15, 0.85, (n, 2)), (0.1, 0.25), 0.3),
        "objects along a line": lambda n: blobs(
            rng, np.stack([rng.uniform(0.1, 0.9, n), np.full(n, 0.5)], 1), (0.12, 0.14), 0.3
        ),
        "objects mostly at one side": lambda n: blobs(rng, rng.beta(2, 4, (n, 2)), (0.1, 0.25), 0.3),
        "objects in one place": lambda n: blobs(rng, rng.normal(0.5, 0.03, (n, 2)), (0.1, 0.25), 0.3),
        "noise": lambda n: rng.dirichlet(np.ones(64), n).astype(np.float32),
    }
    for count in (100, 300, 1000):
        for kind, made in kinds.items():
            found = sum(cluster(made(count))[0].max() > 0 for _ in range(runs))
            print(f"clusters  {count:5} maps  {kind:28} found in {found / runs:6.1%} of {runs}")
        for share in (0.15, 0.05):
            some = int(share * count)
            pure, had, found = [], [], 0
            for _ in range(runs):
                honest = blobs(rng, rng.uniform(0.15, 0.85, (count - some, 2)), (0.1, 0.25), 0.1)
                corner = blobs(rng, np.array([0.06, 0.94]) + rng.normal(0, 0.03, (some, 2)), (0.08, 0.1), 0.1)
                labels, _ = cluster(np.vstack([honest, corner]))
                own = np.bincount(labels[-some:] + 1).argmax() - 1
                if labels.max() > 0 and own >= 0:
                    found += 1
                    pure.append((labels[-some:] == own).sum() / (labels == own).sum())
                    had.append((labels[-some:] == own).mean())
            told = f"purity {np.mean(pure):.3f}, members {np.mean(had):.1%}" if found else ""
            print(f"clusters  {count:5} maps  {f'{share:.0%} in a corner':28} found in {found / runs:6.1%}  {told}")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    wrong, naive = judged(runs)
    print(
        f"judged    {SLICES} slices of {IMAGES} at {RATE}: a slice fails in {wrong:.1%} of {runs}; by rates {naive:.1%}"
    )
    for changed in (1.0, 0.2):
        corrected, alone = compared(runs, changed)
        print(
            f"compared  {SLICES} slices of {IMAGES}, {changed:.0%} changed: called worse or better in {corrected:.1%} "
            f"of {runs}; without correction {alone:.1%}"
        )
    clustered(max(10, runs // 20))


if __name__ == "__main__":
    main()
