"""Metrics of choices: accuracy, the unweighted mean of F1 over classes, F1 of the last class, Matthews' correlation.
Accuracy also of other choices: of the candidate that is the likeliest per token, or per byte.

Those of classes are functions of `counts` [K, K + 1]: how often each class was chosen (columns) for each gold class
(rows); the last column counts items for which nothing was chosen. Tests hold them to scikit-learn, which takes 4 ms for
a score: a bootstrap of 1,000 resamples would take 12 s for three metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.metrics.metric import Answers, Metric, mean_of


def count_choices(gold: np.ndarray, choice: np.ndarray, classes: int) -> np.ndarray:
    """[K, K + 1] of gold and choice [N]; a choice of -1 is none."""
    return _counts(gold, choice, np.zeros(len(gold), np.int64), classes)[0]


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """[..., K, K + 1] -> [...]. Classes of the task that neither gold nor choices have count with an F1 of 0."""
    return _f1(counts).mean(-1)


def last_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of the last class, the positive one of two: [..., K, K + 1] -> [...]."""
    return _f1(counts)[..., -1]


def mcc(counts: np.ndarray) -> np.ndarray:
    """Matthews' correlation [..., K, K + 1] -> [...]; 0 where gold or choices are all one class."""
    counts = counts.astype(np.float64)
    right = counts.diagonal(axis1=-2, axis2=-1).sum(-1)
    total, gold, chosen = counts.sum((-2, -1)), counts.sum(-1), counts.sum(-2)
    covariance = right * total - (gold * chosen[..., :-1]).sum(-1)
    spread = (total**2 - (gold**2).sum(-1)) * (total**2 - (chosen**2).sum(-1))
    return 100.0 * np.divide(covariance, np.sqrt(spread), out=np.zeros_like(total), where=spread > 0)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """[..., K, K + 1] -> [...]."""
    return 100.0 * counts.diagonal(axis1=-2, axis2=-1).sum(-1) / counts.sum((-2, -1))


def _is_right(answers: Answers) -> np.ndarray:
    return answers.is_right.astype(np.float64)


def _f1(counts: np.ndarray) -> np.ndarray:
    """[..., K, K + 1] -> [..., K]."""
    counts = counts.astype(np.float64)
    right = counts.diagonal(axis1=-2, axis2=-1)
    both = counts.sum(-1) + counts.sum(-2)[..., :-1]
    return 100.0 * np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)


def _per(length: Callable[[Mapping[str, Any]], Sequence[int]]) -> Callable[[pa.Table], np.ndarray]:
    """What chooses the candidate of the highest log p for its length. length: of each candidate of a row."""

    def choose(items: pa.Table) -> np.ndarray:
        rows = items.select(["candidates", "logprobs", "tokens"]).to_pylist()
        rates = (np.array(row["logprobs"]) / np.maximum(length(row), 1) for row in rows)
        return np.array([rate.argmax() for rate in rates], np.int64)

    return choose


def _num_bytes(row: Mapping[str, Any]) -> list[int]:
    return [len(text.strip().encode()) for text in row["candidates"]]


def _sums(answers: Answers, groups: np.ndarray) -> np.ndarray:
    return _counts(answers.gold, answers.choice, groups, answers.classes)


def _counts(gold: np.ndarray, choice: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((int(groups.max(initial=0)) + 1, classes, classes + 1), np.int64)
    np.add.at(counts, (groups, gold, np.where(choice < 0, classes, choice)), 1)
    return counts


OF_COUNTS = {"accuracy": accuracy, "macro_f1": macro_f1, "f1a": last_f1, "mcc": mcc}
"""Those that follow from counts [..., K, K + 1] -> [...]."""
METRICS = {
    "accuracy": mean_of(_is_right),
    "accuracy_per_token": mean_of(_is_right, needs="candidates", choose=_per(lambda row: row["tokens"])),
    "accuracy_per_byte": mean_of(_is_right, needs="candidates", choose=_per(_num_bytes)),
    "macro_f1": Metric(_sums, macro_f1, needs="classes"),
    "f1a": Metric(_sums, last_f1, needs="classes"),
    "mcc": Metric(_sums, mcc, needs="classes"),
}
