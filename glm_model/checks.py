"""Checks that several parts share: of a batch's tensors, and of what a model computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def check_fields(batch: Mapping[str, Any], *, like: str, shape: Sequence[int] | None = None) -> None:
    """Raise ValueError unless all fields of a batch are int64 tensors (`loss_mask`: of any integers, or bool) of one
    shape: that of the field `like`, or the given one. A field that is None passes. Does not wait for the device.
    """
    for name, value in batch.items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: expected a torch tensor, got {type(value).__name__}. Use torch.as_tensor")
        if name == "loss_mask":
            if value.is_floating_point() or value.is_complex():
                raise ValueError(
                    f"loss_mask: expected integers or bool, 0 where nothing is predicted, got {value.dtype}"
                )
        elif value.dtype != torch.int64:
            raise ValueError(f"{name}: expected torch.int64, got {value.dtype}. Use .long()")
    wanted = list(batch[like].shape if shape is None else shape)
    for name, value in batch.items():
        if value is not None and list(value.shape) != wanted:
            raise ValueError(f"{name} has shape {list(value.shape)} where {like} has {wanted}")


class Range(NamedTuple):
    """Integers that have to lie in 0 .. limit - 1, and what to do where they do not."""

    values: Tensor
    limit: int
    remedy: str


def check_ranges(ranges: Mapping[str, Range]) -> None:
    """Raise ValueError naming the first tensor that holds a value outside its range.

    On every device, since an index out of range on a GPU would end the process without saying which. Waits for the
    device once.
    """
    ranges = {name: each for name, each in ranges.items() if each.values.numel()}
    if not ranges:
        return
    extremes = torch.stack([x for each in ranges.values() for x in torch.aminmax(each.values)]).tolist()
    for (name, (_, limit, remedy)), low, high in zip(ranges.items(), extremes[::2], extremes[1::2], strict=True):
        if low < 0 or high >= limit:
            raise ValueError(f"{name} holds {low if low < 0 else high}: expected 0 to {limit - 1}. {remedy}")


class NotFiniteError(ValueError):
    """A model's weights, or what it computes, are NaN or infinite."""


def check_finite(model: nn.Module, values: Iterable[float]) -> None:
    """Raise NotFiniteError, with the cause, when a log-probability that a model gave is NaN or infinite."""
    if all(map(math.isfinite, values)):
        return
    bad = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise NotFiniteError(
            f"the model's weights are not finite: {bad[0]}{more} hold NaN or infinity, so its output is meaningless. "
            "Load another checkpoint: this one's training diverged, or its file is damaged"
        )
    raise NotFiniteError(
        "the model's weights are finite, but its probabilities are not: numbers overflow on the way. Use float32 "
        "(model.float()), or another checkpoint"
    )
