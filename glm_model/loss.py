"""Cross-entropy on the blanks: the vocabulary projection runs on blank positions only, in chunks.

Costs 6 * D * V operations per blank. Where the logits of all blanks come to more than `max_logits` elements, they are
not kept for backward but recomputed in chunks (2 * D * V more per blank), so they never take more than that.

Shapes: B rows, L row length, D width, V vocabulary, O objectives, M blank positions of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_model.model import GLM

# Logits worked on at a time on a CPU: 16 MiB in fp32, which the allocator reuses; larger blocks are mapped anew and
# cost a page fault per 4 KiB.
_CPU_CHUNK = 1 << 22


def blank_loss(
    model: GLM,
    x_BLD: Tensor,
    targets: Tensor,
    loss_mask: Tensor,
    objective_ids: Tensor | None = None,
    num_objectives: int = 1,
    *,
    max_logits: int = 1 << 26,
) -> tuple[Tensor, Tensor]:
    """(sums_O, counts_O): summed cross-entropy in nats (float32) and number of blank positions (int64), per objective.

    targets, loss_mask, objective_ids: int64 [B, L]; objective_ids None: all are objective 0.
    max_logits: most elements of logits to keep. Without blanks the sums are zero and still carry (zero) gradients
    to every parameter, as DDP needs. Raises ValueError (on a CPU) when a target or an objective is out of range.
    """
    at_M = loss_mask.flatten().nonzero()[:, 0]
    targets_M = targets.flatten()[at_M]
    objectives_M = torch.zeros_like(at_M) if objective_ids is None else objective_ids.flatten()[at_M]
    if x_BLD.device.type == "cpu" and len(at_M):
        _check_range("targets", targets_M, model.config.vocab_size)
        _check_range("objective_ids", objectives_M, num_objectives)
    loss_M = _CrossEntropy.apply(x_BLD.flatten(0, 1)[at_M], model.token_embedding.weight, targets_M, max_logits)
    sums_O = torch.zeros(num_objectives, device=x_BLD.device).index_add(0, objectives_M, loss_M)
    counts_O = torch.zeros(num_objectives, dtype=torch.int64, device=x_BLD.device)
    return sums_O, counts_O.index_add(0, objectives_M, torch.ones_like(at_M))


class _CrossEntropy(torch.autograd.Function):
    """x [M, D], weight [V, D], targets [M] -> loss [M], float32. Products run in autocast's dtype where it is on."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, max_logits: int) -> Tensor:
        device = x_MD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_MD.dtype
        x, weight = x_MD.to(dtype), weight_VD.to(dtype)
        ctx.chunk = max(1, (min(max_logits, _CPU_CHUNK) if device == "cpu" else max_logits) // len(weight))
        keeps = len(x) * len(weight) <= max_logits and any(ctx.needs_input_grad)
        norms, losses, kept = [x_MD.new_zeros(0, dtype=torch.float32)], [x_MD.new_zeros(0, dtype=torch.float32)], []
        with torch.autocast(device, enabled=False):
            for at in range(0, len(x), ctx.chunk):
                logits = x[at : at + ctx.chunk] @ weight.T
                norms.append(torch.logsumexp(logits.float(), -1))
                losses.append(norms[-1] - logits.gather(1, targets_M[at : at + ctx.chunk, None])[:, 0].float())
                if keeps:
                    kept.append(logits)
        ctx.save_for_backward(x, weight, targets_M, torch.cat(norms), *kept)
        ctx.dtypes = x_MD.dtype, weight_VD.dtype
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets_M, norms_M, *kept = ctx.saved_tensors
        grad_M, (x_dtype, weight_dtype) = grads[0], ctx.dtypes
        dx, dweight = torch.empty_like(x, dtype=x_dtype), torch.zeros_like(weight, dtype=weight_dtype)
        for index, at in enumerate(range(0, len(x), ctx.chunk)):
            part = slice(at, at + ctx.chunk)
            logits = kept[index] if kept else x[part] @ weight.T
            dlogits = (logits - norms_M[part, None]).exp_()  # float32, as the norms are
            dlogits.scatter_add_(1, targets_M[part, None], dlogits.new_full((len(dlogits), 1), -1.0))
            dlogits = dlogits.mul_(grad_M[part, None]).to(x.dtype)
            dx[part] = dlogits @ weight
            if x.dtype == weight_dtype:
                dweight.addmm_(dlogits.T, x[part])
            else:
                dweight += dlogits.T @ x[part]
        return dx, dweight, None, None


def _check_range(name: str, values: Tensor, limit: int) -> None:
    low, high = (int(x) for x in torch.aminmax(values))
    if low < 0 or high >= limit:
        raise ValueError(f"{name} holds {low if low < 0 else high}; this model and mixture take 0 to {limit - 1}")
