"""What a model is asked about a segment and its blanks: how many positions, how many targets, which arrays.

A mixture has one form, and whoever needs one of these asks it. GLM's own is here; those of the paper's ablations are in
`pipelines.blanks.ablations`, and nothing but the mixture knows that there are others.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from glm_model.layout import Example, Marks, Ragged, expand
from pipelines.ragged import Blanks, RowBatch, Segments


@dataclass(frozen=True)
class RowLayout:
    """What rows are laid out with, the same for all rows of a run."""

    mask_ids: np.ndarray
    """The mask token of each objective of the mixture, int64 [O]."""
    marks: Marks
    vocab_size: int
    """Ids of the tokenizer; those of `Form.extra_tokens` follow."""
    width: int
    """Positions of a row."""
    sequence_length: int
    """Tokens of the store's longest segments."""


@dataclass(frozen=True)
class Form:
    """GLM's form: the context with a mask for each blank, then the blanks as pieces (`glm_model.layout`)."""

    extra_tokens: int = 0
    """Ids behind the tokenizer's own that the model needs: the vocabulary grows, the store stays as it is."""
    positions_per_blank: ClassVar[int] = 2
    """Besides the segment's tokens: the mask and `[sop]`."""
    targets_per_blank: ClassVar[int] = 1
    """Besides the blanked tokens: `[eop]`."""
    on_device: ClassVar[bool] = True
    """Whether `glm_model.device_layout` can lay it out."""

    def positions(self, segments: Segments, blanks: Blanks) -> np.ndarray:
        """Positions that each segment takes once laid out, [N]."""
        return np.diff(segments.offsets) + self.positions_per_blank * blanks.counts

    def targets(self, blanks: Blanks) -> np.ndarray:
        """Tokens to predict of each segment, [N]."""
        return blanks.tokens + self.targets_per_blank * blanks.counts

    def visible_pairs(self, segments: Segments, blanks: Blanks) -> np.ndarray:
        """Pairs of a position and one that it sees, of each segment, [N].

        The context is seen by every position; of the pieces a position sees itself and what came before.
        """
        positions, predicted = self.positions(segments, blanks), self.targets(blanks)
        return (positions - predicted) * positions + predicted * (predicted + 1) / 2

    def extra_surface(self, number: int) -> str:
        """What people are shown for one of the `extra_tokens`, counted from 0. Raises ValueError for another number."""
        raise ValueError(f"expected one of {self.extra_tokens} extra tokens, got number {number}")

    def lay_out(self, rows: RowBatch, blanks: Blanks, layout: RowLayout) -> Example:
        """The rows as the model is asked them, [R, width]."""
        batch = blanked_batch(rows, blanks, layout.mask_ids)
        return expand(batch, rows.row_offsets, width=layout.width, marks=layout.marks)


def blanked_batch(rows: RowBatch, blanks: Blanks, mask_ids: np.ndarray) -> Ragged:
    """What `glm_model.layout.expand` takes. mask_ids: the mask token of each objective, [O]."""
    objective = blanks.objective.astype(np.int64)
    return Ragged(rows.tokens, rows.offsets, blanks.spans, blanks.span_offsets, mask_ids[objective], objective)
