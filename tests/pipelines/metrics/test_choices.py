"""Law 17: metrics of choices are what scikit-learn says of all items, on 0 to 100, also where libraries differ."""

import numpy as np
import pytest
from sklearn import metrics

from infra.errors import UserError
from pipelines.metrics.choices import NAMES, count_choices, over_resamples, score
from pipelines.metrics.scores import check_metrics

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
    counts = count_choices(np.array(gold), np.array(choice), classes)
    assert [score(name, counts) for name in NAMES] == pytest.approx(expected, abs=1e-3)


def test_counts_give_what_scikit_learn_says_of_the_items():
    rng = np.random.default_rng(0)
    gold, choice = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    counts = count_choices(gold, choice, 3)
    assert score("accuracy", counts) == pytest.approx(100 * metrics.accuracy_score(gold, choice))
    assert score("macro_f1", counts) == pytest.approx(100 * metrics.f1_score(gold, choice, average="macro"))
    assert score("mcc", counts) == pytest.approx(100 * metrics.matthews_corrcoef(gold, choice))


@pytest.mark.parametrize("name", NAMES)
def test_resamples_are_scored_as_scores_are(name):
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, (60, 3, 4)) * (rng.random((60, 3, 4)) < 0.6)
    counts[:, 0, 0] += 1  # no resample is empty
    assert over_resamples(name, counts) == pytest.approx([score(name, one) for one in counts], abs=1e-9)


def test_metrics_that_do_not_exist_or_do_not_fit_are_refused():
    with pytest.raises(UserError, match="unknown metric 'macrof1'; did you mean 'macro_f1'"):
        check_metrics(["macrof1"], classes=2)
    with pytest.raises(UserError, match="mcc needs classes, and the items of this task have candidates of their own"):
        check_metrics(["accuracy", "mcc"], classes=0)
