"""Choose the next token: greedy, or drawn at a temperature, from the top k, from the top p; and what may not be chosen.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glm_model.decoding import Decoding


class Written(NamedTuple):
    """What was written into one mask."""

    tokens: tuple[int, ...]
    """Without the end token."""
    logprob: float
    """Natural log of the model's own probability (before temperature, filters and vetoes), the end token included where
    it was written.
    """


def draws_for(seed: int, tokens: np.ndarray, sample: int) -> np.random.Generator:
    """The source of a text's draws: the same wherever and beside whatever else the text is filled."""
    key = hashlib.blake2b(np.asarray(tokens, "<i8").tobytes(), digest_size=16, key=f"{seed} {sample}".encode())
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key.digest(), "little")))


def veto(
    scores_BV: Tensor,
    written: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    stop: Sequence[int],
    banned: Sequence[int] = (),
) -> Tensor:
    """The scores, -inf where a token may not follow what was written: a banned one, an end too early, an n-gram again.

    A row that the last two would leave without a token is spared them.
    """
    if banned:
        scores_BV = scores_BV.index_fill(1, torch.tensor(banned, device=scores_BV.device), -torch.inf)
    vetoed = [
        (row, token)
        for row, tokens in enumerate(written)
        for token in (
            *(stop if len(tokens) < decoding.min_tokens else ()),
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
    """The next token of each row, int64 [B]; uniforms: a draw from [0, 1) per row where the temperature is not 0.

    Filters: top-k, then top-p on what is left.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(1)
    logits, ids = logits_BV / decoding.temperature, None
    if decoding.top_k or decoding.top_p < 1:
        logits, ids = torch.topk(logits, min(decoding.top_k or logits.shape[1], logits.shape[1]), dim=1)
    probs = torch.softmax(logits, 1)
    if decoding.top_p < 1:
        # A token stays when those before it do not reach top_p yet; so the first one always stays.
        probs = probs.masked_fill(probs.cumsum(1) - probs >= decoding.top_p, 0)
    reached = probs.cumsum(1)
    total = reached[:, -1:]
    goal = torch.tensor(uniforms, dtype=reached.dtype, device=reached.device)[:, None] * total
    goal = torch.minimum(goal, torch.nextafter(total, torch.zeros_like(total)))  # a draw may round to 1
    rank = (reached <= goal).sum(1, keepdim=True)
    return (rank if ids is None else ids.gather(1, rank))[:, 0]


def _repeats(tokens: Sequence[int], n: int) -> set[int]:
    """Tokens that would end an n-gram that is there already."""
    if len(tokens) < n:
        return set()
    last = tuple(tokens[len(tokens) - n + 1 :])
    return {tokens[i + n - 1] for i in range(len(tokens) - n + 1) if tuple(tokens[i : i + n - 1]) == last}
