"""Batches for benchmarks of the step: segments of 512 tokens with 24 blanks, 560 positions, packed or one per row.

What the token objective makes of a full segment: 15 % of its tokens in blanks of mean length 3.2.
"""

import numpy as np
import torch

from glm_model.config import GLMConfig, attention_density, flops_per_token
from glm_model.layout import Marks, Ragged, expand

TOKENS, BLANKS, BLANKED = 512, 24, 77
POSITIONS = TOKENS + 2 * BLANKS
LOSS_POSITIONS = BLANKED + BLANKS  # a blank's tokens and its end


def make_batch(
    segments: int, *, vocab_size: int, width: int | None = None, device: str = "cpu", seed: int = 0
) -> dict[str, torch.Tensor]:
    """The batch of a row of `width` positions that holds all segments, or without a width of a row per segment."""
    rng = np.random.default_rng(seed)
    low = min(20, vocab_size // 4)
    mask, sop, eop, pad = low - 1, low - 2, low - 3, 0
    ragged = Ragged(
        rng.integers(low, vocab_size, segments * TOKENS),
        np.arange(segments + 1) * TOKENS,
        np.concatenate([_spans(rng) for _ in range(segments)]),
        np.arange(segments + 1) * BLANKS,
        np.full(segments, mask),
        np.zeros(segments, np.int64),
    )
    rows = np.arange(segments + 1) if width is None else np.array([0, segments])
    example = expand(ragged, rows, width=width or POSITIONS, marks=Marks(sop=sop, eop=eop, pad=pad))
    return {name: torch.from_numpy(array).to(device) for name, array in example.arrays().items()}


def useful_flops(config: GLMConfig) -> float:
    """Useful operations of forward and backward, per position of a segment."""
    return flops_per_token(
        config,
        segment_length=POSITIONS,
        density=attention_density(POSITIONS - LOSS_POSITIONS, POSITIONS),
        blank_share=LOSS_POSITIONS / POSITIONS,
    )


def _spans(rng: np.random.Generator) -> np.ndarray:
    """Half-open (start, end) of the blanks of a segment in random order, at least one token between two."""
    cuts = np.sort(rng.choice(np.arange(1, BLANKED), BLANKS - 1, replace=False))
    sizes = np.diff(np.concatenate(([0], cuts, [BLANKED])))
    starts = np.sort(rng.choice(TOKENS - 1 - BLANKED, BLANKS, replace=False)) + 1
    starts = starts + np.cumsum(sizes) - sizes
    return rng.permutation(np.stack((starts, starts + sizes), 1))
