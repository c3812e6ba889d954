"""The average of SuperGLUE, as its leaderboard and Du et al. (ACL 2022) take it: of a task with two metrics their mean
counts, and tasks count alike. Without one of the eight tasks there is no average.
"""

from collections.abc import Mapping

METRICS: Mapping[str, tuple[str, ...]] = {
    "record": ("f1", "em"),
    "copa": ("accuracy",),
    "wsc": ("accuracy",),
    "rte": ("accuracy",),
    "boolq": ("accuracy",),
    "wic": ("accuracy",),
    "cb": ("macro_f1", "accuracy"),
    "multirc": ("f1a", "em"),
}
"""Task -> what its score is the mean of. The diagnostics do not count."""


def superglue_average(scores: Mapping[str, Mapping[str, float]]) -> float | None:
    """scores: task -> metric -> value. None where a metric of a task is missing."""
    if any(name not in scores.get(task, {}) for task, names in METRICS.items() for name in names):
        return None
    means = [sum(scores[task][name] for name in names) / len(names) for task, names in METRICS.items()]
    return sum(means) / len(means)
