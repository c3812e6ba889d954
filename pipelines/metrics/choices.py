"""Metrics of choices, on 0 to 100: accuracy, the unweighted mean of F1 over classes, Matthews' correlation.

They are functions of `counts` [K, K + 1]: how often each class was chosen (columns) for each gold class (rows); the
last column counts items for which nothing was chosen. scikit-learn gives a score. Its resamples for an interval are
scored by `over_resamples`, the same formulas over an array [B, K, K + 1]: a call of scikit-learn takes 4 ms, which
1,000 resamples of three metrics would make 12 s. A test holds both together.
"""

import warnings

import numpy as np

NAMES = ("accuracy", "macro_f1", "mcc")
OF_CLASSES = ("macro_f1", "mcc")
"""Those that need classes which all items share."""


def count_choices(gold: np.ndarray, choice: np.ndarray, classes: int) -> np.ndarray:
    """[K, K + 1] of gold and choice [N]; a choice of -1 is none."""
    counts = np.zeros((classes, classes + 1), np.int64)
    np.add.at(counts, (gold, np.where(choice < 0, classes, choice)), 1)
    return counts


def score(name: str, counts: np.ndarray) -> float:
    """The metric of this name. Classes of the task that neither gold nor choices have count in macro_f1, with an F1 of
    0; mcc is 0 where gold or choices are all one class.
    """
    from sklearn import metrics

    gold, choice = np.nonzero(counts)
    weights = counts[gold, choice]
    if name == "accuracy":
        return 100.0 * float(metrics.accuracy_score(gold, choice, sample_weight=weights))
    if name == "macro_f1":
        options = {"labels": list(range(len(counts))), "average": "macro", "zero_division": 0.0}
        return 100.0 * float(metrics.f1_score(gold, choice, sample_weight=weights, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is a single label
        return 100.0 * float(metrics.matthews_corrcoef(gold, choice, sample_weight=weights))


def over_resamples(name: str, counts: np.ndarray) -> np.ndarray:
    """The metric of each resample [B], of counts [B, K, K + 1]."""
    counts = counts.astype(np.float64)
    right = counts.diagonal(axis1=1, axis2=2)
    total, gold = counts.sum((1, 2)), counts.sum(2)
    chosen = counts.sum(1)
    if name == "accuracy":
        return 100.0 * right.sum(1) / total
    if name == "macro_f1":
        both = gold + chosen[:, :-1]
        return 100.0 * np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0).mean(1)
    covariance = right.sum(1) * total - (gold * chosen[:, :-1]).sum(1)
    spread = (total**2 - (gold**2).sum(1)) * (total**2 - (chosen**2).sum(1))
    return 100.0 * np.divide(covariance, np.sqrt(spread), out=np.zeros_like(total), where=spread > 0)
