"""Decisions over the rows of an audit: arrays in, decisions out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pytest_gradcam.audit.judging import Columns, Judged, Rule, Texts, judge, passing, worst_first
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import skewed_interval


def columns(
    values: Sequence[float],
    *,
    index: Sequence[int] | None = None,
    status: Sequence[str] | None = None,
    cls: Sequence[str] | None = None,
    chance: float = 0.1,
    filled: float = 0.6,
    **about: Sequence[str],
) -> Columns:
    n = len(values)
    return Columns(
        index=np.arange(n) if index is None else np.asarray(index),
        status=np.asarray(["measured"] * n if status is None else status),
        value=np.asarray(values, np.float64),
        chance=np.full(n, chance),
        filled=np.full(n, filled),
        cls=Texts.of(["a"] * n if cls is None else cls),
        about={name: Texts.of(texts) for name, texts in about.items()},
    )


def hits(passed: int, failed: int) -> list[float]:
    return [0.5] * passed + [-0.1] * failed


def judged(passed: int, failed: int, **rule: Any) -> Judged:
    return judge(columns(hits(passed, failed)), Rule(**rule))


class TestAllImages:
    @pytest.mark.parametrize(("n", "confidence"), [(40, 0.95), (200, 0.95), (200, 0.99), (1000, 0.9)])
    def test_are_decided_by_exact_binomial_tails(self, n: int, confidence: float) -> None:
        for passed in range(0, n + 1, max(1, n // 50)):
            below = stats.binomtest(passed, n, 0.9, "less").pvalue <= 1 - confidence
            above = stats.binomtest(passed, n, 0.9, "greater").pvalue <= 1 - confidence
            wanted = "failed" if below else "passed" if above else "inconclusive"
            assert judged(passed, n - passed, confidence=confidence).outcome == wanted

    def test_at_the_threshold_pass(self) -> None:
        assert judge(columns([0.15] * 100), Rule()).overall.passed == 100
        assert judge(columns([0.1499] * 100), Rule()).overall.passed == 0

    def test_low_values_pass_where_the_metric_falls_with_attention(self) -> None:
        found = judge(columns([0.2] * 50 + [0.7] * 50), Rule("mass_outside", pass_rate=0.5))
        assert found.overall.passed == 50

    def test_that_chance_alone_would_pass_do_not(self) -> None:
        """Plain energy 0.5 is nothing where the region covers 60% of the picture."""
        found = judge(columns([0.55] * 100, chance=0.6, filled=0.9), Rule("energy", 0.5))
        assert found.outcome == "failed" and found.overall.passed == 0

    def test_pass_where_everything_that_is_asked_of_them_does(self) -> None:
        """Two classes in one picture are one picture."""
        found = judge(columns([0.5, -0.1, 0.5, 0.5], index=[0, 0, 1, 1], cls=["a", "b", "a", "b"]), Rule())
        assert (found.overall.images, found.overall.passed) == (2, 1)
        assert [(group.name, group.images, group.passed) for group in found.classes] == [("a", 2, 2), ("b", 2, 1)]

    def test_copies_count_neither_way(self) -> None:
        found = judge(columns(hits(50, 50), status=["measured"] * 50 + ["copy"] * 50), Rule())
        assert (found.overall.images, found.overall.passed, found.outcome) == (50, 50, "passed")
        assert found.overall.bad == {"copy": 50}

    @pytest.mark.parametrize("status", ["unreadable", "no region", "unusable region", "no evidence", "not explained"])
    def test_without_a_measurement_fail_or_are_left_out(self, status: str) -> None:
        values = [0.5] * 100 + [float("nan")] * 100
        statuses = ["measured"] * 100 + [status] * 100
        failed = judge(columns(values, status=statuses), Rule())
        assert (failed.overall.images, failed.overall.passed, failed.outcome) == (200, 100, "failed")
        excluded = judge(columns(values, status=statuses), Rule(bad="excluded"))
        assert (excluded.overall.images, excluded.outcome) == (100, "passed")
        assert failed.overall.bad == excluded.overall.bad == {status: 100}

    def test_no_number_passes_by_being_none(self) -> None:
        assert judge(columns([float("nan")] * 100), Rule()).overall.passed == 0

    def test_mean_is_of_pictures_and_not_of_rows(self) -> None:
        """Ten rows of one picture are one value."""
        values = [0.2] * 10 + [0.5, 0.6, 0.8]
        found = judge(columns(values, index=[0] * 10 + [1, 2, 3]), Rule()).overall
        assert found.mean == pytest.approx(np.mean([0.2, 0.5, 0.6, 0.8]))
        wanted = skewed_interval([0.2, 0.5, 0.6, 0.8])
        assert found.mean_interval is not None
        assert (found.mean_interval.low, found.mean_interval.high) == pytest.approx((wanted.low, wanted.high))

    @pytest.mark.parametrize("metric", METRICS)
    def test_pass_one_by_one_as_all_at_once(self, metric: str) -> None:
        rng = np.random.default_rng(0)
        chance, filled, value = rng.uniform(0.01, 0.9, (3, 500))
        value[::7], chance[::5], value[3::7] = np.nan, np.nan, METRICS[metric].inside
        status = np.where(rng.random(500) < 0.8, "measured", "copy")
        held = Columns(np.arange(500), status, value, chance, filled, Texts.of([""] * 500))
        one = METRICS[metric]
        for threshold in (None, 0.3):
            rule = Rule(metric, threshold)
            wanted = [
                status[i] == "measured"
                and bool(np.isfinite(value[i]))
                and one.passes(float(value[i]), rule.wanted, inside=True)
                and not one.passes(one.at_chance(float(chance[i]), float(filled[i])), rule.wanted, inside=True)
                for i in range(500)
            ]
            assert passing(held, rule).tolist() == wanted

    def test_that_are_none_decide_nothing(self) -> None:
        with pytest.raises(SettingsError, match=r"^no image counts \(there are none\): nothing can be decided$"):
            judge(columns([]), Rule())


class TestSlices:
    def sliced(self, rates: Sequence[int], n: int = 60) -> Columns:
        values = [value for rate in rates for value in hits(rate, n - rate)]
        return columns(values, site=[f"s{i}" for i in range(len(rates)) for _ in range(n)])

    def test_one_that_fails_fails_the_whole(self) -> None:
        found = judge(self.sliced([60] * 19 + [30]), Rule(), ["site"])
        assert found.overall.outcome == "passed" and found.outcome == "failed"
        assert [group.name for group in found.slices if group.outcome == "failed"] == ["site = s19"]

    def test_that_are_not_named_are_not_judged(self) -> None:
        found = judge(self.sliced([60] * 19 + [30]), Rule())
        assert found.outcome == "passed" and found.slices == ()

    def test_are_corrected_for_how_many_there_are(self) -> None:
        """46 of 60 at .9 is p = .0024 alone, and one of 41 questions p = .098."""
        alone = judge(self.sliced([46]), Rule(), ["site"])
        among = judge(self.sliced([46] + [60] * 39), Rule(), ["site"])
        assert alone.slices[0].outcome == "failed" and among.slices[0].outcome == "inconclusive"
        assert among.slices[0].p_below == pytest.approx(41 * stats.binomtest(46, 60, 0.9, "less").pvalue)

    def test_classes_fail_the_whole_only_where_they_are_judged(self) -> None:
        found = columns(hits(400, 0) + hits(5, 15), cls=["a"] * 400 + ["b"] * 20)
        shown, asked = judge(found, Rule()), judge(found, Rule(), ["class"])
        assert [group.outcome for group in shown.classes] == [group.outcome for group in asked.classes]
        assert shown.classes[1].outcome == "failed"
        assert (shown.outcome, asked.outcome) == ("passed", "failed")

    def test_named_twice_are_one_question(self) -> None:
        once, twice = (judge(self.sliced([46, 60]), Rule(), ["site"] * count) for count in (1, 2))
        assert once.slices == twice.slices and once.overall == twice.overall

    def test_count_as_one_by_one(self) -> None:
        """Against masks, one for each class: images, passes, statuses, means."""
        rng = np.random.default_rng(0)
        index, cls = rng.integers(0, 200, 1000), rng.integers(0, 30, 1000).astype(str)
        status = rng.choice(["measured", "measured", "no evidence", "copy"], 1000)
        value = np.where(status == "measured", rng.normal(0.3, 0.2, 1000), np.nan)
        held = columns(value.tolist(), index=index.tolist(), status=status.tolist(), cls=cls.tolist())
        passes = passing(held, Rule())
        for group in judge(held, Rule()).classes:
            inside = (cls == group.name) & (status != "copy")
            images = set(index[inside])
            assert group.images == len(images)
            assert group.passed == sum(bool(passes[inside & (index == each)].all()) for each in images)
            assert group.bad == {
                each: int(((cls == group.name) & (status == each)).sum())
                for each in ("no evidence", "copy")
                if ((cls == group.name) & (status == each)).any()
            }
            measured = inside & (status == "measured")
            assert group.mean == pytest.approx(
                np.mean([value[measured & (index == each)].mean() for each in set(index[measured])])
            )

    def test_many_take_little_memory(self) -> None:
        """2,000 classes of 100,000 rows: one mask for each would be 200 MB."""
        n = 100_000
        held = columns([0.5] * n, cls=(np.arange(n) % 2000).astype(str).tolist())
        tracemalloc.start()
        try:
            found = judge(held, Rule())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(found.classes) == 2000 and peak < 40e6

    def test_worst_first(self) -> None:
        found = judge(
            columns(
                hits(400, 0) + hits(5, 15) + hits(3, 17) + hits(3, 1),
                site=[*(["good"] * 400), *(["bad"] * 20), *(["worse"] * 20), *(["few"] * 4)],
            ),
            Rule(),
            ["site"],
        )
        assert [group.text for group in worst_first(found.slices)] == ["worse", "bad", "few", "good"]

    def test_are_in_the_order_of_their_texts_numbers_by_value(self) -> None:
        found = judge(columns([0.5] * 4, zoom=["10", "9", "wide", ""]), Rule(), ["zoom"])
        assert [group.name for group in found.slices] == ["zoom = 9", "zoom = 10", "zoom = wide"]

    @pytest.mark.parametrize("rate", [0.9, 0.97])
    def test_false_alarms_are_as_rare_as_of_one_question(self, rate: float) -> None:
        """50 slices, each truly at the rate that is asked for, or above: at most 5% of the audits have a false alarm.

        Of 1,000 audits, seeded, no more than 50 have one; the correction errs on the safe side, so that fewer have.
        """
        rng = np.random.default_rng(0)
        alarms = 0
        site = [f"s{i}" for i in range(50) for _ in range(40)]
        for _ in range(1000):
            values = np.where(rng.random(2000) < rate, 0.5, -0.1)
            alarms += judge(columns(values.tolist(), site=site), Rule(pass_rate=0.9), ["site"]).outcome == "failed"
        assert alarms <= 50

    def test_an_effect_is_seen(self) -> None:
        """The same audits, and one slice of the 50 at .6: seen in most."""
        rng = np.random.default_rng(1)
        seen = 0
        site = [f"s{i}" for i in range(50) for _ in range(40)]
        true = np.repeat([0.6] + [0.97] * 49, 40)
        for _ in range(100):
            values = np.where(rng.random(2000) < true, 0.5, -0.1)
            seen += judge(columns(values.tolist(), site=site), Rule(pass_rate=0.9), ["site"]).outcome == "failed"
        assert seen >= 90
