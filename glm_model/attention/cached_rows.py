"""Attention of new positions over cached rows, in groups of neighbouring rows that hold about as many positions.

Rows padded to the longest of all would read as much padding as content (64 texts of 16 to 256 tokens). In a group the
padding costs less than another call would:

    slot   positions
    0      ######..        group 1: slots 0 to 2, of which the longest holds 8
    1      #######.
    2      ########
    3      ##############  group 2

Shapes: S slots, H heads, T or C cached positions, K head width, N new positions of all rows; in a group b rows, each of
L new positions.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# About how many padded positions cost as much as another call of attention: estimated, not tuned.
_CALL = 128
# About how many new positions of a row cost as much as reading its keys once: estimated, not tuned.
_PRODUCTS = 8


@dataclass(frozen=True)
class Group:
    """Rows in consecutive slots that are attended together."""

    slots: slice
    end: int
    """Positions of the longest of them, T."""
    rows: int
    """b"""
    new: slice | Tensor
    """Which of the N new positions are its queries, [b * L]; any where a row has fewer than L."""
    real: Tensor | None
    """Which of the b * L queries are real; None: all."""
    visible: Tensor | None
    """bool [b, 1, L or 1, T]: who sees whom; None: everyone sees everything."""


@dataclass(frozen=True)
class Groups:
    """How the new positions of all rows are attended."""

    groups: tuple[Group, ...]
    order: Tensor | None
    """Position i of the N is number order[i] of what the groups compute, one after the other; None: number i."""


def plan_groups(
    slots: np.ndarray, before: np.ndarray, new: np.ndarray, device: torch.device, *, call: int | None = None
) -> Groups:
    """Group rows b in slots[b], which held before[b] positions and get new[b] more, laid out row after row.

    The first positions of a row all see each other, later ones themselves and all before them. call: how many padded
    positions cost as much as another group; None: the estimate for a CPU, and on other devices one group for all.
    """
    starts = np.cumsum(new) - new
    live = np.flatnonzero(new)
    live = live[np.argsort(slots[live], kind="stable")]
    parts = _parts(slots[live], (before + new)[live], new[live], call or (_CALL if device.type == "cpu" else None))
    groups = tuple(_group(live[part], slots, before, new, starts, device) for part in parts)
    if (np.diff(live) > 0).all():
        return Groups(groups, None)
    begin_and_size = zip(starts[live].tolist(), new[live].tolist(), strict=True)
    computed = np.concatenate([np.arange(begin, begin + size) for begin, size in begin_and_size])
    return Groups(groups, _on(np.argsort(computed), device))


def attend_groups(q_NHK: Tensor, keys_SHCK: Tensor, values_SHCK: Tensor, plan: Groups, *, dropout_p: float) -> Tensor:
    """softmax(q k^T / sqrt(K)) v -> [N, H, K]. dropout_p applies to the weights."""
    mixed = []
    for group in plan.groups:
        q_bHLK = q_NHK[group.new].unflatten(0, (group.rows, -1)).transpose(1, 2)
        k, v = (stored[group.slots, :, : group.end].to(q_NHK.dtype) for stored in (keys_SHCK, values_SHCK))
        found = F.scaled_dot_product_attention(q_bHLK, k, v, attn_mask=group.visible, dropout_p=dropout_p)
        flat = found.transpose(1, 2).flatten(0, 1)
        mixed.append(flat if group.real is None else flat[group.real])
    mixed_NHK = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return mixed_NHK if plan.order is None else mixed_NHK[plan.order]


def _parts(slots: np.ndarray, after: np.ndarray, new: np.ndarray, call: int | None) -> list[slice]:
    """Rows in the order of their slots, cut where a row costs less in another group. None: never."""
    bounds, first, most, together = [0], 0, (0, 0), 0.0
    for number, (slot, *sizes) in enumerate(zip(slots.tolist(), after.tolist(), new.tolist(), strict=True)):
        joined = (max(most[0], sizes[0]), max(most[1], sizes[1]))
        cost = (slot - first + 1) * _cost(*joined)
        if number and call is not None and cost - together - _cost(*sizes) > call:
            bounds.append(number)
            first, most, together = slot, sizes, _cost(*sizes)
        elif number:
            most, together = joined, cost
        else:
            first, most, together = slot, sizes, _cost(*sizes)
    return [slice(*pair) for pair in itertools.pairwise([*bounds, len(slots)])]


def _cost(positions: int, new: int) -> float:
    """Cost of a row, in positions that are read."""
    return positions * (1 + new / _PRODUCTS)


def _group(
    rows: np.ndarray, slots: np.ndarray, before: np.ndarray, new: np.ndarray, starts: np.ndarray, device: torch.device
) -> Group:
    first, last, longest = int(slots[rows[0]]), int(slots[rows[-1]]), int(new[rows].max())
    count, place = last - first + 1, slots[rows] - first
    after = before[rows] + new[rows]
    column = np.arange(longest)
    has = np.zeros((count, longest), bool)
    has[place] = column < new[rows][:, None]
    picked = np.zeros((count, longest), np.int64)
    picked[place] = starts[rows][:, None] + np.minimum(column, new[rows][:, None] - 1)
    begins = (before[rows] == 0)[:, None]
    end = np.full((count, longest), int(after.max()))
    end[place] = np.where(begins, after[:, None], before[rows][:, None] + np.minimum(column + 1, new[rows][:, None]))
    if (end == end[:, :1]).all():
        end = end[:, :1]
    in_one_piece = bool((np.diff(picked.ravel()) == 1).all())
    visible = None if (end == after.max()).all() else torch.from_numpy(np.arange(after.max()) < end[..., None])
    return Group(
        slots=slice(first, last + 1),
        end=int(after.max()),
        rows=count,
        new=slice(int(picked[0, 0]), int(picked[-1, -1]) + 1) if in_one_piece else _on(picked.ravel(), device),
        real=None if has.all() else _on(np.flatnonzero(has), device),
        visible=None if visible is None else visible[:, None].to(device),
    )


def _on(index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(index).to(device)
