"""Assertions say the same each time, whatever was asked before: a short run of `benchmarks.determinism`, one thread."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.determinism import Answer, Question, answer, compare, models, questions, repetition, rounded

SLOW = ("explanation_faithful", "depends_on_weights")


@pytest.fixture(scope="module")
def asked() -> dict[str, Question]:
    """All assertions of one image; those that take hundreds of forwards of the demo's honest model alone."""
    every = questions(["honest", "vit"], 2)
    return {
        name: question for name, question in every.items() if "honest" in name or not any(slow in name for slow in SLOW)
    }


def test_assertions_answer_the_same_bit_by_bit_in_any_order(asked: dict[str, Question]) -> None:
    stored = models()
    stored |= {f"{name} rounded": rounded(model) for name, model in stored.items()}
    runs = [(1, repetition(asked, stored, seed)) for seed in range(3)]
    assert len({tuple(answers) for _, answers in runs}) == 3  # the orders differed
    assert len(asked) == 11 * 2 + 9 * 2
    rows = compare(runs)
    assert {name: row.outcomes for name, row in rows.items() if not row.is_one_outcome} == {}
    assert {name: row.differing for name, row in rows.items() if not row.is_bitwise} == {}
    assert {outcome for row in rows.values() for outcome in row.outcomes} >= {"passed", "failed"}


def test_a_difference_in_one_bit_or_outcome_is_seen() -> None:
    plain = Answer("passed", "fine", (0.5, 1.0), "maps")
    for other, is_one_outcome in (
        (replace(plain, values=(0.5, 1.0 + 2**-52)), True),
        (replace(plain, maps="others"), True),
        (replace(plain, outcome="failed"), False),
    ):
        (row,) = compare([(1, {"asked": plain}), (1, {"asked": other})]).values()
        assert (row.is_one_outcome, row.is_bitwise) == (is_one_outcome, False)
    (row,) = compare([(1, {"asked": plain}), (2, {"asked": replace(plain, values=(0.5, 1.25))})]).values()
    assert (row.is_bitwise, row.apart) == (True, 0.25)  # of another number of threads, bits may differ


def test_an_error_is_an_answer_too() -> None:
    name = "prediction_needs · honest · one"
    question = questions(["honest"], 1)[name]
    assert answer(question, {"honest": models()["shortcut"]}).outcome == "failed"
    assert answer(question, {"honest": models()["vit"]}).outcome.endswith("Error")
