"""Rows that are read and written together: contexts first, then any number of tokens per row and call.

With a cache a call costs its own tokens; without one it recomputes everything, which is the reference for the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from glm_model import layout
from glm_model.cache import Cache
from glm_model.model import GLM


def piece(tokens: Sequence[int], place: int, *, first: int = 1) -> np.ndarray:
    """Inputs [3, n] of a blank whose mask is at `place`: tokens, position ids, block position ids from `first` ([sop]
    being 1).
    """
    return np.stack((np.asarray(tokens, np.int64), *layout.piece_positions(place, first, len(tokens))))


def known_ids(model: GLM, vocab_size: int | None) -> int:
    """How many ids have a probability: the rows of the embedding, or the first `vocab_size` of them. ValueError where
    that leaves none.
    """
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size={vocab_size} leaves no id: give the tokenizer's vocab_size, or None")
    return min(vocab_size or model.config.vocab_size, model.config.vocab_size)


@contextmanager
def evaluating(model: GLM) -> Iterator[None]:
    """Without dropout; training mode is left as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Reader:
    """A row per context; `feed` appends to the rows and returns what the model expects next."""

    def __init__(self, model: GLM, contexts: Sequence[np.ndarray], *, capacity: int, use_cache: bool = True):
        """contexts: tokens [n] of each row. capacity: the most positions that a row will have."""
        self.model = model
        self._fed = [np.stack((context, *layout.context_positions(len(context)))) for context in contexts]
        self._contexts = [len(context) for context in contexts]
        self.cache: Cache | None = None
        if use_cache:
            weight = model.token_embedding.weight
            self.cache = Cache(model.config, len(contexts), capacity, dtype=weight.dtype, device=weight.device)
            self.append(self._fed)

    @property
    def lengths(self) -> list[int]:
        """Positions of each row so far."""
        return self.cache.lengths.tolist() if self.cache else [fed.shape[1] for fed in self._fed]

    def feed(self, pieces: Sequence[np.ndarray]) -> Tensor:
        """Append inputs [3, n] to each row (`piece`; n may differ); logits [B, V], float32, of what follows each row's
        last one.
        """
        sizes = [inputs.shape[1] for inputs in pieces]
        if self.cache is not None:
            x_BLD = self.append(pieces)
        else:
            self._fed = [np.concatenate(pair, 1) for pair in zip(self._fed, pieces, strict=True)]
            x_BLD, sizes = self._read_all(), [fed.shape[1] for fed in self._fed]
        last = torch.tensor(sizes, device=x_BLD.device) - 1
        return self.model.logits(x_BLD[torch.arange(len(sizes), device=x_BLD.device), last]).float()

    def append(self, pieces: Sequence[np.ndarray]) -> Tensor:
        """As `feed`, with a cache only: hidden states [B, L, D] of all inputs, padding behind those of short rows."""
        sizes = [inputs.shape[1] for inputs in pieces]
        return self.model.hidden(*self._padded(pieces), cache=self.cache, counts=sizes)

    def select(self, rows: Sequence[int], *, since: int = 0) -> None:
        """Row i becomes what row rows[i] was (`Cache.select`)."""
        self._contexts = [self._contexts[row] for row in rows]
        if self.cache is not None:
            self.cache.select(rows, since=since)
        else:
            self._fed = [self._fed[row] for row in rows]

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first lengths[b] positions of each row."""
        if self.cache is not None:
            self.cache.rewind(lengths)
        else:
            self._fed = [fed[:, :length] for fed, length in zip(self._fed, lengths, strict=True)]

    def _read_all(self) -> Tensor:
        tokens, position_ids, block_position_ids = self._padded(self._fed)
        segment_ids, context_end = torch.zeros_like(tokens), torch.zeros_like(tokens)
        for row, (fed, context) in enumerate(zip(self._fed, self._contexts, strict=True)):
            segment_ids[row, fed.shape[1] :] = -1
            context_end[row, : fed.shape[1]] = context
        return self.model.hidden(tokens, position_ids, block_position_ids, segment_ids, context_end)

    def _padded(self, pieces: Sequence[np.ndarray]) -> Tensor:
        """[3, B, longest]: zeros on the right of short rows."""
        inputs = np.zeros((3, len(pieces), max(part.shape[1] for part in pieces)), np.int64)
        for row, part in enumerate(pieces):
            inputs[:, row, : part.shape[1]] = part
        return torch.from_numpy(inputs).to(self.model.token_embedding.weight.device)
