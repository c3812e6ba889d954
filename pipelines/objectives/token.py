"""Token objective: many short blanks until 15 % of the segment is covered (paper, section 2.1).

Lengths are Poisson(3), zero-truncated (so their mean is 3.157) and at most 39, as in the authors' code; blanks have at
least one token between them; each set of places is equally likely. About 1.5 us for a 512-token segment.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from infra.errors import UserError
from pipelines import keyed
from pipelines.objectives import SegmentBatch
from pipelines.ragged import offsets_of

MASK = "mask"
_LENGTHS, _SWAP, _PLACES, _ORDER = range(1, 5)  # streams of draws


@dataclass(frozen=True)
class Config:
    ratio: float = 0.15
    """Share of the segment's tokens to blank (the last blank overshoots it)."""
    mean_length: float = 3.0
    """Mean of the Poisson distribution of blank lengths, before 0 is cut off."""
    max_length: int = 39
    """Longest blank, in tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UserError(f"objective token: ratio={self.ratio} is outside (0, 1]", try_="use 0.15, as the paper")
        if self.mean_length <= 0 or self.max_length < 1:
            raise UserError(
                f"objective token: mean_length={self.mean_length}, max_length={self.max_length} leave no blank",
                try_="use 3 and 39, as the paper; at least a mean_length above 0 and a max_length of 1",
            )


def spans(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    room = batch.text_ends - 1
    target = _targets(batch.lengths, room, config)
    sizes, count = _draw_lengths(batch.keys, target, room, config)
    segments, most = sizes.shape
    reached = np.cumsum(sizes, axis=1)
    total = reached[:, -1]
    columns = np.arange(most)
    valid = columns < count[:, None]

    # Places: draws with replacement from the free tokens, sorted, then moved apart by the blanks and gaps before them:
    #
    #     9 tokens of text, blanks of 2 and 1     free = 9 - 3 - 1 = 5: draws from 0 .. 5, say 4 and 1
    #     sorted           1    4
    #     moved            1    4 + 2 + 1
    #     behind [CLS]     2    8                 blanks (2, 4) and (8, 9)
    #
    # At high ratios there may be no token left to keep two blanks apart: such segments have no gaps.
    gap = (total + count - 1 <= room).astype(np.int64)
    free = room - total - gap * (count - 1)
    start = keyed.below(keyed.bits(batch.keys, most, stream=_PLACES), (free + 1)[:, None])
    start[~valid] = np.iinfo(np.int64).max // 2
    start.sort(axis=1)
    start += gap[:, None] * columns
    start += reached
    start -= sizes
    start += 1

    # The order of prediction: a random one of each segment's blanks, those that are not valid at the end.
    random = keyed.bits(batch.keys, most, stream=_ORDER)
    random[~valid] = np.iinfo(np.uint64).max
    picked = (keyed.order(random) + most * np.arange(segments)[:, None])[valid]
    first = start.ravel()[picked]
    blanks = np.empty((len(picked), 2), np.int64)
    blanks[:, 0], blanks[:, 1] = first, first + sizes.ravel()[picked]
    return blanks, offsets_of(count)


def blank_moments(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    target = _targets(batch.lengths, batch.text_ends - 1, config)
    mean, variance = _count_moments(int(target.max(initial=1)), config.mean_length, config.max_length)
    return mean[target], variance[target]


def _targets(lengths: np.ndarray, room: np.ndarray, config: Config) -> np.ndarray:
    """Tokens to cover [N]: at least one, at most the text."""
    return np.minimum(np.maximum((config.ratio * lengths).astype(np.int64), 1), room)


def _draw_lengths(
    keys: np.ndarray, target: np.ndarray, room: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Blank lengths [N, K], 0 beyond a segment's count, and counts [N]: drawn until their sum reaches the target [N].

    room: text tokens [N].
    """
    table = _length_table(config.mean_length, config.max_length)
    # A blank takes at most half of the text, so that something is left to read (it matters below about 80 tokens).
    longest = np.maximum(room // 2, 1).astype(np.int64)
    columns = _usual_count(int(target.max(initial=1)), config)
    while True:
        lanes = keyed.bits(keys, -(-columns // 4), stream=_LENGTHS).astype("<u8").view("<u2")[:, :columns]
        sizes = np.minimum(table[lanes].astype(np.int64), longest[:, None])
        reached = np.cumsum(sizes, axis=1)
        if len(keys) == 0 or (reached[:, -1] >= target).all():
            break
        columns *= 2  # rare; the lengths already drawn stay what they are, since draws are keyed by their column
    count = (reached < target[:, None]).sum(axis=1) + 1
    columns = int(count.max(initial=1))
    sizes, last = sizes[:, :columns], count - 1
    sizes[np.arange(columns) > last[:, None]] = 0
    rows = np.arange(len(keys))
    sizes[rows, last] -= np.maximum(sizes.sum(axis=1) - room, 0)
    # The first k - 1 lengths are exchangeable and the last one is biased towards long ones: one swap shuffles them all.
    other = keyed.below(keyed.bits(keys, 1, stream=_SWAP)[:, 0], count)
    sizes[rows, last], sizes[rows, other] = sizes[rows, other], sizes[rows, last]
    return sizes, count


def _usual_count(target: int, config: Config) -> int:
    mean, variance = _count_moments(target, config.mean_length, config.max_length)
    return int(mean[target] + 6 * math.sqrt(variance[target])) + 2


def length_theory(config: Config) -> np.ndarray:
    """P(a blank has l tokens), l = 0, 1, ..., in segments long enough for any length."""
    return length_probabilities(config.mean_length, config.max_length)


@lru_cache(maxsize=16)
def length_probabilities(mean_length: float, max_length: int) -> np.ndarray:
    """P(length = l) for l in 0 .. max_length of the zero-truncated Poisson distribution."""
    lengths = np.arange(1, max_length + 1)
    log_weight = lengths * math.log(mean_length) - np.array([math.lgamma(length + 1) for length in lengths])
    weight = np.exp(log_weight - log_weight.max())
    return np.concatenate(([0.0], weight / weight.sum()))


@lru_cache(maxsize=16)
def _length_table(mean_length: float, max_length: int) -> np.ndarray:
    """Inverse distribution function of lengths at 16 bits, [65536]: one look-up for each length, from a cache."""
    cumulative = np.cumsum(length_probabilities(mean_length, max_length)[1:])
    lengths = np.minimum(np.searchsorted(cumulative, (np.arange(65536) + 0.5) / 65536) + 1, max_length)
    return lengths.astype(np.min_scalar_type(max_length))


@lru_cache(maxsize=16)
def _count_moments(target: int, mean_length: float, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of how many lengths it takes until their sum reaches t, for t = 0 .. target, both [target + 1].

    A renewal recursion: after a first length l there are t - l tokens to reach. For the mean M and the mean square S

        M(t) = 1 + sum of P(l) M(t - l)                     over l = 1 .. t - 1; M(0) = S(0) = 0
        S(t) = 1 + sum of P(l) (2 M(t - l) + S(t - l))
    """
    probability = length_probabilities(mean_length, max_length)
    first, second = np.zeros(target + 1), np.zeros(target + 1)
    for t in range(1, target + 1):
        reach = min(t - 1, max_length)
        weights = probability[1 : reach + 1]
        ahead = slice(t - 1, t - 1 - reach if t - 1 - reach >= 0 else None, -1)
        rest, rest_square = first[ahead][:reach], second[ahead][:reach]
        first[t] = 1 + weights @ rest
        second[t] = 1 + 2 * (weights @ rest) + weights @ rest_square
    return first, second - first**2
