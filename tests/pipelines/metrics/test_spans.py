"""Law 17: answers that are texts are compared as the official scripts of SQuAD 1.1 and ReCoRD compare them."""

import pytest
from helpers.answered import table

from pipelines.metrics.scores import scores
from pipelines.metrics.spans import normalised, token_f1

# answer, gold, whether they are equal, F1
GOLDEN = [
    ("The Eiffel Tower", "eiffel tower!", True, 1.0),
    ("U.S.", "us", True, 1.0),
    ("A-Team", "the ateam", True, 1.0),
    ("Paris Paris Paris", "Paris", False, 0.5),
    ("New York City", "York", False, 0.5),
    ("Lyon", "Paris", False, 0.0),
    ("A", "the", True, 0.0),  # nothing is left of either: equal, and yet without a word in common
    ("A", "Bach", False, 0.0),
    ("\u201cBach\u201d", "Bach", False, 0.0),  # curly quotes stay
    ("  an   old  man ", "old man", True, 1.0),
]


@pytest.mark.parametrize(("answer", "gold", "is_equal", "f1"), GOLDEN)
def test_golden_comparisons(answer, gold, is_equal, f1):
    assert (normalised(answer) == normalised(gold)) == is_equal
    assert token_f1(answer, gold) == pytest.approx(f1)
    assert token_f1(gold, answer) == pytest.approx(f1)


def test_of_several_right_answers_the_nearest_counts():
    names = ["Marie Curie", "Curie", "the curie", "Pierre"]
    rows = table(
        *({"candidates": names, "gold": 0, "golds": [0, 1], "choice": choice} for choice in range(4)),
        {"candidates": ["A", "The"], "gold": 0, "choice": 1},
    )
    em, f1, accuracy = scores(rows, ("em", "f1", "accuracy"), classes=0)
    assert em.value == pytest.approx(100 * 4 / 5)  # "the curie" is Curie, and an article is an article
    assert f1.value == pytest.approx(100 * 3 / 5)
    assert accuracy.value == pytest.approx(100 * 2 / 5)
    assert em.majority == pytest.approx(100 * (4 * 3 / 4 + 1) / 5)
    assert em.one_answer == ()


def test_nothing_chosen_is_wrong():
    rows = table({"candidates": ["a", "b"], "gold": 0, "choice": None})
    assert [score.value for score in scores(rows, ("em", "f1", "accuracy"), classes=0)] == [0.0, 0.0, 0.0]
