"""Law 17: items that are judged together, as the official scripts of MultiRC and Winogender judge them."""

import pytest
from helpers.answered import labelled, table

from pipelines.metrics.scores import scores


def test_a_question_of_multirc_is_right_when_all_its_answers_are():
    joint = ["q1", "q1", "q2", "q2", "q2", "q3"]
    rows = labelled([1, 0, 1, 1, 0, 0], [1, 0, 1, 0, 0, 1], joint=joint, group=["p"] * 5 + ["p2"])
    em, f1a = scores(rows, ("em", "f1a"), classes=2)
    assert em.value == pytest.approx(100 / 3)
    assert f1a.value == pytest.approx(100 * 4 / (3 + 3))  # 2 right ones; 3 answers are right, 3 are taken for it
    assert em.one_answer == pytest.approx((100 / 3, 0.0))  # all no: q3; all yes: none
    assert f1a.one_answer == pytest.approx((0.0, 100 * 2 * 3 / (3 + 6)))
    assert em.interval is not None
    assert (em.n, f1a.n) == (3, 6)


def test_a_question_without_a_right_answer_counts_for_exact_match_and_not_for_f1a():
    rows = labelled([0, 0], [0, 0], joint=["q", "q"])
    em, f1a = scores(rows, ("em", "f1a"), classes=2)
    assert (em.value, f1a.value) == (100.0, 0.0)


def test_parity_is_the_share_of_pairs_that_are_answered_alike():
    rows = labelled([1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 1], joint=["0", "0", "1", "1", "2", "2"])
    accuracy, parity = scores(rows, ("accuracy", "parity"), classes=2)
    assert (accuracy.value, parity.value) == (pytest.approx(50.0), pytest.approx(200 / 3))
    assert parity.one_answer == (100.0, 100.0)  # parity alone is worth nothing


def test_items_that_are_judged_together_are_drawn_together():
    pairs = labelled([1] * 8, [1, 1, 0, 0] * 2, joint=[str(n // 2) for n in range(8)])
    lone = labelled([1] * 8, [1, 1, 0, 0] * 2)
    (wide,), (narrow,) = scores(pairs, ("accuracy",), classes=2), scores(lone, ("accuracy",), classes=2)
    assert wide.interval
    assert narrow.interval
    assert wide.interval.high - wide.interval.low > narrow.interval.high - narrow.interval.low


def test_items_by_themselves_are_judged_by_themselves():
    rows = table({"gold": 0, "choice": 0}, {"gold": 1, "choice": 0})
    assert [score.value for score in scores(rows, ("em",), classes=2)] == [50.0]
