"""A trial of an attention backend on this machine: its values and gradients beside those of `dense` on a small batch.

A kernel of another release or card may align its diagonal otherwise, leave places unwritten, or fail. Such a backend is
left out, and not trained with.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from glm_model.attention.backends import Backend, attention, build_mask
from glm_model.attention.packed_rows import find_runs


@functools.cache
def failure_on(
    backend: Backend, device: torch.device, dtype: torch.dtype, head_width: int, with_dropout: bool
) -> str | None:
    """What goes wrong with a backend on this device, as the end of a sentence; None if nothing does. Tried once."""
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
    """Largest difference of outputs and gradients from those of `dense` in float32, relative to the largest value.

    The batch has segments with and without blanks and context, padding and an empty row. NaN counts as infinite.
    """
    segment_ids, context_end = trial_batch(torch.device(device))
    generator = torch.Generator().manual_seed(0)
    shape = (*segment_ids.shape, 2, head_width)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    real = (segment_ids >= 0)[:, :, None, None]
    runs = find_runs(segment_ids, context_end)

    def results(backend: Backend, dtype: torch.dtype) -> list[Tensor]:
        q, k, v, grad = (x.to(device, dtype) for x in inputs)
        qkv = [x.requires_grad_() for x in (q, k, v)]
        mask = build_mask(backend, segment_ids, context_end, runs)
        _poison_memory(grad)
        out = attention(q, k, v, mask)
        _poison_memory(grad)
        return [out.detach() * real, *torch.autograd.grad(out, qkv, grad * real)]

    expected = results("dense", torch.float32)
    pairs = zip(results(backend, dtype), expected, strict=True)
    shares = [float((found.float() - wanted).abs().max() / wanted.abs().max()) for found, wanted in pairs]
    return max(float("inf") if math.isnan(share) else share for share in shares)


def runs_with_dropout(backend: Backend, device: torch.device | str, dtype: torch.dtype, head_width: int) -> bool:
    """Whether outputs and gradients are finite where weights are dropped. Being random, they cannot be compared."""
    segment_ids, context_end = trial_batch(torch.device(device))
    mask = build_mask(backend, segment_ids, context_end, find_runs(segment_ids, context_end))
    q, k, v = (torch.randn(*segment_ids.shape, 2, head_width, device=device, dtype=dtype) for _ in range(3))
    qkv = [x.requires_grad_() for x in (q, k, v)]
    real = (segment_ids >= 0)[:, :, None, None]
    out = attention(q, k, v, mask, dropout_p=0.5) * real
    return all(bool(x.isfinite().all()) for x in (out, *torch.autograd.grad(out.sum(), qkv)))


def _poison_memory(like: Tensor) -> None:
    """Fill the memory that the allocator gives to the next tensors of this size with NaN. Places that a kernel never
    writes then show; without it they often hold the right values of an earlier call.
    """
    tensors = [torch.full_like(like, torch.nan) for _ in range(16)]  # held together, or all would get the same memory
    del tensors


def trial_batch(device: torch.device) -> tuple[Tensor, Tensor]:
    """(segment_ids, context_end), int64 [3, 512]: what attention may meet, in little."""
    rows = [[(200, 60), (130, 0), (0, 70), (5, 3)], [(300, 200)], []]
    segment_ids, context_end = torch.full((3, 512), -1), torch.zeros(3, 512, dtype=torch.int64)
    for row, segments in enumerate(rows):
        at = 0
        for index, (context, blanks) in enumerate(segments):
            segment_ids[row, at : at + context + blanks] = index
            context_end[row, at : at + context + blanks] = at + context
            at += context + blanks
    return segment_ids.to(device), context_end.to(device)
