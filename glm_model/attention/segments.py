"""Attention on a CPU: one small attention per segment on slices of the rows, inside one autograd operator.

It needs no mask and no padding. For backward it keeps the attention weights of each segment (H * n * n numbers for n
positions), and in their sign, which softmax leaves unused, what dropout took. It is faster than segments unpacked to
[segments, longest, H, K], be it by matrix products or by torch's SDPA (docs/lab.md).

A segment of 256 positions or more is attended in two parts, so that no context row is multiplied with a blank's key:

               context   blanks
    context      all       -          first part: context x context
    blanks       all     causal       second part: blanks x everything; triangle above the diagonal hidden

Shapes: Q queries, T keys, H heads, K head width, N flat positions of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_model.attention.packed_rows import Runs
from glm_model.dropout import drop_by_sign, keep_scale

# From this length on the two parts save more than the second call costs.
_SPLIT_FROM = 256
# In bfloat16 lengths of queries and keys are rounded up to multiples of this; what is too much belongs to the next
# segment, and is hidden. oneDNN compiles each shape of a product, and packed rows bring new lengths at every step: that
# took two thirds of the time of two heads and half of that of six (docs/lab.md).
_ROUNDED_TO = 32


@dataclass(frozen=True)
class SegmentPlan:
    """What the operator needs to know about a batch."""

    segments: tuple[tuple[int, int, int], ...]
    """(start, end of the context, end) in flat positions."""
    triangle: Tensor
    """bool [most blanks, most blanks], True above the diagonal."""


def plan_segments(runs: Runs) -> SegmentPlan:
    table = runs.table_R4[runs.table_R4[:, 3] >= 0]
    most_blanks = int((table[:, 2] - table[:, 1]).max()) if len(table) else 0
    return SegmentPlan(
        tuple((start, context, end) for start, context, end, _ in table.tolist()),
        torch.ones(most_blanks, most_blanks, dtype=torch.bool).triu(1),
    )


def attend_segments(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, plan: SegmentPlan, *, dropout_p: float) -> Tensor:
    """[N, H, K]; zero outside the segments."""
    return _Segments.apply(q_NHK, k_NHK, v_NHK, plan, dropout_p)


class _Segments(torch.autograd.Function):
    """q, k, v [N, H, K] -> [N, H, K]; zero outside the segments."""

    @staticmethod
    def forward(ctx: Any, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, plan: SegmentPlan, p: float) -> Tensor:
        out_NHK = torch.zeros(q_NHK.shape, dtype=q_NHK.dtype)
        q, k, v, out = (x.transpose(0, 1) for x in (q_NHK, k_NHK, v_NHK, out_NHK))
        q, kept_scale, weights = q * q.shape[-1] ** -0.5, keep_scale(p), []
        with torch.autocast("cpu", enabled=False):
            for start, context, end in plan.segments:
                for rows, keys in _parts(start, context, end):
                    num_rows, num_keys = rows.stop - rows.start, keys.stop - keys.start
                    rows, keys = _rounded(rows, q), _rounded(keys, q)
                    scores_HQT = torch.bmm(q[:, rows], k[:, keys].transpose(1, 2))
                    scores_HQT[:, :, num_keys:] = -math.inf
                    own = scores_HQT[:, :num_rows, :num_keys]
                    _hide_future(own, rows.start, context, end, plan.triangle)
                    probs = torch.softmax(scores_HQT, -1)
                    probs[:, num_rows:] = 0  # of another segment: neither its result nor its gradients are meant
                    if p:
                        probs = drop_by_sign(probs, p)
                    out[:, rows] = torch.bmm(probs.relu() if p else probs, v[:, keys])
                    if any(ctx.needs_input_grad):
                        weights.append(probs)
        if p:
            out_NHK.mul_(kept_scale)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q_NHK, k_NHK, v_NHK, *weights)
            ctx.segments, ctx.dropped, ctx.kept_scale = plan.segments, p > 0, kept_scale
        return out_NHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        q, k, v, grad_out = (x.transpose(0, 1) for x in (*saved[:3], grads[0]))
        if ctx.dropped:
            grad_out = grad_out * ctx.kept_scale
        weights = iter(saved[3:])
        heads, positions, width = q.shape
        q = q * width**-0.5
        packed = torch.zeros(positions, 3, heads, width, dtype=q.dtype)
        dq, dk, dv = packed.permute(1, 2, 0, 3).unbind(0)
        for start, context, end in ctx.segments:
            for rows, keys in _parts(start, context, end):
                rows, keys = _rounded(rows, q), _rounded(keys, q)
                used = probs = next(weights)
                go = grad_out[:, rows]
                dscores = torch.bmm(go, v[:, keys].transpose(1, 2))
                if ctx.dropped:
                    # Weights of 0 count as dropped here, which loses nothing: softmax's gradient is a multiple of them.
                    dscores = torch.ops.aten.threshold_backward(dscores, probs, 0)
                    used, probs = probs.relu(), probs.abs()
                dscores = torch._softmax_backward_data(dscores, probs, -1, probs.dtype)
                dq[:, rows] = torch.bmm(dscores, k[:, keys])
                dk[:, keys] += torch.bmm(dscores.transpose(1, 2), q[:, rows])
                dv[:, keys] += torch.bmm(used.transpose(1, 2), go)
        packed[:, 0].mul_(width**-0.5)
        return *packed.unbind(1), None, None


def _parts(start: int, context: int, end: int) -> tuple[tuple[slice, slice], ...]:
    """(queries, keys) pairs that cover a segment: in one go, or the context with itself and then the blanks."""
    if end - start < _SPLIT_FROM or context in (start, end):
        return ((slice(start, end), slice(start, end)),)
    return ((slice(start, context), slice(start, context)), (slice(context, end), slice(start, end)))


def _rounded(part: slice, x_HNK: Tensor) -> slice:
    """The slice of positions, longer where that makes shapes fewer."""
    if x_HNK.element_size() != 2:
        return part
    stop = part.start + -(-(part.stop - part.start) // _ROUNDED_TO) * _ROUNDED_TO
    return slice(part.start, stop) if stop <= x_HNK.shape[1] else part


def _hide_future(scores_HQT: Tensor, first_query: int, context: int, end: int, triangle: Tensor) -> None:
    """Hide the blanks that a query may not see: -inf. The last key is the end of the segment, or of its context."""
    blanks = end - context
    if blanks == 0 or (first_query < context and scores_HQT.shape[1] == context - first_query):
        return
    scores_HQT[:, : context - first_query, -blanks:] = -math.inf
    scores_HQT[:, context - first_query :, -blanks:].masked_fill_(triangle[:blanks, :blanks], -math.inf)
