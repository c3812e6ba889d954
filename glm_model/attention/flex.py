"""Attention by FlexAttention on CUDA: the keys that a query sees are one interval, so blocks follow from its bounds.

It is compiled on first use (tens of seconds). On CPUs it has no backward; tests run its mask forward there.

Shapes: B rows, L row length, H heads, K head width, I blocks of queries, J blocks of keys.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128


def attend_flex(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, blocks: Any) -> Tensor:
    """[B, H, L, K], under a mask made by `block_mask`."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = q_BHLK.device.type != "cpu" and not torch.compiler.is_compiling()
    return (_compiled() if compiled else flex_attention)(q_BHLK, k_BHLK, v_BHLK, block_mask=blocks)


def block_mask(segment_ids_BL: Tensor, context_end_BL: Tensor | None) -> Any:
    """The BlockMask of a batch whose segments are each in one piece. No [L, L] tensor is made."""
    from torch.nn.attention.flex_attention import BlockMask

    first_BL, stop_BL = visible_interval(segment_ids_BL, context_end_BL)
    length = segment_ids_BL.shape[1]

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k >= first_BL[b, q]) & (k < stop_BL[b, q])

    touched, full = blocks_of(first_BL, stop_BL)
    partial, whole = _listed(touched & ~full), _listed(full)
    return BlockMask.from_kv_blocks(*partial, *whole, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))


def visible_interval(segment_ids_BL: Tensor, context_end_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """(first, stop) of the keys that each query sees, int64 [B, L]; a padding position sees only itself."""
    place = torch.arange(segment_ids_BL.shape[1], device=segment_ids_BL.device).expand_as(segment_ids_BL)
    padded = segment_ids_BL < 0
    changes = segment_ids_BL[:, 1:] != segment_ids_BL[:, :-1]
    edge = F.pad(changes, (1, 0), value=True)
    first = torch.where(edge, place, 0).cummax(1).values
    if context_end_BL is None:
        last_edge = F.pad(changes, (0, 1), value=True)
        stop = torch.where(last_edge, place + 1, place.shape[1]).flip(1).cummin(1).values.flip(1)
    else:
        stop = torch.maximum(context_end_BL, place + 1)
    return torch.where(padded, place, first), torch.where(padded, place + 1, stop)


def blocks_of(first_BL: Tensor, stop_BL: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B, I, J] twice: all blocks that hold a visible pair (and perhaps others), and those visible in full."""
    length = first_BL.shape[1]
    fill = -length % BLOCK

    def bounds(values_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each block of queries, [B, I, 1]. The last query fills up the last block."""
        filled = torch.cat((values_BL, values_BL[:, -1:].expand(-1, fill)), 1)
        return filled.unflatten(1, (-1, BLOCK)).aminmax(dim=-1, keepdim=True)

    (first_low, first_high), (stop_low, stop_high) = bounds(first_BL), bounds(stop_BL)
    begin_J = torch.arange(0, length, BLOCK, device=first_BL.device)
    end_J = begin_J + BLOCK
    return (first_low < end_J) & (stop_high > begin_J), (first_high <= begin_J) & (stop_low >= end_J)


def _listed(present_BIJ: Tensor) -> tuple[Tensor, Tensor]:
    """(number, indices) of the present blocks of keys for each block of queries, int32 [B, 1, I] and [B, 1, I, J]; the
    present ones come first.
    """
    present = present_BIJ[:, None].to(torch.int32)
    return present.sum(-1, dtype=torch.int32), present.argsort(dim=-1, descending=True, stable=True).to(torch.int32)


@functools.cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
