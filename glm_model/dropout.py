"""Dropout that is cheap on a CPU: 16 random bits per element instead of torch's one double.

Measured on one core, 1M float32 elements: 2.5 ms against 6.6 ms. The rate is rounded to 1/65,536. On other devices and
in compiled code torch's own dropout runs. Masks come from torch's default CPU generator, one serial stream: they do not
depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p)."""
    if p == 0:
        return x
    own = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return _Dropout.apply(x, p) if own else F.dropout(x, p)


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """bool CPU tensor, False with probability p (rounded to 1/65,536)."""
    count = math.prod(shape)
    # int64 draws over the full range carry four independent 16-bit numbers each.
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(shape) >= round(p * _STEPS) - _STEPS // 2


def keep_scale(p: float) -> float:
    """1 / P(kept), for the rounded rate of `keep_mask`."""
    return _STEPS / (_STEPS - round(p * _STEPS))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep = keep_mask(x.shape, p)
        ctx.save_for_backward(keep)
        ctx.scale = keep_scale(p)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grad * keep).mul_(ctx.scale), None
