"""A masked language model that fills blanks whose lengths it is told: the peer of blank_lengths.py.

It is the same Transformer as the GLM, read from both sides: each blank is as many [MASK] as it has tokens, and each of
these is predicted where it stands. Filled one token a pass, each of which sees all that was written before.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from glm_model.generation.session import evaluating
from glm_model.layout import Example, Prompt
from glm_model.model import GLM

Order = Literal["left to right", "most confident first"]


def widened(prompt: Prompt, sizes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [T], bool [T]): the context with as many masks for each blank as its size, and where these masks are."""
    repeats = np.ones(len(prompt.tokens), np.int64)
    repeats[prompt.mask_positions] = sizes
    is_mask = np.zeros(len(prompt.tokens), bool)
    is_mask[prompt.mask_positions] = True
    return np.repeat(prompt.tokens, repeats), np.repeat(is_mask, repeats)


def in_place(prompt: Prompt, answers: Sequence[np.ndarray]) -> Example:
    """The example in which each token of the answers is predicted where it stands; nothing is appended."""
    tokens, is_mask = widened(prompt, [len(answer) for answer in answers])
    targets, zeros = np.zeros_like(tokens), np.zeros_like(tokens)
    targets[is_mask] = np.concatenate(answers)
    return Example(
        tokens=tokens,
        targets=targets,
        position_ids=np.arange(len(tokens)),
        block_position_ids=zeros,
        loss_mask=is_mask.astype(np.int64),
        segment_ids=zeros,
        context_end=np.full(len(tokens), len(tokens)),
        objective_ids=zeros,
    )


def packed(examples: Sequence[Example]) -> dict[str, Tensor]:
    """A batch of one row [1, L] that holds several examples, none of which sees another."""
    begins = np.cumsum([0, *(len(one.tokens) for one in examples[:-1])])
    rows = {name: [one.arrays()[name] for one in examples] for name in examples[0].arrays()}
    rows["segment_ids"] = [np.full(len(one.tokens), number) for number, one in enumerate(examples)]
    rows["context_end"] = [one.context_end + begin for one, begin in zip(examples, begins, strict=True)]
    return {name: torch.from_numpy(np.concatenate(parts))[None] for name, parts in rows.items()}


def fill_masked(
    model: GLM,
    prompts: Sequence[Prompt],
    sizes: Sequence[Sequence[int] | np.ndarray],
    *,
    order: Order,
    banned: Sequence[int],
    at_once: int = 32,
) -> list[list[np.ndarray]]:
    """The tokens of each blank, as [prompt][blank]. sizes: how many tokens each blank has, at least one; banned: ids
    that are never written; at_once: prompts of a pass.
    """
    found: list[list[np.ndarray]] = [[] for _ in prompts]
    alike = sorted(range(len(prompts)), key=lambda number: sum(sizes[number]))
    with evaluating(model), torch.inference_mode():
        for begin in range(0, len(alike), at_once):
            numbers = alike[begin : begin + at_once]
            rows = [widened(prompts[number], sizes[number]) for number in numbers]
            _fill(model, [tokens for tokens, _ in rows], [is_mask.copy() for _, is_mask in rows], order, banned)
            for number, (tokens, is_mask) in zip(numbers, rows, strict=True):
                found[number] = np.split(tokens[is_mask], np.cumsum(sizes[number])[:-1])
    return found


def _fill(model: GLM, rows: list[np.ndarray], is_open: list[np.ndarray], order: Order, banned: Sequence[int]) -> None:
    """Write a token a pass into each row that has an open place, until none has."""
    while numbers := [number for number, places in enumerate(is_open) if places.any()]:
        asked = [np.flatnonzero(is_open[number]) for number in numbers]
        if order == "left to right":
            asked = [places[:1] for places in asked]
        batch = packed([_read(rows[number]) for number in numbers])
        begins = np.cumsum([0, *(len(rows[number]) for number in numbers[:-1])])
        at = np.concatenate([places + begin for places, begin in zip(asked, begins, strict=True)])
        inputs = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        logits_MV = model.logits(model.hidden(*(batch[name] for name in inputs), at=torch.from_numpy(at)))
        logits_MV[:, list(banned)] = -torch.inf
        best = logits_MV.max(1)
        confidence_M = (best.values - logits_MV.logsumexp(1)).numpy()
        bounds = np.cumsum([0, *(len(places) for places in asked)])
        for number, places, low, high in zip(numbers, asked, bounds[:-1], bounds[1:], strict=True):
            chosen = int(confidence_M[low:high].argmax())
            rows[number][places[chosen]] = int(best.indices[low + chosen])
            is_open[number][places[chosen]] = False


def _read(tokens: np.ndarray) -> Example:
    """A context of which nothing is predicted."""
    return in_place(Prompt(tokens, np.empty(0, np.int64)), [np.empty(0, np.int64)])
