"""Document objective: one long blank of 50 to 100 % of the text, for long generation (paper, section 2.1).

Two forms, as in the authors' code: a suffix runs to the segment's end, eos included where there is one, and nothing
follows the mask; the other form lies anywhere inside the text. Both end in `[eop]`: the authors' suffix does not, and
their models never learn to stop on it. With min_ratio 1 and suffix_share 1 this is a GPT-style language model.
"""

from dataclasses import dataclass

import numpy as np

from infra.errors import UserError
from pipelines import keyed
from pipelines.objectives import SegmentBatch

MASK = "gmask"
_SIZE, _FORM, _PLACE = range(1, 4)


@dataclass(frozen=True)
class Config:
    min_ratio: float = 0.5
    """Smallest share of the text that is blanked; shares are uniform from here to 1."""
    suffix_share: float = 0.5
    """Share of segments blanked to their end; the others are blanked somewhere inside."""

    def __post_init__(self) -> None:
        if not 0 < self.min_ratio <= 1:
            raise UserError(
                f"objective document: min_ratio={self.min_ratio} is outside (0, 1]", try_="use 0.5, as the paper"
            )
        if not 0 <= self.suffix_share <= 1:
            raise UserError(
                f"objective document: suffix_share={self.suffix_share} is outside [0, 1]", try_="use 0.5, the default"
            )


def spans(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    text = batch.text_ends - 1
    least = np.maximum(np.ceil(config.min_ratio * text - 1e-9).astype(np.int64), 1)
    size = least + keyed.below(keyed.bits(batch.keys, 1, stream=_SIZE)[:, 0], text - least + 1)
    inside = 1 + keyed.below(keyed.bits(batch.keys, 1, stream=_PLACE)[:, 0], text - size + 1)
    suffix = keyed.uniform(keyed.bits(batch.keys, 1, stream=_FORM)[:, 0]) < config.suffix_share
    start = np.where(suffix, batch.text_ends - size, inside)
    end = np.where(suffix, batch.lengths, start + size)
    return np.stack((start, end), axis=1), np.arange(len(batch) + 1)


def blank_moments(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(len(batch)), np.zeros(len(batch))
