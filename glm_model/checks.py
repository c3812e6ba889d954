"""Checks that several parts share: of a batch's tensors, by form alone, and of what a model computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def check_fields(batch: Mapping[str, Any], *, like: str, shape: Sequence[int] | None = None) -> None:
    """Raise ValueError unless all fields of a batch are int64 tensors (`loss_mask`: of any integers, or bool) of one
    shape: the field `like`'s, or the given one. A field that is None passes. Waits for no device.
    """
    for name, value in batch.items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}; the model takes torch tensors: use torch.as_tensor")
        if name == "loss_mask":
            if value.is_floating_point() or value.is_complex():
                raise ValueError(f"loss_mask is {value.dtype}; it takes integers or bool, and 0 where nothing is asked")
        elif value.dtype != torch.int64:
            raise ValueError(f"{name} is {value.dtype}; the model takes torch.int64: use .long()")
    wanted = list(batch[like].shape if shape is None else shape)
    for name, value in batch.items():
        if value is not None and list(value.shape) != wanted:
            raise ValueError(f"{name} has shape {list(value.shape)} where {like} has {wanted}")


def check_finite(model: nn.Module, values: Iterable[float]) -> None:
    """Raise ValueError when a log-probability that a model gave is NaN or infinite, with what is behind it."""
    if all(map(math.isfinite, values)):
        return
    bad = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ValueError(
            f"the model's weights are not finite: {bad[0]}{more} hold NaN or infinity, so nothing it says means "
            "anything. Load another checkpoint: this one's training diverged, or its file is damaged"
        )
    raise ValueError(
        "the model's weights are finite, and its probabilities are not: numbers overflow on the way. Use float32 "
        "(model.float()), or another checkpoint"
    )
