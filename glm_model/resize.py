"""Give a trained model more positions or a larger vocabulary, or one id the embedding of another, in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from glm_model.model import GLM, INIT_STD, Layer


@torch.no_grad()
def extend_positions(model: GLM, positions: int, *, seed: int = 0) -> str:
    """Extend the position tables up to id `positions`, by rows drawn from N(0, 0.02). Returns a description.

    They are drawn as at initialisation, and as in the authors' code (train_utils.py): new rows have to be trained
    whatever they start from, and copies of trained ones would make two positions indistinguishable.
    Raises ValueError for fewer positions than there are.
    """
    old = model.config.positions
    _refuse_less("positions", old, positions, "a shorter text does not need a shorter table")
    if positions == old:
        return f"the position tables already reach to {old:,}"
    generator = torch.Generator().manual_seed(seed)
    tables = {
        name: table
        for name in ("position_embedding", "block_position_embedding")
        if (table := getattr(model, name)) is not None
    }
    for name, table in tables.items():
        rows = torch.empty(positions - old, model.config.width).normal_(0.0, INIT_STD, generator=generator)
        setattr(model, name, _longer(table, rows))
    _reshape(model, positions=positions)
    which = "both position tables" if len(tables) == 2 else "the position table"
    return (
        f"{which} extended from {old:,} to {positions:,}: {positions - old:,} new rows drawn from N(0, {INIT_STD}), "
        "to be trained on texts of that length"
    )


@torch.no_grad()
def grow_vocabulary(model: GLM, vocab_size: int) -> str:
    """Extend the embedding to `vocab_size` rows; each new one is the mean of the old. Returns a description.

    The embedding is also the output layer. exp(mean logit) <= mean exp(logit), so a new token starts with at most the
    average probability of an old one, and k new tokens take at most k / (V + k) from V old ones. Rows drawn as at
    initialisation would have logits near 0, while those of a trained model's unlikely tokens are far below: they would
    take most of the probability at once. Raises ValueError for fewer rows than there are.
    """
    old = model.config.vocab_size
    _refuse_less("vocab_size", old, vocab_size, "ids that no text gets only cost memory")
    if vocab_size == old:
        return f"the embedding already has {old:,} rows"
    weight = model.token_embedding.weight
    mean = weight.double().mean(0).to(weight.dtype)
    model.token_embedding = _longer(model.token_embedding, mean.expand(vocab_size - old, -1))
    _reshape(model, vocab_size=vocab_size)
    return (
        f"the embedding grew from {old:,} to {vocab_size:,} rows: {vocab_size - old:,} new ones, each the mean of the "
        "old, to be trained"
    )


@torch.no_grad()
def copy_row(model: GLM, source: int, target: int) -> str:
    """Copy the embedding of id `source` to id `target`. Returns a description. Raises ValueError for unknown ids."""
    weight = model.token_embedding.weight
    if outside := [row for row in (source, target) if not 0 <= row < len(weight)]:
        raise ValueError(f"the embedding has rows 0 to {len(weight) - 1:,}, but no row {outside[0]:,}")
    if torch.equal(weight[target], weight[source]):
        return f"row {target:,} of the embedding is already a copy of row {source:,}"
    weight[target] = weight[source]
    return f"row {target:,} of the embedding is now a copy of row {source:,}"


def _refuse_less(name: str, old: int, new: int, why: str) -> None:
    if not isinstance(new, int):
        raise ValueError(f"{name}: expected a whole number, got {new!r}")
    if new < old:
        raise ValueError(f"{name}={new:,} is less than the model's {old:,}: trained rows would be lost, and {why}")


def _longer(table: nn.Embedding, rows: Tensor) -> nn.Embedding:
    weight = table.weight
    longer = torch.cat([weight, rows.to(weight)])
    extended = nn.Embedding(len(longer), longer.shape[1], device="meta")  # on "meta" no rows are drawn in vain
    extended.weight = nn.Parameter(longer, requires_grad=weight.requires_grad)
    return extended.train(table.training)


def _reshape(model: GLM, **changes: Any) -> None:
    model.config = replace(model.config, **changes)
    for layer in cast("Iterable[Layer]", model.layers):
        layer.config = model.config
