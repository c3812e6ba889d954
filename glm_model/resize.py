"""Give a trained model more positions, a larger vocabulary, an id of its own. It is changed in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from glm_model.model import GLM, INIT_STD, Layer


@torch.no_grad()
def extend_positions(model: GLM, positions: int, *, seed: int = 0) -> str:
    """Position tables up to id `positions`, new rows N(0, 0.02); says what was done.

    As at initialisation, and as in the authors' code (train_utils.py): rows beyond the table have to be trained
    whatever they start from, and a copy of trained ones would give two places the same name.
    Raises ValueError for fewer positions than there are.
    """
    old = model.config.positions
    _refuse_less("positions", old, positions, "a shorter text needs no shorter table")
    if positions == old:
        return f"the position tables reach to {old:,} already"
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
    """An embedding of `vocab_size` rows, new ones the mean of the old; says what was done.

    The embedding is the output layer too. exp(mean logit) <= mean exp(logit), so a new token starts with at most the
    average probability of an old one, and k new tokens take at most k / (V + k) from V old ones. Rows drawn like the
    initialisation have logits near 0, where those of a trained model's unlikely tokens are far below: they would take
    most of the probability at once. Raises ValueError for fewer rows than there are.
    """
    old = model.config.vocab_size
    _refuse_less("vocab_size", old, vocab_size, "ids that no text gets cost memory only")
    if vocab_size == old:
        return f"the embedding has {old:,} rows already"
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
    """Make the embedding of one id that of another; says what was done. What the source had is kept. Raises ValueError
    for ids that the embedding has not.
    """
    weight = model.token_embedding.weight
    if outside := [row for row in (source, target) if not 0 <= row < len(weight)]:
        raise ValueError(f"the embedding has rows 0 to {len(weight) - 1:,}, and no row {outside[0]:,}")
    if torch.equal(weight[target], weight[source]):
        return f"row {target:,} of the embedding is a copy of row {source:,} already"
    weight[target] = weight[source]
    return f"row {target:,} of the embedding made a copy of row {source:,}"


def _refuse_less(name: str, old: int, new: int, why: str) -> None:
    if not isinstance(new, int):
        raise ValueError(f"{name}: expected a whole number, got {new!r}")
    if new < old:
        raise ValueError(f"{name}={new:,} is less than the model's {old:,}: trained rows would be lost, and {why}")


def _longer(table: nn.Embedding, rows: Tensor) -> nn.Embedding:
    weight = table.weight
    longer = torch.cat([weight, rows.to(weight)])
    grown = nn.Embedding(len(longer), longer.shape[1], device="meta")  # without drawing rows that are thrown away
    grown.weight = nn.Parameter(longer, requires_grad=weight.requires_grad)
    return grown.train(table.training)


def _reshape(model: GLM, **changes: Any) -> None:
    model.config = replace(model.config, **changes)
    for layer in cast("Iterable[Layer]", model.layers):
        layer.config = model.config
