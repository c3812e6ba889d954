"""Cross-entropy on the blanks: the vocabulary projection runs on blank positions only, in chunks.

It costs 6 * D * V operations per blank. Where the logits of all blanks have more than `max_logits` elements, nothing is
kept of them for backward, and they are recomputed in chunks (2 * D * V more per blank). No tensor of logits, or of
their gradients, has more elements than that, unless a single blank has.

Shapes: B rows, L row length, D width, V vocabulary, O objectives, M blank positions of the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_model.checks import Range, check_fields, check_ranges
from glm_model.config import LossOptions
from glm_model.model import GLM

# Elements of logits that are computed at a time. On a CPU 16 MiB in fp32, which the allocator reuses: larger blocks are
# mapped again and cost a page fault per 4 KiB. On a GPU 512 MiB in fp32: enough rows for a product at full speed.
_CPU_CHUNK, _GPU_CHUNK = 1 << 22, 1 << 27
# Bytes of the logits' gradients, of several chunks, that a CPU multiplies together in backward: each product adds V * D
# numbers to the gradient of the embedding, which in bf16 costs as much as the product of one chunk.
_CPU_TOGETHER = 1 << 26
# Elements that a CPU measures at a time: 1 MiB in fp32, which stays in the cache.
_CPU_CACHED = 1 << 18
_FILL = 128
# Elements of logits that are kept for backward: 256 MiB in fp32 on a CPU, 1 GiB in bf16 on a GPU.
_CPU_KEPT, _GPU_KEPT = 1 << 26, 1 << 29


_LEAST = 1e-30  # probabilities from which on float32 keeps all their digits

PLAIN = LossOptions()


class Blanks(NamedTuple):
    """The positions of a batch that are predicted; made by `find_blanks` or `blanks_at`."""

    at_M: Tensor
    """Flat positions: row * L + column."""
    targets_M: Tensor
    objectives_M: Tensor
    num_objectives: int


def find_blanks(
    targets: Tensor,
    loss_mask: Tensor,
    objective_ids: Tensor | None = None,
    *,
    vocab_size: int,
    num_objectives: int = 1,
) -> Blanks:
    """The blanks of a batch, checked: where loss_mask is not 0.

    targets, loss_mask, objective_ids: int64 [B, L] (loss_mask may be bool); without objective_ids all are objective 0.
    Raises ValueError on wrong shapes and dtypes, and when a target or an objective is out of range. On a GPU this waits
    for the work that was queued before: call it before the forward, not between that and `blank_loss`.
    """
    check_fields({"loss_mask": loss_mask, "targets": targets, "objective_ids": objective_ids}, like="loss_mask")
    blanks = blanks_at(loss_mask.flatten().nonzero()[:, 0], targets, objective_ids, num_objectives=num_objectives)
    remedy = "Set num_objectives to the objectives that there are"
    check_ranges(
        {
            "targets": Range(blanks.targets_M, vocab_size, "Use the tokenizer that the model was trained with"),
            "objective_ids": Range(blanks.objectives_M, num_objectives, remedy),
        }
    )
    return blanks


def blanks_at(at_M: Tensor, targets: Tensor, objective_ids: Tensor | None = None, *, num_objectives: int = 1) -> Blanks:
    """The blanks at flat positions that are known (`glm_model.outline`); nothing is checked or waited for."""
    objectives_M = torch.zeros_like(at_M) if objective_ids is None else objective_ids.flatten()[at_M]
    return Blanks(at_M, targets.flatten()[at_M], objectives_M, num_objectives)


def blank_loss(
    model: GLM,
    x_MD: Tensor,
    blanks: Blanks,
    *,
    options: LossOptions = PLAIN,
    max_logits: int | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """(sums_O, counts_O): summed loss in nats (float32) and number of blank positions (int64), per objective.

    x_MD: the hidden states at the blanks; what follows the first M is left out, but where a CPU multiplies in bfloat16
    it is computed, so that shapes are few.
    max_logits: most elements of a tensor of logits; None: 2^26 on a CPU, 2^29 elsewhere.
    compiled: fuse what is done to logits, by code that is compiled on first use.
    Without blanks the sums are zero and still carry (zero) gradients to every parameter, as DDP needs.
    """
    at_M, targets_M, objectives_M, num_objectives = blanks
    if x_MD.ndim != 2 or len(x_MD) < len(at_M):
        raise ValueError(f"x_MD has shape {list(x_MD.shape)}: expected [{len(at_M)} or more, width]")
    if max_logits is None:
        max_logits = _CPU_KEPT if x_MD.device.type == "cpu" else _GPU_KEPT
    # Asked here, because within an autograd function gradients are always off, and inputs seem to need them.
    differentiable = torch.is_grad_enabled()
    weight = model.token_embedding.weight
    if x_MD.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        padded_M = torch.nn.functional.pad(targets_M, (0, len(x_MD) - len(at_M)))
    else:
        x_MD, padded_M = x_MD[: len(at_M)], targets_M
    loss_M = _CrossEntropy.apply(x_MD, weight, padded_M, options, max_logits, compiled, differentiable)[: len(at_M)]
    sums_O = torch.zeros(num_objectives, dtype=loss_M.dtype, device=x_MD.device).index_add(0, objectives_M, loss_M)
    counts_O = torch.zeros(num_objectives, dtype=torch.int64, device=x_MD.device)
    return sums_O, counts_O.index_add(0, objectives_M, torch.ones_like(at_M))


def filled(at_M: Tensor) -> Tensor:
    """The positions, filled up with position 0 to a multiple of 128: few shapes, so little is compiled again."""
    return torch.nn.functional.pad(at_M, (0, -len(at_M) % _FILL))


class _CrossEntropy(torch.autograd.Function):
    """x [M, D], weight [V, D], targets [M] -> loss [M] in float32 or wider. Products run in autocast's dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MD: Tensor,
        weight_VD: Tensor,
        targets_M: Tensor,
        options: LossOptions,
        max_logits: int,
        compiled: bool,
        differentiable: bool,
    ) -> Tensor:
        device = x_MD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_MD.dtype
        x, weight = x_MD.to(dtype), weight_VD.to(dtype)
        ctx.chunk = _rows(max_logits, _CPU_CHUNK if device == "cpu" else _GPU_CHUNK, weight)
        together = _rows(max_logits, _CPU_TOGETHER // x.element_size(), weight)
        ctx.together = max(1, together // ctx.chunk) * ctx.chunk if device == "cpu" else ctx.chunk
        keeps = differentiable and len(x) * len(weight) <= max_logits and any(ctx.needs_input_grad)
        plain = options == PLAIN and not compiled
        ctx.fused = plain and x.element_size() == 2
        ctx.slopes = plain and keeps and device == "cpu"
        measure = _measure_fused if ctx.fused else _compiled(_measure) if compiled else _measure
        none = x_MD.new_zeros(0, dtype=_wide(dtype))
        norms, losses, kept = [none], [none], []
        with torch.autocast(device, enabled=False):
            if ctx.slopes:
                kept.append(torch.empty(len(x), len(weight), dtype=dtype))
            for at in range(0, len(x), ctx.chunk):
                rows = slice(at, at + ctx.chunk)
                if ctx.slopes:
                    losses.append(_into_slopes(torch.mm(x[rows], weight.T, out=kept[0][rows]), targets_M[rows]))
                    continue
                logits = x[rows] @ weight.T
                norm_M, loss_M = measure(logits, targets_M[rows], options)
                norms.append(norm_M)
                losses.append(loss_M)
                if keeps:
                    kept.append(logits)
        ctx.save_for_backward(x, weight, targets_M, torch.cat(norms), *kept)
        ctx.dtypes, ctx.options, ctx.compiled = (x_MD.dtype, weight_VD.dtype), options, compiled
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets_M, norms_M, *kept = ctx.saved_tensors
        grad_M, (x_dtype, weight_dtype) = grads[0], ctx.dtypes
        slope = _compiled(_narrow_slope) if ctx.compiled else _slope
        dx = torch.empty_like(x, dtype=x_dtype)
        # Not filled with zeros first, which would cost as much as a product: it has V * D elements.
        dweight = (torch.empty_like if len(x) else torch.zeros_like)(weight, dtype=weight_dtype)

        buffer = kept[0] if ctx.slopes else x.new_empty(min(ctx.together, len(x)), len(weight))
        # Such slopes come without the factor of their row: what they are multiplied to gets it.
        without_grad = ctx.fused or ctx.slopes
        of_weight = (x.to(grad_M.dtype) * grad_M[:, None]).to(x.dtype) if without_grad else x
        for at in range(0, len(x), ctx.together):
            part = slice(at, min(at + ctx.together, len(x)))
            dlogits = buffer[part] if ctx.slopes else buffer[: part.stop - at]
            for start in () if ctx.slopes else range(at, part.stop, ctx.chunk):  # forward has made them, or not
                rows = slice(start, start + ctx.chunk)
                logits = kept[start // ctx.chunk] if kept else x[rows] @ weight.T
                place = dlogits[start - at : start - at + ctx.chunk]
                if ctx.fused:
                    _slope_fused(logits, norms_M[rows], targets_M[rows], out=place)
                else:
                    place.copy_(slope(logits, norms_M[rows], targets_M[rows], grad_M[rows], ctx.options))
            dx[part] = dlogits @ weight
            if x.dtype == weight_dtype:
                dweight.addmm_(dlogits.T, of_weight[part], beta=1 if at else 0)
            elif at:
                dweight += dlogits.T @ of_weight[part]
            else:
                dweight.copy_(dlogits.T @ of_weight[part])
        if without_grad:
            dx.mul_(grad_M[:, None])
        return dx, dweight, None, None, None, None, None


def _into_slopes(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """The losses [M] of plain cross-entropy in float32 or wider. The logits become the losses' gradients: the softmax,
    less one at the target. It is computed once, and a few rows at a time, which stay in the cache.
    """
    wide = _wide(logits_MV.dtype)
    losses = [logits_MV.new_zeros(0, dtype=wide)]
    for logits, targets in _cached(logits_MV, targets_M):
        p, at = logits.softmax(-1, dtype=wide), targets[:, None]
        p_target = p.gather(1, at)
        sure = bool(p_target.min() > _LEAST)
        losses.append((-p_target.log() if sure else -logits.log_softmax(-1, dtype=wide).gather(1, at))[:, 0])
        logits.copy_(p.scatter_(1, at, p_target - 1))
    return torch.cat(losses)


def _cached(logits_MV: Tensor, targets_M: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few rows at a time."""
    rows = max(1, _CPU_CACHED // logits_MV.shape[1])
    return zip(logits_MV.split(rows), targets_M.split(rows), strict=True)


def _measure(logits_MV: Tensor, targets_M: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """(log of the sum of exponentials, loss), both [M] in float32 or wider."""
    wide = logits_MV.to(_wide(logits_MV.dtype))
    norm_M = torch.logsumexp(wide, -1)
    loss_M = norm_M - (1 - options.label_smoothing) * logits_MV.gather(1, targets_M[:, None])[:, 0].to(wide.dtype)
    if options.label_smoothing:
        loss_M = loss_M - options.label_smoothing * wide.mean(-1)
    if options.z_loss:
        loss_M = loss_M + options.z_loss * norm_M.square()
    return norm_M, loss_M


def _slope(logits_MV: Tensor, norm_M: Tensor, targets_M: Tensor, grad_M: Tensor, options: LossOptions) -> Tensor:
    """Gradient of the loss, times grad_M, with respect to the logits, in the dtype of the norms."""
    slope_MV = (logits_MV - norm_M[:, None]).exp_()
    if options.z_loss:
        slope_MV.mul_(1 + 2 * options.z_loss * norm_M[:, None])
    if options.label_smoothing:
        slope_MV.sub_(options.label_smoothing / logits_MV.shape[1])
    slope_MV.scatter_add_(1, targets_M[:, None], torch.full_like(norm_M, options.label_smoothing - 1)[:, None])
    return slope_MV.mul_(grad_M[:, None])


def _measure_fused(logits_MV: Tensor, targets_M: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """`_measure` of plain cross-entropy, by the softmax of torch that is one pass over the logits."""
    parts = _cached(logits_MV, targets_M) if logits_MV.device.type == "cpu" else [(logits_MV, targets_M)]
    losses = [-torch.log_softmax(logits, -1, dtype=torch.float32).gather(1, at[:, None])[:, 0] for logits, at in parts]
    loss_M = torch.cat(losses)
    return logits_MV.gather(1, targets_M[:, None])[:, 0] + loss_M, loss_M


def _slope_fused(logits_MV: Tensor, norm_M: Tensor, targets_M: Tensor, *, out: Tensor) -> None:
    """`_slope` of plain cross-entropy without grad_M, in the dtype of the logits: torch computes such a softmax in
    float32, in one pass. Subtracting float32 norms from bfloat16 logits alone took a CPU as long as all three products.
    """
    torch.softmax(logits_MV, -1, out=out)
    minus_one = torch.expm1(logits_MV.gather(1, targets_M[:, None]) - norm_M[:, None])  # exact where p is close to 1
    out.scatter_(1, targets_M[:, None], minus_one.to(out.dtype))


def _narrow_slope(logits_MV: Tensor, *rest: Any) -> Tensor:
    """`_slope` in the dtype of the logits: in compiled code the wide one is never written to memory."""
    return _slope(logits_MV, *rest).to(logits_MV.dtype)


def _rows(max_logits: int, most: int, weight_VD: Tensor) -> int:
    """How many rows of logits have at most this number of elements, but at least one row."""
    return max(1, min(max_logits, most) // len(weight_VD))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@functools.cache
def _compiled(part: Callable) -> Callable:
    return torch.compile(part, dynamic=True)
