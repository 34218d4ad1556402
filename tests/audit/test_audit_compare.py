"""An audit held against an earlier one: its tests against scipy and full enumeration, then what is paired and told."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pytest_gradcam.audit.changes import Comparison
from pytest_gradcam.audit.compare import compare, earlier
from pytest_gradcam.audit.judging import Rule, judge
from pytest_gradcam.audit.paired import mcnemar, signed_rank
from pytest_gradcam.audit.results import columns_of
from pytest_gradcam.audit.rows import Row
from pytest_gradcam.audit.store import AuditError
from tests.audit.made import METRIC, audited, mixed, reported, row


def compared(
    tmp_path: Path, now: list[Row], before: list[Row], slices: tuple[str, ...] = (), rule: Rule | None = None
) -> Comparison:
    """What changed from one to the other."""
    audited(tmp_path / "before", before)
    audited(tmp_path / "now", now)
    found = reported(tmp_path / "now", tmp_path / "before", slices, rule).comparison
    assert found is not None
    return found


def enumerated(differences: list[float]) -> float:
    """The signed-rank test, by all signs that the ranks can have."""
    changed = np.array([each for each in differences if each])
    ranks = stats.rankdata(np.abs(changed))
    seen = ranks[changed > 0].sum()
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))])
    return float(min(1.0, 2 * min((sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean())))


class TestSignedRank:
    @pytest.mark.parametrize("n", [5, 20, 50])
    def test_exact_as_scipy_has_it(self, n: int) -> None:
        values = np.random.default_rng(n).normal(0.3, 1, n)
        assert signed_rank(values)[0] == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-9)

    def test_of_many_as_scipy_has_it(self) -> None:
        values = np.round(np.random.default_rng(1).normal(0.05, 1, 400), 1)
        wanted = stats.wilcoxon(values, method="asymptotic", correction=False, zero_method="wilcox").pvalue
        assert signed_rank(values)[0] == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize(
        "values", [[1, 1, 1, -1, 2, 2, 0, 0], [3, 3, 3, 3, 3], [-1, 1], [0.5, 0.5, -0.5, 2, -2, -2, 2, 1]]
    )
    def test_ties_are_exact_too(self, values: list[float]) -> None:
        assert signed_rank(np.array(values, float))[0] == pytest.approx(enumerated(values), abs=1e-12)

    def test_what_did_not_change_says_nothing(self) -> None:
        assert signed_rank(np.zeros(5)) == (1.0, 0.0)
        assert signed_rank(np.array([1.0, 2, 3, 0, 0, 0]))[0] == signed_rank(np.array([1.0, 2, 3]))[0]

    def test_infinite_differences_are_the_largest(self) -> None:
        values = np.array([-np.inf, -np.inf, 0.1, 0.2, 0.3])
        assert signed_rank(values)[0] == signed_rank(np.array([-9, -9, 0.1, 0.2, 0.3]))[0]

    def test_lean(self) -> None:
        assert signed_rank(np.array([1.0, 2, -0.5]))[1] > 0 > signed_rank(np.array([-1.0, -2, 0.5]))[1]

    @pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (3, 9), (10, 10), (0, 30)])
    def test_mcnemar_as_a_binomial_test(self, lost: int, gained: int) -> None:
        wanted = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
        assert mcnemar(lost, gained) == pytest.approx(wanted, rel=1e-9)


class TestDecisions:
    def test_worse(self, tmp_path: Path) -> None:
        """Every map loses, and all still pass: the values tell what a count of passes would not."""
        values = np.random.default_rng(0).uniform(0.5, 0.9, 30)
        found = compared(tmp_path, mixed(values - 0.2), mixed(values)).overall
        assert (found.outcome, found.lost, found.gained, found.images, found.measured) == ("worse", 0, 0, 30, 30)
        assert found.difference == pytest.approx(-0.2) and found.p_passes == 1.0
        assert found.before == pytest.approx(values.mean()) and found.now == pytest.approx(values.mean() - 0.2)

    def test_better(self, tmp_path: Path) -> None:
        found = compared(tmp_path, mixed([0.5] * 20), mixed([0.1] * 20)).overall
        assert (found.outcome, found.gained, found.lost) == ("better", 20, 0)

    def test_the_same(self, tmp_path: Path) -> None:
        found = compared(tmp_path, mixed([0.4] * 20), mixed([0.4] * 20)).overall
        assert (found.outcome, found.p, found.difference) == ("no difference shown", 1.0, 0.0)

    def test_a_metric_that_is_low_where_it_is_good(self, tmp_path: Path) -> None:
        rule = Rule("mass_outside", threshold=0.5)
        low, high = (
            [row(i, None, values={"mass_outside": value + i / 100}) for i in range(20)] for value in (0.1, 0.4)
        )
        audited(tmp_path / "before", low, ["mass_outside"])
        audited(tmp_path / "now", high, ["mass_outside"])
        found = reported(tmp_path / "now", tmp_path / "before", rule=rule).comparison
        assert found is not None and found.overall.outcome == "worse" and found.overall.difference == pytest.approx(0.3)
        assert len(found.worse) == 8 and not found.better

    def test_one_class_alone(self, tmp_path: Path) -> None:
        """The class that changed is found, the others are not called worse for it."""
        rng = np.random.default_rng(3)
        before = [row(i, float(rng.uniform(0.3, 0.9)), cls=i % 3) for i in range(90)]
        now = [row(i, each.values[METRIC] - (0.3 if i % 3 == 1 else 0), cls=i % 3) for i, each in enumerate(before)]
        found = {each.name: each.outcome for each in compared(tmp_path, now, before).classes}
        assert found == {"class-0": "no difference shown", "class-1": "worse", "class-2": "no difference shown"}

    def test_slices_are_corrected_for_how_many_there_are(self, tmp_path: Path) -> None:
        """Six images all worse: p = 1/32, enough alone and not among ten."""
        about = [{"site": str(i // 6)} for i in range(60)]
        before = [row(i, 0.5, about=about[i]) for i in range(60)]
        now = [row(i, 0.4 - i / 1000 if i < 6 else 0.5, about=about[i]) for i in range(60)]
        found = compared(tmp_path, now, before, ("site",))
        (first, *_) = found.slices
        assert first.name == "site = 0" and first.p == pytest.approx(11 / 32) and first.outcome == "no difference shown"
        assert len(found.slices) == 10

    def test_classes_of_one_picture_are_one_image(self, tmp_path: Path) -> None:
        """Two classes that change in opposite ways in every picture cancel, and do not count twice."""
        before = [row(i, 0.5, cls=c, place=c) for i in range(20) for c in (0, 1)]
        now = [row(i, 0.5 + (0.1 if c else -0.1), cls=c, place=c) for i in range(20) for c in (0, 1)]
        found = compared(tmp_path, now, before)
        assert found.overall.images == found.overall.measured == 20 and found.overall.outcome == "no difference shown"
        assert [each.outcome for each in found.classes] == ["worse", "better"]

    def test_a_measurement_that_is_lost_counts_as_the_worst(self, tmp_path: Path) -> None:
        before, now = mixed([0.5] * 10), [row(i, None, status="no evidence", reason="nothing") for i in range(10)]
        found = compared(tmp_path, [*now, row(10)], [*before, row(10)])
        assert found.overall.outcome == "worse" and found.overall.lost == 10 and found.overall.measured == 1
        (turned,) = found.turned
        assert (turned.before, turned.now, turned.rows) == ("measured", "no evidence", 10)
        assert turned.images[0] == "0000.png" and len(turned.images) == 5

    def test_where_it_is_excluded_it_does_not(self, tmp_path: Path) -> None:
        now = [row(i, None, status="no evidence") for i in range(10)]
        rule = Rule(bad="excluded")
        found = compared(tmp_path, [*now, row(10)], mixed([0.5] * 11), rule=rule)
        assert found.overall.outcome == "no difference shown" and found.overall.images == 1


class TestPairing:
    def test_by_key_and_not_by_place(self, tmp_path: Path) -> None:
        before = mixed([0.1, 0.2, 0.3, 0.4])
        now = [row(9 - i, each.values[METRIC], image=each.image) for i, each in enumerate(before)]
        found = compared(tmp_path, now, before)
        assert found.overall.difference == 0.0 and not found.worse and not found.better

    def test_by_what_was_asked_and_not_by_what_was_predicted(self, tmp_path: Path) -> None:
        """A model that swaps the classes, where the data name none: all images are in both, and worse."""
        before = [row(i, 0.5, cls=i % 2) for i in range(40)]
        now = [row(i, 0.3 + i / 1000, cls=1 - i % 2) for i in range(40)]
        found = compared(tmp_path, now, before)
        assert (found.overall.images, found.overall.outcome, found.only_now, found.only_before) == (40, "worse", 0, 0)

    def test_an_image_that_cannot_be_read_any_more_is_lost(self, tmp_path: Path) -> None:
        """With two classes in each picture, of which nothing is known now: 22 of 60 images, in each class too."""
        before = [row(i, 0.5, cls=c, asked=c, place=c) for i in range(60) for c in (0, 1)]
        now = [each for each in before if each.index >= 22]
        now += [replace(row(i, None, label=None, predicted=None, status="unreadable"), cls=None) for i in range(22)]
        found = compared(tmp_path, now, before)
        assert (found.overall.images, found.overall.lost, found.overall.outcome) == (60, 22, "worse")
        assert [(each.lost, each.images) for each in found.classes] == [(22, 60), (22, 60)]
        assert (found.only_now, found.only_before) == (0, 0) and found.turned[0].rows == 44

    def test_what_is_in_one_alone(self, tmp_path: Path) -> None:
        found = compared(tmp_path, mixed([0.5] * 5), mixed([0.5] * 4, start=3))
        assert (found.overall.images, found.only_now, found.only_before) == (2, 3, 2)
        assert found.examples == {
            "only_now": ("0000.png", "0001.png", "0002.png"),
            "only_before": ("0005.png", "0006.png"),
        }

    def test_copies_are_left_out(self, tmp_path: Path) -> None:
        rows = [row(0, digest="a"), row(1, 0.1, digest="a"), row(2, digest="c")]
        found = compared(tmp_path, rows, mixed([0.5, 0.5, 0.5]))
        assert (found.overall.images, found.only_now, found.only_before) == (2, 0, 1)

    def test_nothing_in_common(self, tmp_path: Path) -> None:
        found = compared(tmp_path, mixed([0.5] * 3), mixed([0.5] * 3, start=10))
        assert found.overall.images == 0 and found.overall.difference is None
        assert found.overall.outcome == "no difference shown"

    def test_what_changed_most(self, tmp_path: Path) -> None:
        changes = [-0.3, 0.2, 0.0, -0.1, 0.4]
        found = compared(tmp_path, mixed([0.5 + each for each in changes]), mixed([0.5] * 5))
        assert [each.image for each in found.worse] == ["0000.png", "0003.png"]
        assert [each.image for each in found.better] == ["0004.png", "0001.png"]
        assert found.worse[0].now == pytest.approx(0.2) and found.worse[0].cls == "class-0"


class TestEarlier:
    def test_another_metric(self, tmp_path: Path) -> None:
        audited(tmp_path / "before", [row(0, None, values={"lift": 2.0})], ["lift"])
        audited(tmp_path / "now", [row(0)])
        with pytest.raises(AuditError, match=r"'calibrated_energy' was not measured in the baseline"):
            reported(tmp_path / "now", tmp_path / "before")

    def test_no_audit(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(AuditError, match=r"holds no audit that is done: give the folder of one"):
            earlier(tmp_path / "empty", METRIC, tmp_path / "now")

    def test_itself(self, tmp_path: Path) -> None:
        with pytest.raises(AuditError, match="are the same folder"):
            earlier(tmp_path / "x" / ".." / "now", METRIC, tmp_path / "now")

    def test_of_another_version(self, tmp_path: Path) -> None:
        path = audited(tmp_path / "before", [row(0)]) / "audit.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
        with pytest.raises(AuditError, match="was written by another version"):
            earlier(tmp_path / "before", METRIC, tmp_path / "now")

    def test_a_report_serves_as_well(self, tmp_path: Path) -> None:
        audited(tmp_path / "before", [row(0)])
        assert earlier(reported(tmp_path / "before"), METRIC, tmp_path / "now") == tmp_path / "before"

    def test_what_was_asked_otherwise_is_told(self, tmp_path: Path) -> None:
        audited(tmp_path / "before", [row(0)], method="gradcam", model="a")
        audited(tmp_path / "now", [row(0)], method="layercam", model="a")
        found = reported(tmp_path / "now", tmp_path / "before").comparison
        assert found is not None
        assert found.remarks == (
            "both audits are of the same model: all its weights are the same",
            "another method: gradcam then, layercam now; a difference need not be the model's",
        )


def test_no_effect_is_seldom_called_one(tmp_path: Path) -> None:
    """100 comparisons of 50 slices that did not change: at most 5% say anything.

    A true .05 gives more than 10 once in 87 times (binomial); the seed gives 6.
    """
    count, rule = 1250, Rule()
    rng = np.random.default_rng(0)
    for name in ("before", "now"):
        (tmp_path / name).mkdir()
    wrong = 0
    for _ in range(100):
        for name in ("before", "now"):
            held = {
                "index": np.arange(count),
                "place": np.zeros(count, int),
                "image": [str(i) for i in range(count)],
                "status": ["measured"] * count,
                "asked": np.zeros(count, int),
                "cls": np.zeros(count, int),
                "label": pa.nulls(count, pa.string()),
                "chance": np.full(count, 0.1),
                "filled": np.full(count, 0.8),
                METRIC: rng.beta(4, 2, count),
                "about": pa.array([[("site", str(i // 25))] for i in range(count)], pa.map_(pa.string(), pa.string())),
            }
            pq.write_table(pa.table(held), tmp_path / name / "results.parquet")
        columns = columns_of(tmp_path / "now" / "results.parquet", METRIC, ["site"])
        found = compare(tmp_path / "now", columns, judge(columns, rule, ["site"]), tmp_path / "before")
        assert len(found.slices) == 50
        wrong += any(each.outcome != "no difference shown" for each in (found.overall, *found.slices))
    assert wrong <= 10
