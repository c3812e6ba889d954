"""Whether two models, or two groups of seeds, can be told apart by their answers to the same items.

Two models: a bootstrap over the groups of items, which draws the same items for both, gives the interval of the
difference; for accuracy over items that stand alone the exact test of McNemar (1947) gives p, which the items on which
both are right, or both wrong, do not enter. Two groups of seeds: the bootstrap draws seeds and items together.
Several tasks at once are corrected by Holm (1979): with twenty of them one would differ by chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0
_AT_ONCE = 1 << 21  # numbers at a time: 16 MiB


@dataclass(frozen=True)
class Difference:
    """What the second has more than the first, on the scale of the metric."""

    value: float
    """That of the means, where there are several seeds."""
    low: float
    """The 95 % interval."""
    high: float
    p: float
    """How likely a difference of this size would be if there was none; two-sided, by the bootstrap."""


def difference(
    value: Callable[[np.ndarray], np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference | None:
    """The difference of a metric between two models, or two groups of seeds, that answered the same items.

    value: sums [..., *S] of what the metric counts -> its values [...]; first [A, G, *S] and second [B, G, *S]: these
    sums for each of A and B seeds and each group of items, in one order. Seeds are drawn where there are several: the
    deviation of the mean of n drawn ones is that of the population but for a factor of sqrt((n - 1) / n), which is put
    right. None for a single group: nothing can be said then.
    """
    groups = first.shape[1]
    if groups < 2:
        return None
    sums = np.concatenate([first, second])
    seeds = (len(first), len(second))
    by_group = np.moveaxis(sums, 1, 0).reshape(groups, -1)
    kinds, how_many = np.unique(by_group, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    whole = value(sums.sum(1))
    told = float(whole[seeds[0] :].mean() - whole[: seeds[0]].mean())
    step = max(1, _AT_ONCE // max(len(kinds), kinds.shape[1]))
    drawn = []
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        of_items = rng.multinomial(groups, how_many / groups, size=size) @ kinds
        values = value(of_items.reshape(size, *sums.shape[:1], *sums.shape[2:]))
        drawn.append(_mean(values[:, seeds[0] :], rng) - _mean(values[:, : seeds[0]], rng))
    found = np.concatenate(drawn)
    low, high = np.percentile(found, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    least = min((found <= 0).sum(), (found >= 0).sum())
    return Difference(told, float(low), float(high), min(1.0, 2 * (int(least) + 1) / (resamples + 1)))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p of the exact test, two-sided: how likely the two would differ so much where equally many items are right.

    first, second: whether each item is right, bool [N].
    """
    from scipy.stats import binomtest

    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def holm(several: Sequence[float]) -> list[float]:
    """The p-values [N] corrected for there being N of them, in their order."""
    order = np.argsort(several, kind="stable")
    scaled = np.array(several)[order] * np.arange(len(several), 0, -1)
    corrected = np.empty(len(several))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


def _mean(values_BS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means [B] over seeds that are drawn as often as there are, of values [B, S]."""
    seeds = values_BS.shape[1]
    mean_B = values_BS.mean(1)
    if seeds == 1:
        return mean_B
    places = rng.integers(0, seeds, values_BS.shape)
    drawn_B = np.take_along_axis(values_BS, places, axis=1).mean(1)
    return mean_B + (drawn_B - mean_B) * np.sqrt(seeds / (seeds - 1))
