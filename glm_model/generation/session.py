"""Rows that are read and extended together: contexts first, then any number of tokens per row and call.

With a cache a call costs its own tokens only; without one everything is recomputed, as the reference for the cache.
Inputs are int64 [3, n]: tokens, position ids, block position ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from glm_model import layout
from glm_model.cache import Cache
from glm_model.model import GLM


def piece_inputs(tokens: Sequence[int], place: int, *, first: int = 1) -> np.ndarray:
    """Inputs [3, n] of a piece whose mask is at `place`; its n tokens stand in the blank from `first` on (`[sop]`
    stands at 1).
    """
    return np.stack((np.asarray(tokens, np.int64), *layout.piece_positions(place, first, len(tokens))))


def known_ids(model: GLM, vocab_size: int | None) -> int:
    """How many ids have a probability: as many as the embedding has rows, or the first `vocab_size`. Raises ValueError
    where none would be left.
    """
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size={vocab_size} leaves no id: give the tokenizer's vocab_size, or None")
    return min(vocab_size or model.config.vocab_size, model.config.vocab_size)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run without dropout, and restore the mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Session:
    """One row per context. `feed` extends the rows and returns what the model expects next."""

    def __init__(self, model: GLM, contexts: Sequence[np.ndarray], *, capacity: int, use_cache: bool = True):
        """contexts: tokens [n] of each row. capacity: the most positions that a row will have."""
        self.model = model
        self._rows = [np.stack((context, *layout.context_positions(len(context)))) for context in contexts]
        self._contexts = [len(context) for context in contexts]
        self.cache: Cache | None = None
        if use_cache:
            weight = model.token_embedding.weight
            self.cache = Cache(model.config, len(contexts), capacity, dtype=weight.dtype, device=weight.device)
            self.append(self._rows, wanted=False)

    @property
    def lengths(self) -> list[int]:
        """Positions of each row so far."""
        return self.cache.lengths.tolist() if self.cache else [row.shape[1] for row in self._rows]

    def feed(self, inputs: Sequence[np.ndarray]) -> Tensor:
        """Append inputs [3, n] to each row, where n may differ. Returns the logits [B, V] in float32 of what follows
        the last position of each row.
        """
        if self.cache is not None:
            x_BLD, sizes = self.append(inputs), [new.shape[1] for new in inputs]
        else:
            self._rows = [np.concatenate(pair, 1) for pair in zip(self._rows, inputs, strict=True)]
            x_BLD, sizes = self._read_all(), [row.shape[1] for row in self._rows]
        last = torch.tensor(sizes, device=x_BLD.device) - 1
        return self.model.logits(x_BLD[torch.arange(len(sizes), device=x_BLD.device), last]).float()

    def append(self, inputs: Sequence[np.ndarray], *, wanted: bool = True) -> Tensor:
        """As `feed`, but needs a cache and returns the hidden states [B, L, D] of all inputs, with padding behind those
        of short rows. wanted: False where nobody needs them, which spares most of the last layer; [0, D].
        """
        sizes, padded = [new.shape[1] for new in inputs], self._padded(inputs)
        at = None if wanted else padded.new_empty(0)
        return self.model.hidden(*padded, cache=self.cache, counts=sizes, at=at)

    def select(self, rows: Sequence[int], *, since: Sequence[int] | None = None) -> None:
        """Row i becomes what row rows[i] was (`Cache.select`)."""
        self._contexts = [self._contexts[row] for row in rows]
        if self.cache is not None:
            self.cache.select(rows, since=since)
        else:
            self._rows = [self._rows[row] for row in rows]

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first lengths[b] positions of each row."""
        if self.cache is not None:
            self.cache.rewind(lengths)
        else:
            self._rows = [row[:, :length] for row, length in zip(self._rows, lengths, strict=True)]

    def _read_all(self) -> Tensor:
        tokens, position_ids, block_position_ids = self._padded(self._rows)
        segment_ids, context_end = torch.zeros_like(tokens), torch.zeros_like(tokens)
        for number, (row, context) in enumerate(zip(self._rows, self._contexts, strict=True)):
            segment_ids[number, row.shape[1] :] = -1
            context_end[number, : row.shape[1]] = context
        return self.model.hidden(tokens, position_ids, block_position_ids, segment_ids, context_end)

    def _padded(self, inputs: Sequence[np.ndarray]) -> Tensor:
        """[3, B, longest], with zeros on the right of short rows."""
        padded = np.zeros((3, len(inputs), max(new.shape[1] for new in inputs)), np.int64)
        for row, new in enumerate(inputs):
            padded[:, row, : new.shape[1]] = new
        return torch.from_numpy(padded).to(self.model.token_embedding.weight.device)
