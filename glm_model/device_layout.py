"""`layout.expand` in torch, on the device that trains: the host then sends tokens and spans, a fifth of the bytes.

The same steps in the same order as the numpy function, and equal to it bit for bit. Ablations stay on the host.
"""

import numpy as np
import torch
from torch import Tensor

from glm_model.layout import Marks, Ragged, check_fit


def expand(
    batch: Ragged, row_offsets: Tensor | np.ndarray, *, width: int, marks: Marks, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The arrays of `layout.Example`, int64 [B, width], by name.

    batch: numpy arrays or tensors of the host, best in page-locked memory: nothing here waits for the device then.
    Raises ValueError when the segments of a row do not fit in width, and for ablations (sentinels, piece inputs).
    """
    if batch.sentinels is not None or batch.piece_inputs is not None:
        raise ValueError("sentinels and noise are laid out on the host: glm_model.layout.expand")
    host = [torch.as_tensor(part) for part in (*batch[:6], row_offsets)]
    # All sizes are known here; asking the device for one would wait for what it has been given to do.
    n, num_rows, num_blanks = len(host[1]) - 1, len(host[6]) - 1, len(host[2])
    num_slots = int(host[2].diff(dim=1).sum()) + num_blanks
    check_fit(width - (host[1] + 2 * host[3])[host[6]].diff().numpy(), width)
    # As they are, then widened: a copy that converts does so on the host, into memory that is not page-locked.
    tokens, offsets, spans, span_offsets, mask_ids, objective_ids, rows = (
        part.to(device, non_blocking=True).to(torch.int64) for part in host
    )
    counts, lengths = span_offsets.diff(), offsets.diff()
    segment = torch.arange(n, device=device).repeat_interleave(counts, output_size=num_blanks)
    row = torch.arange(num_rows, device=device).repeat_interleave(rows.diff(), output_size=n)
    sizes = lengths + 2 * counts
    padding = width - _before(sizes)[rows].diff()

    # The blanks in text order: what the context lacks, and so where masks stand.
    start, size = spans[:, 0] + offsets[segment], spans[:, 1] - spans[:, 0]
    order = start.argsort()
    lacks = _before(size[order] - 1)
    lacks_before = lacks[span_offsets[:-1]]
    place = torch.empty_like(start)
    place[order] = spans[order, 0] - (lacks[:-1] - lacks_before[segment])
    context = lengths - (lacks[span_offsets[1:]] - lacks_before)

    # Runs of consecutive tokens: contexts between blanks, pieces, padding.
    base = torch.arange(n, device=device) + 2 * span_offsets[:-1] + row
    pads = torch.arange(num_rows, device=device) + rows[1:] + 2 * span_offsets[rows[1:]]
    first, stop = torch.zeros((2, n + 2 * len(start) + num_rows), dtype=torch.int64, device=device)
    upto = base[segment] + torch.arange(len(start), device=device) - span_offsets[segment]
    pieces = upto + counts[segment] + 1
    first[base], first[upto + 1] = offsets[:-1], start[order] + size[order]
    stop[upto], stop[base + counts] = start[order] + 1, offsets[1:]
    first[pieces], stop[pieces], stop[pads] = start - 1, start + size, padding
    run = stop - first
    begin = _before(run)[:-1]
    total = num_rows * width
    everywhere = torch.arange(total, device=device)
    source = (first - begin).repeat_interleave(run, output_size=total) + everywhere
    begin, head = begin[base], begin[pieces]

    own, repeats = torch.arange(n, device=device) + row, torch.empty(n + num_rows, dtype=torch.int64, device=device)
    repeats[own], repeats[torch.arange(num_rows, device=device) + rows[1:]] = sizes, padding

    def spread(values: Tensor, where_padded: int) -> Tensor:
        column = torch.full((n + num_rows,), where_padded, dtype=torch.int64, device=device)
        column[own] = values
        return column.repeat_interleave(repeats, output_size=total)

    segment_ids = spread(torch.arange(n, device=device) - rows[:-1][row], -1)
    padded = segment_ids < 0
    inputs = tokens[source.clamp(0, max(len(tokens) - 1, 0))] if n else torch.zeros_like(source)
    positions = (everywhere - spread(begin, 0)).masked_fill(padded, 0)
    targets, block, loss = torch.zeros((3, total), dtype=torch.int64, device=device)
    slots = _ranges(head, size + 1, num_slots)
    positions[slots] = place.repeat_interleave(size + 1, output_size=num_slots)
    block[slots] = _ranges(torch.ones_like(head), size + 1, num_slots)
    loss.index_fill_(0, slots, 1)
    targets[slots[:-1]] = inputs[slots[1:]]
    targets.index_fill_(0, head + size, marks.eop)
    inputs.index_fill_(0, head, marks.sop)
    inputs[begin[segment] + place] = mask_ids[segment]
    inputs.masked_fill_(padded, marks.pad)
    flat = {
        "tokens": inputs,
        "targets": targets,
        "position_ids": positions,
        "block_position_ids": block,
        "loss_mask": loss,
        "segment_ids": segment_ids,
        "context_end": spread(begin - row * width + context, 0),
        "objective_ids": spread(objective_ids, 0),
    }
    return {name: values.view(num_rows, width) for name, values in flat.items()}


def _before(sizes: Tensor) -> Tensor:
    """Sums of the sizes before each, and of all: [K] -> [K + 1]."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def _ranges(starts: Tensor, sizes: Tensor, total: int) -> Tensor:
    """arange(start, start + size) of every pair, one after the other; total: sum of the sizes."""
    shift = starts - (sizes.cumsum(0) - sizes)
    return shift.repeat_interleave(sizes, output_size=total) + torch.arange(total, device=starts.device)
