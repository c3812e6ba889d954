"""Attention over packed rows: same segment, and the key is context or not after the query.

One function, `attention`, and a mask built once per batch for all layers. Backends:
  dense     torch's scaled_dot_product_attention with a bool mask [B, 1, L, L]: the reference; any device and segments.
  segments  CPU: one small attention per segment (`glm_model.attention.segments`).
  varlen    CUDA, bf16 or fp16: two flash-attention calls of variable length (`glm_model.attention.varlen`).
  flex      CUDA: FlexAttention, without dropout of the weights (`glm_model.attention.flex`).
All but `dense` need every segment in one piece. `make_mask` takes the first of `PREFERENCE` that fits, and says in one
line of the log when that is not the first; on a CPU it takes `dense` for short rows. Before its first use on a GPU a
backend must give the values and gradients of `dense` on a small batch, so that a kernel of another meaning is left out
and not trained with.

Shapes: B rows, L row length, Q queries, T keys, H heads, K head width, N = B * L flat positions.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_model.attention.flex import attend_flex, block_mask
from glm_model.attention.packed_rows import Runs, find_runs
from glm_model.attention.segments import SegmentPlan, attend_segments, plan_segments
from glm_model.attention.varlen import VarlenPlan, attend_varlen, plan_varlen

Backend = Literal["dense", "segments", "varlen", "flex"]
# By device, what should be fastest first: measured on CPUs (docs/lab.md); on CUDA, not measured yet, by the work that
# they waste: none, part of the border blocks, other segments.
PREFERENCE: dict[str, tuple[Backend, ...]] = {"cpu": ("segments", "dense"), "cuda": ("varlen", "flex", "dense")}
# FlexAttention is compiled anew for each shape: tens of seconds, which short rows of many lengths do not repay.
_FLEX_FROM = 1024
# In shorter rows the calls for each segment cost a CPU more than what dense wastes: 5 times as much at 16 positions and
# 2 heads, as much at 128 and 12 (docs/lab.md).
_SEGMENTS_FROM = 128
_LOG = logging.getLogger("glm_model")


@dataclass(frozen=True)
class AttentionMask:
    """Who sees whom in a batch, in the form its backend wants."""

    backend: Backend
    allowed: Tensor | None = None
    """dense: bool [B or 1, 1, Q, T], True = visible; None = everything."""
    segments: SegmentPlan | None = None
    varlen: VarlenPlan | None = None
    blocks: Any = None
    """flex: a BlockMask."""


@dataclass(frozen=True)
class Use:
    """What attention is needed for; the fast kernels take only some of it."""

    dtype: torch.dtype = torch.float32
    """Of queries, keys and values."""
    head_width: int = 64
    dropout_p: float = 0.0
    """Of the attention weights."""


def attention(q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, mask: AttentionMask, *, dropout_p: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for every head, under the mask -> [B, L, H, K]. dropout_p acts on the weights.

    What stands at padding is finite and without meaning.
    """
    if mask.segments is not None:
        q, k, v = (x.flatten(0, 1) for x in (q_BLHK, k_BLHK, v_BLHK))
        return attend_segments(q, k, v, mask.segments, dropout_p=dropout_p).view(q_BLHK.shape)
    if mask.varlen is not None:
        q, k, v = (x.flatten(0, 1) for x in (q_BLHK, k_BLHK, v_BLHK))
        return attend_varlen(q, k, v, mask.varlen, dropout_p=dropout_p).view(q_BLHK.shape)
    q, k, v = (x.transpose(1, 2) for x in (q_BLHK, k_BLHK, v_BLHK))
    if mask.blocks is not None:
        return attend_flex(q, k, v, mask.blocks).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.allowed, dropout_p=dropout_p).transpose(1, 2)


def make_mask(
    segment_ids_BL: Tensor | None,
    context_end_BL: Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
    *,
    backend: Backend | None = None,
    use: Use | None = None,
) -> AttentionMask:
    """The mask of a batch of shape (B, L), for every layer.

    segment_ids_BL: index of the segment in its row, -1 on padding; None: a row is one segment.
    context_end_BL: row index one past the context of the position's segment; None: everything is context.
    backend: None picks the first of `PREFERENCE` that fits `use` (default: fp32, 64 wide, no dropout) and the batch.
    Raises ValueError when a context ends outside its segment, or when the backend that is asked for does not fit.
    """
    device, use = torch.device(device), use or Use()
    check_backend(backend)
    if segment_ids_BL is None and context_end_BL is None and device.type != "cpu" and backend in (None, "dense"):
        return AttentionMask("dense")
    segment_ids = torch.zeros(shape, dtype=torch.int64, device=device) if segment_ids_BL is None else segment_ids_BL
    runs = find_runs(segment_ids, context_end_BL)
    if backend is None:
        backend = _choose(device, use, runs, shape[1])
    elif reason := _unfit(backend, device, use, runs):
        raise ValueError(f"the {backend} attention backend {reason}. Use backend='dense'")
    return _build(backend, segment_ids, context_end_BL, runs)


def check_backend(backend: str | None) -> None:
    """Raise ValueError when there is no attention backend of this name; None is none in particular."""
    if backend is not None and backend not in get_args(Backend):
        raise ValueError(f"there is no attention backend {backend!r} (have: {', '.join(get_args(Backend))})")


def _build(backend: Backend, segment_ids: Tensor, context_end: Tensor | None, runs: Runs | None) -> AttentionMask:
    if backend == "dense":
        return AttentionMask("dense", allowed=_allowed(segment_ids, context_end))
    assert runs is not None
    if backend == "segments":
        return AttentionMask("segments", segments=plan_segments(runs))
    if backend == "varlen":
        return AttentionMask("varlen", varlen=plan_varlen(runs, segment_ids, context_end))
    return AttentionMask("flex", blocks=block_mask(segment_ids, context_end))


def _allowed(segment_ids_BL: Tensor, context_end_BL: Tensor | None) -> Tensor:
    """bool [B, 1, L, L]. Padding is a causal segment of its own: each position sees itself, so no row is empty."""
    same = segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]
    if context_end_BL is None:
        return same[:, None]
    place = torch.arange(segment_ids_BL.shape[1], device=segment_ids_BL.device)
    context = place[None, None, :] < context_end_BL[:, :, None]
    return (same & (context | (place[None, :] <= place[:, None])))[:, None]


def _choose(device: torch.device, use: Use, runs: Runs | None, length: int) -> Backend:
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
        _tell_once("; ".join(f"{name} {reason}" for name, reason in reasons.items()), backend)
    return backend


@functools.cache
def _tell_once(reasons: str, chosen: Backend) -> None:
    _LOG.warning("attention runs by %s: %s", chosen, reasons)


def _unfit(backend: Backend, device: torch.device, use: Use, runs: Runs | None) -> str | None:
    """Why a backend cannot do it, as the rest of a sentence; None if it can."""
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
        # Flex has no backward there, and it is slower than all others: good for tests of its mask.
        return None if backend == "flex" and not torch.is_grad_enabled() else "runs on a GPU, not on cpu"
    if backend == "varlen" and use.dtype not in (torch.bfloat16, torch.float16):
        return f"needs bf16 or fp16, not {use.dtype}"
    if backend == "varlen" and (use.head_width % 8 or use.head_width > 256):
        return f"needs a head width of a multiple of 8 up to 256, not {use.head_width}"
    return _failure_on(backend, device, use.dtype, use.head_width, use.dropout_p > 0)


@functools.cache
def _failure_on(
    backend: Backend, device: torch.device, dtype: torch.dtype, head_width: int, with_dropout: bool
) -> str | None:
    """What goes wrong with a backend on this device, tried once on a small batch against `dense`."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            worst = compare_with_dense(backend, device, dtype, head_width)
            if with_dropout and not runs_with_dropout(backend, device, dtype, head_width):
                worst = float("inf")
    except Exception as error:  # whatever a kernel or a compiler may raise: there is another backend
        first_line = (str(error).splitlines() or [""])[0]
        return f"fails on {device} ({type(error).__name__}: {first_line[:120]})"
    limit = 3e-2 if dtype in (torch.bfloat16, torch.float16) else 3e-3  # fp32 may run in TF32
    return None if worst < limit else f"gives other values than dense on {device} (off by {worst:.1e} of the largest)"


def compare_with_dense(backend: Backend, device: torch.device | str, dtype: torch.dtype, head_width: int) -> float:
    """Largest difference of outputs and gradients to `dense` in float32, each as a share of its largest value.

    The batch has segments with and without blanks and context, padding and an empty row. NaN counts as infinite.
    """
    segment_ids, context_end = _trial_batch(torch.device(device))
    generator = torch.Generator().manual_seed(0)
    shape = (*segment_ids.shape, 2, head_width)
    drawn = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    real = (segment_ids >= 0)[:, :, None, None]
    runs = find_runs(segment_ids, context_end)

    def results(backend: Backend, dtype: torch.dtype) -> list[Tensor]:
        q, k, v, way = (x.to(device, dtype) for x in drawn)
        qkv = [x.requires_grad_() for x in (q, k, v)]
        mask = _build(backend, segment_ids, context_end, runs)
        _leave_nan(way)
        out = attention(q, k, v, mask)
        _leave_nan(way)
        return [out.detach() * real, *torch.autograd.grad(out, qkv, way * real)]

    expected = results("dense", torch.float32)
    pairs = zip(results(backend, dtype), expected, strict=True)
    shares = [float((mine.float() - wanted).abs().max() / wanted.abs().max()) for mine, wanted in pairs]
    return max(share if share == share else float("inf") for share in shares)


def runs_with_dropout(backend: Backend, device: torch.device | str, dtype: torch.dtype, head_width: int) -> bool:
    """Whether outputs and gradients are finite where weights are dropped. They are drawn: nothing to compare."""
    segment_ids, context_end = _trial_batch(torch.device(device))
    mask = _build(backend, segment_ids, context_end, find_runs(segment_ids, context_end))
    q, k, v = (torch.randn(*segment_ids.shape, 2, head_width, device=device, dtype=dtype) for _ in range(3))
    qkv = [x.requires_grad_() for x in (q, k, v)]
    real = (segment_ids >= 0)[:, :, None, None]
    out = attention(q, k, v, mask, dropout_p=0.5) * real
    return all(bool(x.isfinite().all()) for x in (out, *torch.autograd.grad(out.sum(), qkv)))


def _leave_nan(like: Tensor) -> None:
    """Fill the memory that the next tensors of this size get, so that places a kernel never writes show."""
    held = [torch.full_like(like, torch.nan) for _ in range(16)]
    del held


def _trial_batch(device: torch.device) -> tuple[Tensor, Tensor]:
    rows = [[(200, 60), (130, 0), (0, 70), (5, 3)], [(300, 200)], []]
    segment_ids, context_end = torch.full((3, 512), -1), torch.zeros(3, 512, dtype=torch.int64)
    for row, segments in enumerate(rows):
        at = 0
        for index, (context, blanks) in enumerate(segments):
            segment_ids[row, at : at + context + blanks] = index
            context_end[row, at : at + context + blanks] = at + context
            at += context + blanks
    return segment_ids.to(device), context_end.to(device)
