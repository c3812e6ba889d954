"""What a metric is: something that is counted of every item, and a value that follows from sums of it.

So a score, its bootstrap over groups of items, and what one answer to all would get need the sums of each group alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Answers:
    """Judged items, and what was answered to them."""

    items: pa.Table
    """As `items.SCHEMA`, each with a gold answer."""
    choice: np.ndarray
    """Number of a candidate, int64 [N]; -1: none."""
    classes: int
    """How many the task has; 0: items have candidates of their own."""

    @cached_property
    def gold(self) -> np.ndarray:
        """Number of the right candidate, or the first of several, int64 [N]."""
        return self.items["gold"].to_numpy().astype(np.int64)

    @cached_property
    def is_right(self) -> np.ndarray:
        """Whether a right candidate is chosen, bool [N]."""
        is_right = self.choice == self.gold
        several = np.flatnonzero(self.items["golds"].is_valid().to_numpy())
        for row, golds in zip(several.tolist(), self.items["golds"].take(pa.array(several)).to_pylist(), strict=True):
            is_right[row] = self.choice[row] in golds
        return is_right


def recorded(items: pa.Table) -> np.ndarray:
    """What the model chose, int64 [N]."""
    return items["choice"].fill_null(-1).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class Metric:
    """A metric, on 0 to 100 unless it says otherwise."""

    sums: Callable[[Answers, np.ndarray], np.ndarray]
    """(answers, number of the group of each item [N]) -> what is counted, summed over each group: [G, *S]."""
    value: Callable[[np.ndarray], np.ndarray]
    """Sums [..., *S] -> values [...]."""
    needs: Literal["choices", "classes", "candidates", "likelihoods", "written"] = "choices"
    """classes: items that share their candidates; candidates: items that have their own; likelihoods: those of the
    right candidates, whatever is chosen; written: texts that were generated.
    """
    choose: Callable[[pa.Table], np.ndarray] = recorded
    """What is taken as chosen, int64 [N], of the log-probabilities of items."""
    digits: int = 1
    """Behind the point, where a value is shown."""
    counted: Callable[[np.ndarray], int] | None = None
    """Sums over all items [*S] -> of how many things this is the mean; None: of all items."""
    variant: Callable[[pa.Table], str] | None = None
    """Which variant it is of those that have its name elsewhere, for judged items: what stands with a score."""


def mean_of(values: Callable[[Answers], np.ndarray], **options) -> Metric:
    """The mean of something on 0 to 1, of each item [N]; items with NaN do not count."""

    def sums(answers: Answers, groups: np.ndarray) -> np.ndarray:
        found = values(answers)
        counts = np.isfinite(found)
        both = np.stack((np.where(counts, found, 0.0), counts), axis=1)
        return sum_by_group(both, groups)

    def value(sums: np.ndarray) -> np.ndarray:
        total, count = sums[..., 0], sums[..., 1]
        return 100.0 * np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    return Metric(sums, value, counted=lambda sums: int(sums[1]), **options)


def sum_by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums [G, *S] of values [N, *S] over the groups 0 .. G - 1."""
    sums = np.zeros((int(groups.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, groups, values)
    return sums
