"""`layout.expand` in torch, on the device that trains: the host then sends tokens and spans, a fifth of the bytes.

These are the steps of the numpy functions, in the same order and under the same names, and equal to them bit for bit;
`glm_model.layout` explains them. Ablations stay on the host.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glm_model.layout import Marks, Ragged, check_fit


def expand(
    batch: Ragged, row_offsets: Tensor | np.ndarray, *, width: int, marks: Marks, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The arrays of `layout.Example` by name, int64 [B, width].

    batch: numpy arrays or tensors of the host, best in page-locked memory: nothing here waits for the device then.
    Raises ValueError when the segments of a row do not fit in width, and for ablations (sentinels, piece inputs).
    """
    if batch.sentinels is not None or batch.piece_inputs is not None:
        raise ValueError("sentinels and noise are laid out on the host: use glm_model.layout.expand")
    rows = _on_device(batch, row_offsets, width, device)
    total = rows.num_rows * width
    blanks = _blanks(rows)
    source, begin, head = _runs(rows, blanks, total)
    spread = _spreader(rows, total)

    segment_ids = spread(rows.count(rows.n) - rows.row_offsets[:-1][rows.row], -1)
    padded = segment_ids < 0
    last = max(len(rows.tokens) - 1, 0)
    tokens = rows.tokens[source.clamp(0, last)] if rows.n else torch.zeros_like(source)
    positions = (rows.count(total) - spread(begin, 0)).masked_fill(padded, 0)
    targets, block, loss = torch.zeros((3, total), dtype=torch.int64, device=device)
    flat = {
        "tokens": tokens,
        "targets": targets,
        "position_ids": positions,
        "block_position_ids": block,
        "loss_mask": loss,
        "segment_ids": segment_ids,
        "context_end": spread(begin - rows.row * width + blanks.context, 0),
        "objective_ids": spread(rows.objective_ids, 0),
    }
    _write_pieces(flat, rows, blanks, head, marks)
    tokens[begin[blanks.segment] + blanks.place] = rows.mask_ids[blanks.segment]
    tokens.masked_fill_(padded, marks.pad)
    return {name: values.view(rows.num_rows, width) for name, values in flat.items()}


def _spreader(rows: "_Rows", total: int) -> Callable[[Tensor, int], Tensor]:
    segments, pads = rows.count(rows.n) + rows.row, rows.count(rows.num_rows) + rows.row_offsets[1:]
    repeats = torch.empty(rows.n + rows.num_rows, dtype=torch.int64, device=rows.tokens.device)
    repeats[segments], repeats[pads] = rows.sizes, rows.padding

    def spread(values: Tensor, where_padded: int) -> Tensor:
        column = torch.full_like(repeats, where_padded)
        column[segments] = values
        return column.repeat_interleave(repeats, output_size=total)

    return spread


def _write_pieces(flat: dict[str, Tensor], rows: "_Rows", blanks: "_Blanks", head: Tensor, marks: Marks) -> None:
    tokens, targets = flat["tokens"], flat["targets"]
    slots = _ranges(head, blanks.size + 1, rows.num_slots)
    places = blanks.place.repeat_interleave(blanks.size + 1, output_size=rows.num_slots)
    flat["position_ids"][slots] = places
    flat["block_position_ids"][slots] = _ranges(torch.ones_like(head), blanks.size + 1, rows.num_slots)
    flat["loss_mask"].index_fill_(0, slots, 1)
    targets[slots[:-1]] = tokens[slots[1:]]
    targets.index_fill_(0, head + blanks.size, marks.eop)
    tokens.index_fill_(0, head, marks.sop)


class _Rows(NamedTuple):
    """A `Ragged` batch and what follows from its sizes, int64 on the device: per segment its row [N], counts of blanks
    [N] and positions [N]; per row its padding [B]. num_slots: positions of all pieces.

    All sizes come from the host: to ask the device for one would be to wait for all the work that is queued on it.
    """

    tokens: Tensor
    offsets: Tensor
    spans: Tensor
    span_offsets: Tensor
    mask_ids: Tensor
    objective_ids: Tensor
    row_offsets: Tensor
    row: Tensor
    counts: Tensor
    sizes: Tensor
    padding: Tensor
    num_slots: int

    @property
    def n(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_rows(self) -> int:
        return len(self.row_offsets) - 1

    def count(self, number: int) -> Tensor:
        """0 .. number - 1, on the device."""
        return torch.arange(number, device=self.tokens.device)


def _on_device(batch: Ragged, row_offsets: Tensor | np.ndarray, width: int, device: torch.device | str) -> _Rows:
    host = [torch.as_tensor(part) for part in (*batch[:6], row_offsets)]
    check_fit(width - (host[1] + 2 * host[3])[host[6]].diff().numpy(), width)
    num_slots = int(host[2].diff(dim=1).sum()) + len(host[2])
    # First copied as they are, then widened: a copy that also converts would do so on the host, into memory that is not
    # page-locked.
    tokens, offsets, spans, span_offsets, mask_ids, objective_ids, rows = (
        part.to(device, non_blocking=True).to(torch.int64) for part in host
    )
    counts = span_offsets.diff()
    sizes = offsets.diff() + 2 * counts
    return _Rows(
        tokens,
        offsets,
        spans,
        span_offsets,
        mask_ids,
        objective_ids,
        rows,
        row=torch.arange(len(rows) - 1, device=device).repeat_interleave(rows.diff(), output_size=len(sizes)),
        counts=counts,
        sizes=sizes,
        padding=width - _before(sizes)[rows].diff(),
        num_slots=num_slots,
    )


class _Blanks(NamedTuple):
    """`layout._Blanks`, as tensors."""

    segment: Tensor
    start: Tensor
    size: Tensor
    place: Tensor
    order: Tensor
    context: Tensor


def _blanks(rows: _Rows) -> _Blanks:
    segment = rows.count(rows.n).repeat_interleave(rows.counts, output_size=len(rows.spans))
    start = rows.spans[:, 0] + rows.offsets[segment]
    size = rows.spans[:, 1] - rows.spans[:, 0]
    order = start.argsort()
    lacks = _before(size[order] - 1)
    lacks_before = lacks[rows.span_offsets[:-1]]
    place = torch.empty_like(start)
    place[order] = rows.spans[order, 0] - (lacks[:-1] - lacks_before[segment])
    context = rows.offsets.diff() - (lacks[rows.span_offsets[1:]] - lacks_before)
    return _Blanks(segment, start, size, place, order, context)


def _runs(rows: _Rows, blanks: _Blanks, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """`layout._runs`: source token of every position, first position of every segment, first of every piece."""
    base = rows.count(rows.n) + 2 * rows.span_offsets[:-1] + rows.row
    pads = rows.count(rows.num_rows) + rows.row_offsets[1:] + 2 * rows.span_offsets[rows.row_offsets[1:]]
    num_runs = rows.n + 2 * len(blanks.start) + rows.num_rows
    source, stop = torch.zeros((2, num_runs), dtype=torch.int64, device=rows.tokens.device)
    first, size = blanks.start[blanks.order], blanks.size[blanks.order]
    upto = base[blanks.segment] + rows.count(len(first)) - rows.span_offsets[blanks.segment]
    source[base], source[upto + 1] = rows.offsets[:-1], first + size
    stop[upto], stop[base + rows.counts] = first + 1, rows.offsets[1:]
    pieces = upto + rows.counts[blanks.segment] + 1
    source[pieces], stop[pieces] = blanks.start - 1, blanks.start + blanks.size
    stop[pads] = rows.padding
    sizes = stop - source
    begin = _before(sizes)[:-1]
    index = (source - begin).repeat_interleave(sizes, output_size=total) + rows.count(total)
    return index, begin[base], begin[pieces]


def _before(sizes: Tensor) -> Tensor:
    """The sum of the sizes before each one, and of all: [K] -> [K + 1]."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def _ranges(starts: Tensor, sizes: Tensor, total: int) -> Tensor:
    """arange(start, start + size) of every pair, one after the other. total: the sum of the sizes."""
    shift = starts - (sizes.cumsum(0) - sizes)
    return shift.repeat_interleave(sizes, output_size=total) + torch.arange(total, device=starts.device)
