"""Masked language model, the paper's baseline instead of blank infilling: tokens are replaced and predicted in place.

Devlin et al. (NAACL 2019), section 3.1: 15 % of the tokens are predicted; 80 % of these become [MASK], 10 % a random
token, 10 % stay. IN_PLACE says so: nothing is appended to the segment, and every token sees all of it.
"""

from dataclasses import dataclass

import numpy as np

from infra.errors import UserError
from pipelines import keyed
from pipelines.objectives import SegmentBatch
from pipelines.ragged import offsets_of

MASK = "mask"
IN_PLACE = True
_ORDER = 1


@dataclass(frozen=True)
class Config:
    ratio: float = 0.15
    """Share of the text's tokens to predict."""
    random_share: float = 0.1
    """Share of these that a random token replaces."""
    kept_share: float = 0.1
    """Share of these that stay as they are."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UserError(f"objective masked_lm: ratio={self.ratio} is outside (0, 1]", try_="use 0.15, as BERT")
        if self.random_share < 0 or self.kept_share < 0 or self.random_share + self.kept_share > 1:
            raise UserError(
                f"objective masked_lm: random_share={self.random_share} and kept_share={self.kept_share} do not fit",
                why="both are shares of what is predicted, and the rest becomes [MASK]",
                try_="use 0.1 and 0.1, as BERT",
            )


def spans(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    room = batch.text_ends - 1
    count = _counts(room, config)
    # All text tokens in a random order within their segment: the first `count` of each are taken.
    first = np.cumsum(room) - room
    segment = np.repeat(np.arange(len(batch)), room)
    place = np.arange(len(segment)) - first[segment]
    random = keyed.scramble(keyed.fold(_ORDER, batch.keys)[segment] + keyed.scramble(place.astype(np.uint64)))
    order = np.lexsort((place, random, segment))
    taken = np.zeros(len(segment), bool)
    taken[order[(np.arange(len(order)) - first[segment]) < count[segment]]] = True
    start = 1 + place[taken]
    return np.stack((start, start + 1), axis=1), offsets_of(count)


def blank_moments(batch: SegmentBatch, config: Config) -> tuple[np.ndarray, np.ndarray]:
    count = _counts(batch.text_ends - 1, config)
    return count.astype(np.float64), np.zeros(len(batch))


def _counts(room: np.ndarray, config: Config) -> np.ndarray:
    return np.clip(np.round(config.ratio * room).astype(np.int64), 1, room)
