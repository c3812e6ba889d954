"""Choose the next token: which ones are allowed, then the most probable one, or one drawn at random.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glm_model.decoding import Decoding


@dataclass(frozen=True)
class Limits:
    """The ids that frame a blank, and those that it may not hold."""

    sop: int
    """Begins a blank."""
    stop: tuple[int, ...]
    """Each of them ends a blank. They are neither kept nor fed."""
    banned: tuple[int, ...] = ()
    """Are never written. The authors' code bans nothing."""
    vocab_size: int | None = None
    """Ids from here on are never written; None allows every row of the embedding."""


class Written(NamedTuple):
    """What was written into one mask."""

    tokens: tuple[int, ...]
    """Without the end token."""
    logprob: float
    """Natural log of the model's own probability (before temperature, filters and vetoes), with the end token where
    one was written.
    """


def draws_for(seed: int, tokens: np.ndarray, sample: int) -> np.random.Generator:
    """The random source of one sample of a text. It does not depend on the texts that are filled beside it."""
    key = hashlib.blake2b(np.asarray(tokens, "<i8").tobytes(), digest_size=16, key=f"{seed} {sample}".encode())
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key.digest(), "little")))


def veto(scores_BV: Tensor, written: Sequence[Sequence[int]], decoding: Decoding, limits: Limits) -> Tensor:
    """The scores with -inf for each token that may not follow what was written: a banned one, an end that comes too
    early, one that repeats an n-gram.

    The last two rules do not apply to a row that they would leave without any token.
    """
    if limits.banned:
        banned = torch.tensor(limits.banned, device=scores_BV.device)
        scores_BV = scores_BV.index_fill(1, banned, -torch.inf)
    vetoed = [
        (row, token)
        for row, tokens in enumerate(written)
        for token in (
            *(limits.stop if len(tokens) < decoding.min_tokens else ()),
            *(_repeats(tokens, decoding.no_repeat_ngram) if decoding.no_repeat_ngram else ()),
        )
    ]
    if not vetoed:
        return scores_BV
    rows, tokens = torch.tensor(vetoed, device=scores_BV.device).unbind(1)
    left_BV = scores_BV.clone()
    left_BV[rows, tokens] = -torch.inf
    return torch.where(torch.isfinite(left_BV).any(1, keepdim=True), left_BV, scores_BV)


def choose(logits_BV: Tensor, decoding: Decoding, uniforms: Sequence[float] = ()) -> Tensor:
    """The next token of each row, int64 [B]. uniforms: for each row a number from [0, 1), unless the temperature is 0.

    top_k acts first, top_p on what it leaves.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(1)
    logits, ids = logits_BV / decoding.temperature, None
    if decoding.top_k or decoding.top_p < 1:
        logits, ids = torch.topk(logits, min(decoding.top_k or logits.shape[1], logits.shape[1]), dim=1)
    probs = torch.softmax(logits, 1)
    if decoding.top_p < 1:
        # A token stays as long as those before it have not reached top_p; so the first one always stays.
        probs = probs.masked_fill(probs.cumsum(1) - probs >= decoding.top_p, 0)
    reached = probs.cumsum(1)
    total = reached[:, -1:]
    goal = torch.tensor(uniforms, dtype=reached.dtype, device=reached.device)[:, None] * total
    goal = torch.minimum(goal, torch.nextafter(total, torch.zeros_like(total)))  # a uniform may round to 1
    rank = (reached <= goal).sum(1, keepdim=True)
    return (rank if ids is None else ids.gather(1, rank))[:, 0]


def _repeats(tokens: Sequence[int], n: int) -> set[int]:
    """The tokens that would complete an n-gram that has occurred before."""
    if len(tokens) < n:
        return set()
    last = tuple(tokens[len(tokens) - n + 1 :])
    return {tokens[i + n - 1] for i in range(len(tokens) - n + 1) if tuple(tokens[i : i + n - 1]) == last}
