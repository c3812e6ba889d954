"""Sentence objective: whole sentences, until at least 15 % of the segment is covered (paper, section 2.1).

The whole segment is never blanked when it holds two sentences or more. Adjacent sentences may both be blanked, as two
blanks with two masks.
"""

from dataclasses import dataclass

import numpy as np

from infra.errors import UserError
from pipelines import keyed
from pipelines.objectives import SegmentBatch
from pipelines.ragged import offsets_of
from pipelines.token_classes import sentence_ends

MASK = "smask"
_ORDER = 1


@dataclass(frozen=True)
class Config:
    ratio: float = 0.15
    """Share of the segment's tokens to blank at least."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UserError(f"objective sentence: ratio={self.ratio} is outside (0, 1]", try_="use 0.15, as the paper")


def spans(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    start, end, segment = _sentences(batch)
    first = np.searchsorted(segment, np.arange(len(batch) + 1))
    index = np.arange(len(segment)) - first[segment]
    random = keyed.scramble(batch.keys[segment] + keyed.fold(_ORDER) + keyed.scramble(index.astype(np.uint64)))
    order = np.lexsort((index, random, segment))  # sentences of each segment in random order
    start, end = start[order], end[order]

    # A sentence is taken while those before it, in this order, do not cover the target yet:
    #
    #     sizes      4  9  3 | 5  2          two segments, targets 6 and 4
    #     covered    0  4 13 | 0  5
    #     taken      x  x  . | x  .
    size = end - start
    covered = np.cumsum(size) - size
    covered -= covered[np.minimum(first[:-1], max(len(size) - 1, 0))][segment]
    target = np.maximum((config.ratio * batch.lengths).astype(np.int64), 1)
    taken = covered < target[segment]
    several = np.diff(first)[segment] > 1
    is_last = index == (np.diff(first) - 1)[segment]
    taken &= ~(several & is_last)  # the last sentence in this order is left to read
    count = np.bincount(segment[taken], minlength=len(batch))
    return np.stack((start[taken], end[taken]), axis=1), offsets_of(count)


def blank_moments(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Sentences needed for the target, from the segment's mean sentence length; the variance is an upper estimate."""
    _, _, segment = _sentences(batch)
    sentences = np.bincount(segment, minlength=len(batch)).astype(np.float64)
    mean = np.minimum(1 + config.ratio * sentences, np.maximum(sentences - 1, 1))
    return mean, np.where(sentences > 1, mean, 0.0)


def _sentences(batch: SegmentBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, end, segment) of every sentence, each [Q]; start and end are relative to the segment.

    segment    [CLS] a  b  .  c  d  eos       sentences (1, 4) and (4, 6): a tail without an end is one too
    """
    ends = sentence_ends(batch.tokens, batch.token_classes.classes)
    last_text = batch.offsets[:-1] + batch.text_ends - 1
    ends[batch.offsets[:-1]] = False  # [CLS]
    ends[batch.offsets[1:] - 1] = False  # eos, if there is one
    ends[last_text] = True
    stop = np.flatnonzero(ends) + 1
    segment = np.searchsorted(batch.offsets, stop - 1, side="right") - 1
    stop_in_segment = stop - batch.offsets[segment]
    begin = np.concatenate(([1], stop_in_segment[:-1]))
    begin[np.concatenate(([True], segment[1:] != segment[:-1]))[: len(begin)]] = 1
    return begin[: len(stop)], stop_in_segment, segment
