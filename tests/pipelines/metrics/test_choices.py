"""Law 17: metrics of choices are what scikit-learn says of all items, on 0 to 100, also where libraries differ."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from helpers.answered import labelled, table
from sklearn import metrics

from infra.errors import UserError
from pipelines.metrics.choices import macro_f1, mcc
from pipelines.metrics.scores import check_metrics, scores

NAMES = ("accuracy", "macro_f1", "mcc")

# name, gold, choices (-1: none), classes, accuracy, macro F1, MCC
GOLDEN = [
    ("a class is in neither gold nor choices", [0, 0, 1, 1], [0, 0, 1, 0], 3, 75.0, 100 * (0.8 + 2 / 3) / 3, 57.735),
    ("one choice for all", [0, 0, 0, 1], [0, 0, 0, 0], 2, 75.0, 100 * (6 / 7) / 2, 0.0),
    ("99 to 1 and one choice for all", [0] * 99 + [1], [0] * 100, 2, 99.0, 49.749, 0.0),
    ("gold is one class alone", [1, 1, 1], [1, 1, 0], 2, 200 / 3, 40.0, 0.0),
    ("all right, one class alone", [1, 1, 1], [1, 1, 1], 2, 100.0, 50.0, 0.0),
    ("all right", [0, 1, 2], [0, 1, 2], 3, 100.0, 100.0, 100.0),
    ("all wrong", [0, 1], [1, 0], 2, 0.0, 0.0, -100.0),
    ("no choice is wrong", [1, 1, 1, 1], [1, 1, 0, -1], 2, 50.0, 100 * (2 / 3) / 2, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "choice", "classes", "expected"), [(g, c, k, e) for _, g, c, k, *e in GOLDEN])
def test_golden_cases(gold, choice, classes, expected):
    found = scores(labelled(gold, choice), NAMES, classes=classes)
    assert [score.value for score in found] == pytest.approx(expected, abs=1e-3)


def test_scores_are_what_scikit_learn_says():
    rng = np.random.default_rng(0)
    gold, choice = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    found = scores(labelled(gold.tolist(), choice.tolist()), (*NAMES, "f1a"), classes=2)
    assert [score.value for score in found] == pytest.approx(
        [
            100 * metrics.accuracy_score(gold, choice),
            100 * metrics.f1_score(gold, choice, average="macro"),
            100 * metrics.matthews_corrcoef(gold, choice),
            100 * metrics.f1_score(gold, choice),
        ]
    )


def test_many_confusions_are_scored_at_once_as_scikit_learn_scores_each():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, (60, 3, 4)) * (rng.random((60, 3, 4)) < 0.6)
    counts[:, 0, 0] += 1  # none is empty
    places = [np.nonzero(one) for one in counts]
    some = [(gold, choice, one[gold, choice]) for one, (gold, choice) in zip(counts, places, strict=True)]
    options = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0.0}
    f1 = [100 * metrics.f1_score(gold, choice, sample_weight=n, **options) for gold, choice, n in some]
    assert macro_f1(counts) == pytest.approx(f1, abs=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is a single label
        correlation = [100 * metrics.matthews_corrcoef(gold, choice, sample_weight=n) for gold, choice, n in some]
    assert mcc(counts) == pytest.approx(correlation, abs=1e-9)


def test_one_answer_to_all_is_scored_for_each_label():
    rows = labelled([1, 0, 0, 0, 1], [1, 0, 0, 1, 0])
    accuracy, f1a = scores(rows, ("accuracy", "f1a"), classes=2)
    assert accuracy.one_answer == pytest.approx((60.0, 40.0))
    assert f1a.one_answer == pytest.approx((0.0, 100 * 4 / 7))
    assert (accuracy.majority, f1a.majority) == (60.0, 0.0)


def test_the_likeliest_per_token_and_per_byte_may_be_others():
    one = {"candidates": [" ab", " abcdefgh", "é"], "tokens": [1, 3, 2], "choice": 0}
    one["logprobs"] = [-2.0, -4.5, -2.8]  # per token -2, -1.5, -1.4; per byte -1, -0.56, -1.4
    equal = {"candidates": ["a", "b"], "tokens": [1, 1], "logprobs": [-1.0, -1.0], "choice": 0}
    rows = table(*({**one, "gold": gold} for gold in range(3)), {**equal, "gold": 0})
    names = ("accuracy", "accuracy_per_token", "accuracy_per_byte")
    found = scores(rows.filter(pa.array([True, False, False, True])), names, classes=0)
    assert [score.value for score in found] == [100.0, 50.0, 50.0]
    assert [score.value for score in scores(rows.slice(2), names, classes=0)] == [50.0, 100.0, 50.0]
    assert [score.value for score in scores(rows.slice(1, 1), names, classes=0)] == [0.0, 0.0, 100.0]
    assert found[1].majority == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    with pytest.raises(UserError, match="accuracy_per_byte is for items with candidates of their own"):
        check_metrics(["accuracy_per_byte"], classes=2)


def test_metrics_that_do_not_exist_or_do_not_fit_are_refused():
    with pytest.raises(UserError, match="unknown metric 'macrof1'; did you mean 'macro_f1'"):
        check_metrics(["macrof1"], classes=2)
    with pytest.raises(UserError, match="mcc needs classes, and the items of this task have candidates of their own"):
        check_metrics(["accuracy", "mcc"], classes=0)
    with pytest.raises(UserError, match="f1 is for items with candidates of their own, and this task has classes"):
        check_metrics(["f1"], classes=2)
