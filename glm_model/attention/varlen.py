"""Attention on CUDA by two flash-attention calls of variable length: contexts among themselves, blanks to everything.

The first call is bidirectional, the second causal with its diagonal ending at the last query and the last key. Nothing
is gathered: both calls read the packed rows as they are. What a call leaves out becomes the queries of a sequence
without keys (for which flash attention gives zero) or the keys of a sequence without queries:

    a segment      c c c b b               3 positions of context, 2 of blanks
    first call     queries 3 | 0 | 2       keys 3 | 2 | 0       three sequences
    second call    queries 3 | 2           keys 0 | 5           two

torch's `varlen_attn` has no dropout. This calls the operator beneath it, which has, and which torch has had in the same
form since 2.5. With `torch.nn.attention.activate_flash_attention_impl` other generations of the kernel run.

Shapes: N flat positions, H heads, K head width, R runs, J sequences of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from glm_model.attention.packed_rows import Runs


class Sequences(NamedTuple):
    """The sequences of one call. max_q and max_k are the longest, including those without counterpart: the kernels
    visit no place beyond them, and would leave it unwritten.
    """

    cu_q: Tensor
    """int32 [J + 1]: where sequence j's queries begin and end."""
    cu_k: Tensor
    max_q: int
    max_k: int


class VarlenPlan(NamedTuple):
    context: Sequences | None
    """None: no context in the batch."""
    blanks: Sequences | None
    is_blank_N: Tensor


# (q, k, v [N, H, K], sequences, causal, dropout_p) -> [N, H, K]
Kernel = Callable[[Tensor, Tensor, Tensor, Sequences, bool, float], Tensor]


def flash(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, of: Sequences, causal: bool, dropout_p: float) -> Tensor:
    """torch's flash attention. With `causal`, query i of n sees key j of m when j <= i + m - n."""
    return torch.ops.aten._flash_attention_forward(
        q_NHK, k_NHK, v_NHK, of.cu_q, of.cu_k, of.max_q, of.max_k, dropout_p, causal, False
    )[0]


def plan_varlen(runs: Runs, segment_ids_BL: Tensor, context_end_BL: Tensor | None) -> VarlenPlan:
    """The two calls of a batch; the tensors lie on its device."""
    device = segment_ids_BL.device
    start_R, context_R, end_R, ids_R = runs.table_R4.unbind(1)
    size_R, none_R, real_R = end_R - start_R, torch.zeros_like(start_R), ids_R >= 0
    c_R = torch.where(real_R, context_R - start_R, 0)
    b_R = torch.where(real_R, end_R - context_R, 0)
    # Of each run: context with context, then the other keys, then the other queries.
    rest_R = size_R - c_R
    context = _sequences((c_R, none_R, rest_R), (c_R, rest_R, none_R), device) if c_R.any() else None
    # Of each run: the other queries, then blanks with the whole segment. No query sees padding's keys.
    blanks = _sequences((size_R - b_R, b_R), (none_R, size_R), device) if b_R.any() else None
    if context_end_BL is None:
        is_blank = torch.zeros_like(segment_ids_BL, dtype=torch.bool)
    else:
        place = torch.arange(segment_ids_BL.shape[1], device=device)
        is_blank = (place >= context_end_BL) & (segment_ids_BL >= 0)
    return VarlenPlan(context, blanks, is_blank.reshape(-1))


def attend_varlen(
    q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, plan: VarlenPlan, *, dropout_p: float = 0.0, kernel: Kernel = flash
) -> Tensor:
    """[N, H, K]; zero at padding."""
    parts = [
        kernel(q_NHK, k_NHK, v_NHK, sequences, causal, dropout_p)
        for sequences, causal in ((plan.context, False), (plan.blanks, True))
        if sequences is not None
    ]
    if len(parts) == 2:
        return torch.where(plan.is_blank_N[:, None, None], parts[1], parts[0])
    # Without any part all is padding. Gradients still have to reach every parameter, for DDP.
    return parts[0] if parts else v_NHK * 0


def _sequences(queries: tuple[Tensor, ...], keys: tuple[Tensor, ...], device: torch.device) -> Sequences:
    """The sequences of a call from their sizes: each run contributes one per entry of the tuples."""
    sizes_J = [torch.stack(parts, 1).reshape(-1) for parts in (queries, keys)]
    cu_q, cu_k = (torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(torch.int32) for sizes in sizes_J)
    max_q, max_k = (int(sizes.max()) for sizes in sizes_J)
    return Sequences(cu_q.to(device, non_blocking=True), cu_k.to(device, non_blocking=True), max_q, max_k)
