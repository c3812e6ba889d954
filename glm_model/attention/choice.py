"""Which attention backend a batch gets.

`make_mask` takes the first of `PREFERENCE` that can do the batch, and logs the reason when that is not the first; on a
CPU it takes `dense` for short rows. Before its first use on a GPU a backend must give the values and gradients of
`dense` on a small batch (`glm_model.attention.trial`).

Shapes: B rows, L row length.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_model.attention.backends import AttentionMask, Backend, build_mask, check_backend
from glm_model.attention.packed_rows import Runs, find_runs
from glm_model.attention.trial import failure_on

# By device, what should be fastest first: measured on CPUs (docs/lab.md). On CUDA, not measured yet, by the work that
# they waste: none, parts of the blocks at borders, other segments.
PREFERENCE: dict[str, tuple[Backend, ...]] = {"cpu": ("segments", "dense"), "cuda": ("varlen", "flex", "dense")}
# FlexAttention is compiled for each shape: tens of seconds, which short rows of many lengths do not repay.
_FLEX_FROM = 1024
# In shorter rows the calls for each segment cost a CPU more than what dense wastes: 5 times as much at 16 positions and
# 2 heads, as much at 128 and 12 (docs/lab.md).
_SEGMENTS_FROM = 128
# The widest rows of short segments: on a GPU `dense` may have to run, whose work grows with the square of the row.
_WIDEST = {"cpu": 4096}
_LOG = logging.getLogger("glm_model")


@dataclass(frozen=True)
class Use:
    """What attention is used for: the fast kernels can do only part of it."""

    dtype: torch.dtype = torch.float32
    """The dtype of queries, keys and values."""
    head_width: int = 64
    dropout_p: float = 0.0
    """Dropout of the attention weights."""


def make_mask(
    segment_ids_BL: Tensor | None,
    context_end_BL: Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
    *,
    backend: Backend | None = None,
    use: Use | None = None,
    runs: Runs | None = None,
) -> AttentionMask:
    """The mask of a batch of shape (B, L), for every layer.

    segment_ids_BL: index of the segment in its row, -1 on padding. None: a row is one segment.
    context_end_BL: row index one past the context of the position's segment. None: everything is context.
    backend: None takes the first of `PREFERENCE` that can do `use` (default: fp32, 64 wide, no dropout) and the batch.
    runs: those of the batch, where they are known; otherwise they are found, for which a GPU is waited for.
    Raises ValueError when a context ends outside its segment, or when the given backend cannot do it.
    """
    device, use = torch.device(device), use or Use()
    check_backend(backend)
    if segment_ids_BL is None and context_end_BL is None and device.type != "cpu" and backend in (None, "dense"):
        return AttentionMask("dense")
    segment_ids = torch.zeros(shape, dtype=torch.int64, device=device) if segment_ids_BL is None else segment_ids_BL
    runs = runs or find_runs(segment_ids, context_end_BL)
    if backend is None:
        backend = choose(device, use, runs, shape[1])
    elif reason := _unfit(backend, device, use, runs):
        raise ValueError(f"the {backend} attention backend {reason}. Use backend='dense'")
    return build_mask(backend, segment_ids, context_end_BL, runs)


def choose(device: torch.device, use: Use, runs: Runs | None, length: int) -> Backend:
    """The backend of a batch whose rows have `length` positions; runs: None where a segment is not in one piece."""
    if device.type == "cpu" and length < _SEGMENTS_FROM and not use.dropout_p:  # dropout costs dense far more
        return "dense"
    wanted = PREFERENCE.get(device.type, ("dense",))
    reasons: dict[Backend, str] = {}
    for backend in wanted:
        if backend == "flex" and length < _FLEX_FROM:
            reason = f"takes long to compile, and rows are shorter than {_FLEX_FROM:,}"
        else:
            reason = _unfit(backend, device, use, runs)
        if not reason:
            break
        reasons[backend] = reason
    if reasons:
        log_once("; ".join(f"{name} {reason}" for name, reason in reasons.items()), backend)
    return backend


def row_width(device: torch.device) -> int:
    """The most positions for a row of segments that may be packed into any rows. A CPU attends by segments: there wide
    rows cost no more than narrow ones, and leave less padding.
    """
    return _WIDEST.get(device.type, 512)


@functools.cache
def log_once(reasons: str, chosen: Backend) -> None:
    """Log why a backend was chosen that is not the first of `PREFERENCE`; each reason once in a process."""
    _LOG.warning("attention runs by %s: %s", chosen, reasons)


def _unfit(backend: Backend, device: torch.device, use: Use, runs: Runs | None) -> str | None:
    """Why a backend cannot do it, as the end of a sentence that begins with its name; None if it can."""
    if backend == "dense":
        return None
    if runs is None:
        return "needs each segment in one piece"
    if backend == "segments":
        return None if device.type == "cpu" else f"runs on a CPU, not on {device}"
    if backend == "flex" and use.dropout_p:
        return "has no dropout of attention weights (model.dropout=0 lets it run)"
    if backend == "flex" and device.type != "cpu" and not torch.is_grad_enabled():
        return "is compiled for every shape, and scoring and generation have many"
    if device.type == "cpu":
        # Flex has no backward there, and is slower than all others: it serves tests of its mask.
        return None if backend == "flex" and not torch.is_grad_enabled() else "runs on a GPU, not on cpu"
    if backend == "varlen" and use.dtype not in (torch.bfloat16, torch.float16):
        return f"needs bf16 or fp16, not {use.dtype}"
    if backend == "varlen" and (use.head_width % 8 or use.head_width > 256):
        return f"needs a head width of a multiple of 8 up to 256, not {use.head_width}"
    return failure_on(backend, device, use.dtype, use.head_width, use.dropout_p > 0)
