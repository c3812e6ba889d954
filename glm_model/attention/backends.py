"""Attention over packed rows by one of four backends: same segment, and the key is context or not after the query.

  dense     torch's scaled_dot_product_attention with a bool mask [B, 1, L, L]: the reference; any device and segments.
  segments  CPU: one small attention per segment (`glm_model.attention.segments`).
  varlen    CUDA, bf16 or fp16: two flash-attention calls of variable length (`glm_model.attention.varlen`).
  flex      CUDA: FlexAttention, without dropout of the weights (`glm_model.attention.flex`).
All but `dense` need every segment in one piece. A mask is built once per batch for all layers; which backend is used is
decided in `glm_model.attention.choice`.

Shapes: B rows, L row length, Q queries, T keys, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_model.attention.flex import attend_flex, block_mask
from glm_model.attention.packed_rows import Runs
from glm_model.attention.segments import SegmentPlan, attend_segments, plan_segments
from glm_model.attention.varlen import VarlenPlan, attend_varlen, plan_varlen

Backend = Literal["dense", "segments", "varlen", "flex"]


@dataclass(frozen=True)
class AttentionMask:
    """Who sees whom in a batch, in the form that its backend takes."""

    backend: Backend
    allowed: Tensor | None = None
    """dense: bool [B or 1, 1, Q, T], True where the query sees the key; None: everything is visible."""
    segments: SegmentPlan | None = None
    varlen: VarlenPlan | None = None
    blocks: Any = None
    """flex: a BlockMask."""


def attention(q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, mask: AttentionMask, *, dropout_p: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for every head, under the mask -> [B, L, H, K]. dropout_p applies to the weights.

    Results at padding are finite and meaningless.
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


def check_backend(backend: str | None) -> None:
    """Raise ValueError when there is no attention backend of this name. None, for any of them, passes."""
    if backend is not None and backend not in get_args(Backend):
        raise ValueError(f"unknown attention backend {backend!r} (have: {', '.join(get_args(Backend))})")


def build_mask(backend: Backend, segment_ids: Tensor, context_end: Tensor | None, runs: Runs | None) -> AttentionMask:
    """The mask of a batch for one backend. runs: those of the batch; needed by all but `dense`."""
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
