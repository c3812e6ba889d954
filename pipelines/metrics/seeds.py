"""How a score varies with the seed of training: its mean, and its sample standard deviation.

It is another thing than the interval over items (`intervals`): that says what other items would change, this says what
another seed would.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A score over seeds."""

    mean: float
    sd: float
    """Sample standard deviation, with n - 1 in the denominator."""
    seeds: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of the scores of several seeds, one of each. Raises ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError(f"expected the scores of at least two seeds, got {len(values)}")
    return Spread(statistics.fmean(values), statistics.stdev(values), len(values))
