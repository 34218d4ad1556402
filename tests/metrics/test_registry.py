"""What the registry says of each metric is what the metric measures."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_gradcam.metrics import METRICS, chance, filled
from tests.metrics.figures import MASKS, Floats, box, cell_means, resized

GRID = (6, 6)
# Where a map that fills the region has a value that depends on more than chance and filled.
WITHOUT_A_FORMULA = ("rank_accuracy", "iou")


def test_the_order_is_the_one_that_users_are_shown() -> None:
    assert list(METRICS) == [
        "calibrated_energy",
        "energy",
        "lift",
        "pointing_game",
        "rank_accuracy",
        "iou",
        "mass_outside",
    ]


@pytest.mark.parametrize(
    ("name", "title", "uniform", "even", "least", "most", "inside", "outside"),
    [
        ("calibrated_energy", "calibrated energy", 0.0, 1.0, -0.4, 1.6, 0.15, 0.0),
        ("energy", "energy", 0.2, 0.7, 0.0, 1.0, 0.5, 0.2),
        ("lift", "lift", 1.0, 3.5, 0.0, 5.0, 1.5, 1.0),
        ("pointing_game", "pointing game", 0.0, 1.0, 0.0, 1.0, 1.0, 0.0),
        ("rank_accuracy", "rank accuracy", 0.2, 1.0, 0.0, 1.0, 0.5, 0.2),
        ("iou", "IoU", 0.2, 1.0, 0.0, 1.0, 0.3, 0.2),
        ("mass_outside", "mass outside", 0.8, 0.3, 0.0, 1.0, 0.5, 0.8),
    ],
)
def test_defaults_and_bounds(
    name: str, title: str, uniform: float, even: float, least: float, most: float, inside: float, outside: float
) -> None:
    """At chance 0.2 and filled 0.7."""
    rule = METRICS[name]
    assert (rule.title, rule.inside) == (title, inside)
    found = [bound(0.2, 0.7) for bound in (rule.at_chance, rule.at_filled, rule.least, rule.most, rule.outside)]
    assert found == pytest.approx([uniform, even, least, most, outside])


def test_one_falls_with_the_attention_inside_and_one_is_a_rate() -> None:
    assert [name for name, rule in METRICS.items() if not rule.higher_is_inside] == ["mass_outside"]
    assert [name for name, rule in METRICS.items() if rule.is_rate] == ["pointing_game"]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", METRICS)
def test_a_uniform_map_has_chance(name: str, mask: Floats) -> None:
    """On soft masks too."""
    rule = METRICS[name]
    uniform = rule.measure(np.full(mask.shape, 0.3), mask, GRID)
    assert uniform == pytest.approx(rule.at_chance(chance(mask), filled(mask, GRID)), abs=1e-6)
    assert uniform == pytest.approx(rule.of_uniform(mask, GRID), abs=1e-12)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", METRICS)
def test_a_map_that_fills_the_region_has_filled(name: str, mask: Floats) -> None:
    rule = METRICS[name]
    even = rule.measure(resized(cell_means(mask, *GRID), *mask.shape), mask, GRID)
    assert rule.of_filled(mask, GRID) == pytest.approx(even, abs=1e-4)
    said = rule.at_filled(chance(mask), filled(mask, GRID))
    if name in WITHOUT_A_FORMULA:
        assert said >= even
    elif name == "pointing_game" and mask is MASKS["one pixel"]:
        assert even == 0.0  # one cell is wider than the region: its brightest pixels are several, and most lie outside
    else:
        assert said == pytest.approx(even, abs=1e-4)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", METRICS)
def test_no_map_is_beyond_the_least_and_the_most(name: str, mask: Floats) -> None:
    """Maps wholly inside and wholly outside of a hard region reach both; random maps lie between."""
    rule, bounds = METRICS[name], (chance(mask), filled(mask, GRID))
    least, most = rule.least(*bounds), rule.most(*bounds)
    rng = np.random.default_rng(0)
    drawn = [rng.random(mask.shape) ** power for power in (1, 4, 20)]
    values = [rule.measure(cam, mask, GRID) for cam in (mask, 1 - mask, *drawn)]
    rounding = 1e-9 * (1 + abs(most))
    assert all(least - rounding <= value <= most + rounding for value in values)
    if mask is not MASKS["soft"]:
        ends = [least, most] if rule.higher_is_inside else [most, least]
        assert [values[1], values[0]] == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_the_defaults_tell_a_uniform_map_from_a_filled_one(name: str) -> None:
    """Asked for inside, chance fails and filling passes; asked for outside, chance passes and filling fails."""
    rule, mask = METRICS[name], box(24, 24, 8, 8, 16, 16)
    uniform, even = rule.of_uniform(mask, GRID), rule.of_filled(mask, GRID)
    assert not rule.passes(uniform, rule.inside, inside=True)
    assert rule.passes(even, rule.inside, inside=True)
    allowed = rule.outside(chance(mask), filled(mask, GRID))
    # By up to a rounding: chance is what is allowed.
    nearly = uniform - 1e-12 if rule.higher_is_inside else uniform + 1e-12
    assert rule.passes(nearly, allowed, inside=False)
    assert not rule.passes(even, allowed, inside=False)


def test_a_value_at_the_threshold_passes_either_way() -> None:
    for rule in METRICS.values():
        assert rule.passes(0.5, 0.5, inside=True) and rule.passes(0.5, 0.5, inside=False)


def test_the_comparison_turns_round_where_low_is_inside() -> None:
    energy, outside = METRICS["energy"], METRICS["mass_outside"]
    for value in (0.1, 0.9):
        for inside in (True, False):
            assert energy.passes(value, 0.5, inside=inside) == outside.passes(1 - value, 0.5, inside=inside)


@pytest.mark.parametrize("name", METRICS)
def test_an_empty_region_is_never_judged(name: str) -> None:
    """Not even where a number could be had: every map has energy 0 in it, and would pass outside of it."""
    with pytest.raises(ValueError, match=r"the region's mask is zero everywhere|the map has no mass"):
        METRICS[name].measure(np.ones((8, 8)), np.zeros((8, 8)), (2, 2))
