"""How far a score could be another on other items: a percentile bootstrap over items, drawn group by group.

Items of one group, such as the questions about a passage, are drawn together: they are right and wrong together, and an
interval that takes them as independent is too narrow. Percentile, not scipy's default (BCa), which is NaN where all
items are right. Another thing is the spread over seeds of training, which is told apart (`seeds`).
"""

from typing import NamedTuple

import numpy as np

from pipelines.metrics.known import METRICS

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
_AT_ONCE = 1 << 22  # counts at a time: 32 MiB


class Interval(NamedTuple):
    """The middle 95 % of the scores of resamples."""

    low: float
    high: float


def interval(name: str, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """The interval of a metric. groups: what it counts, summed over each group of items, [G, *S].

    None where a single group is all there is: nothing can be said then. The draws follow from the seed and the groups
    as a set: their order plays no part.
    """
    return interval_of_mean(name, groups[None], resamples=resamples, seed=seed)


def interval_of_mean(name: str, groups: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """The interval of a metric's mean over several models that answered the same items, such as those of several seeds.
    groups: what it counts [M, G, *S], for each model and group of items, the groups in one order. As `interval`.
    """
    models, size, *shape = groups.shape
    if size < 2:
        return None
    # Equal groups are one kind, of which a resample takes some: of 10,000 items alone there are K * (K + 1) kinds.
    by_group = np.moveaxis(groups, 1, 0).reshape(size, -1)
    kinds, how_many = np.unique(by_group, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // len(kinds))
    scores = []
    for first in range(0, resamples, step):
        drawn = rng.multinomial(size, how_many / size, size=min(step, resamples - first))
        of_models = METRICS[name].value((drawn @ kinds).reshape(-1, *shape))
        scores.append(of_models.reshape(-1, models).mean(1))
    drawn_scores = np.concatenate(scores)
    drawn_scores = drawn_scores[np.isfinite(drawn_scores)]  # a resample may have no item that the metric is of
    if not len(drawn_scores):
        return None
    low, high = np.percentile(drawn_scores, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))
