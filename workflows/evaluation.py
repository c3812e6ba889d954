"""Validation: loss and bits per byte of the held-out rows, on the blanks that are stored with them.

`bits_per_byte` without a suffix is the unidirectional form (`[CLS] [gMASK]`, then the whole text), which can be set
beside n-gram models and compressors; with an objective's name it is comparable only within that objective.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from glm_model.train import TrainStep
from pipelines import blanks
from pipelines.batches import RowPlaces
from pipelines.blanks import BlanksConfig
from pipelines.feed import Reader, Recipe


def unidirectional(recipe: Recipe, mask_tokens: str) -> Recipe:
    """The same rows as one left-to-right blank each: a plain language model's question."""
    config = BlanksConfig(mixture="gpt", mask_tokens="task" if mask_tokens == "task" else "one")
    return replace(recipe, mixture=blanks.resolve(config), plan_key=None)


@torch.no_grad()
def evaluate(
    step: TrainStep,
    readers: dict[str, Reader],
    *,
    rows: int,
    micro_rows: int,
    rank: int,
    world: int,
    device: torch.device,
) -> dict[str, float]:
    """Metrics of up to `rows` validation rows, computed by all ranks together. readers: {"blanks": ..., "text":
    ...}.
    """
    was_training = step.training
    step.eval()
    metrics: dict[str, float] = {}
    for kind, reader in readers.items():
        totals = _totals(step, reader, rows=rows, micro_rows=micro_rows, rank=rank, world=world, device=device)
        metrics |= _named(kind, totals, reader.recipe.mixture)
    step.train(was_training)
    return metrics


def _totals(
    step: TrainStep, reader: Reader, *, rows: int, micro_rows: int, rank: int, world: int, device: torch.device
) -> np.ndarray:
    """(summed loss, targets, bytes) per objective, [3, O], over all ranks."""
    num_objectives = len(reader.recipe.mixture.names)
    totals = torch.zeros(3, step.num_objectives, dtype=torch.float64, device=device)
    for index, places in enumerate(_places(reader, rows, micro_rows)):
        if index % world == rank:
            batch = reader.micro_batch(places)
            sums, counts = step(batch.tensors(device))
            totals[0] += sums
            totals[1] += counts
            totals[2, :num_objectives] += torch.from_numpy(batch.blank_bytes).to(device)
    if world > 1:
        dist.all_reduce(totals)
    return totals.cpu().numpy()


def _places(reader: Reader, rows: int, micro_rows: int) -> list[RowPlaces]:
    """The first `rows` validation rows in store order, of a mix from each member in turn, micro_rows at a time."""
    group_rows = reader.split.group_rows
    group = np.repeat(np.arange(len(group_rows)), group_rows)
    row = np.concatenate([np.arange(n) for n in group_rows]) if len(group_rows) else np.zeros(0, np.int64)
    stores = [reader.split.base(shard) for shard, _ in reader.split.group_places]
    turn = np.zeros(len(group), np.int64)
    for store in dict.fromkeys(stores):
        mine = np.isin(group, [index for index, other in enumerate(stores) if other == store])
        turn[mine] = np.arange(mine.sum())
    order = np.argsort(turn, kind="stable")[:rows]
    group, row = group[order], row[order]
    starts = range(0, len(group), micro_rows)
    return [
        RowPlaces(
            np.zeros(len(group[i : i + micro_rows]), np.int64), group[i : i + micro_rows], row[i : i + micro_rows]
        )
        for i in starts
    ]


def _named(kind: str, totals: np.ndarray, mixture: Any) -> dict[str, float]:
    loss, targets, num_bytes = totals
    if kind == "text":
        return {"val/bits_per_byte": float(loss[0] / math.log(2) / num_bytes[0])} if num_bytes[0] else {}
    metrics = {}
    total = weight = 0.0
    for index, (name, share) in enumerate(zip(mixture.names, mixture.shares, strict=True)):
        if targets[index]:
            metrics[f"val/loss_{name}"] = float(loss[index] / targets[index])
            metrics[f"val/bits_per_byte_{name}"] = float(loss[index] / math.log(2) / num_bytes[index])
            total += share * metrics[f"val/loss_{name}"]
            weight += share
    if weight:
        metrics["val/loss"] = total / weight
    return metrics
