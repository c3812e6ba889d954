"""What the host knows of a batch: where its segments and blanks lie, and that nothing in it is out of range.

A step asks the device for these where it has no outline. Each question waits until the device has done all that was
queued before; with an outline a GPU is never waited for between two micro-batches.

Shapes: N segments, R runs, M blank positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glm_model.attention.packed_rows import Runs, find_runs
from glm_model.checks import Range, check_ranges
from glm_model.config import MORE_POSITIONS, GLMConfig
from glm_model.layout import Example, Packed


@dataclass(frozen=True)
class Outline:
    """Made by `outline`. Not a tuple: DDP would move the tensors of one to the GPU."""

    runs: Runs | None
    """The segments, on the host; None when one is not in one piece."""
    at_M: Tensor
    """Flat positions of the blanks, int64, on the device of the batch."""


def outline(batch: Example | Packed, config: GLMConfig, num_objectives: int, device: torch.device | str) -> Outline:
    """The outline of a batch of the host, laid out or to be laid out on the device.

    Raises ValueError when an id or a position is out of the model's range, and for contexts as `find_runs`.
    """
    if isinstance(batch, Packed):
        runs, at = _of_packed(batch, config, num_objectives)
    else:
        runs, at = _of_example(batch, config, num_objectives)
    return Outline(runs, torch.from_numpy(at).to(device, non_blocking=True))


def _of_example(example: Example, config: GLMConfig, num_objectives: int) -> tuple[Runs | None, np.ndarray]:
    at = np.flatnonzero(example.loss_mask)
    ids = {"tokens": example.tokens, "targets": example.targets.flat[at]}
    places = {"position_ids": example.position_ids, "block_position_ids": example.block_position_ids}
    _check(config, num_objectives, ids, places, example.objective_ids.flat[at])
    return find_runs(torch.from_numpy(example.segment_ids), torch.from_numpy(example.context_end)), at


def _of_packed(packed: Packed, config: GLMConfig, num_objectives: int) -> tuple[Runs, np.ndarray]:
    batch, row_offsets, width, marks = packed
    num_segments, num_rows = len(batch.offsets) - 1, len(row_offsets) - 1
    lengths, counts, blanked = np.diff(batch.offsets), np.diff(batch.span_offsets), np.diff(batch.spans)[:, 0]
    context = lengths + counts - np.diff(_before(blanked)[batch.span_offsets])
    size = lengths + 2 * counts
    ids = {"tokens": batch.tokens, "masks": batch.mask_ids, "marks": np.array([marks.sop, marks.eop, marks.pad])}
    places = {"position_ids": context - 1, "block_position_ids": blanked + 1}
    _check(config, num_objectives, ids, places, batch.objective_ids)
    row = np.repeat(np.arange(num_rows), np.diff(row_offsets))
    before = _before(size)
    begin = before[:-1] - before[row_offsets[:-1]][row] + row * width
    used = np.diff(before[row_offsets])
    segments = np.stack((begin, begin + context, begin + size, np.arange(num_segments) - row_offsets[:-1][row]), 1)
    end = np.arange(1, num_rows + 1) * width
    padding = np.stack((end - width + used, end - width + used, end, np.full(num_rows, -1)), 1)[used < width]
    table = np.concatenate((segments, padding))
    table = table[np.argsort(table[:, 0], kind="stable")]
    blanks = size - context
    at = np.repeat(begin + context - _before(blanks)[:-1], blanks) + np.arange(blanks.sum())
    return Runs(torch.from_numpy(table.astype(np.int64))), at.astype(np.int64)


def _check(
    config: GLMConfig,
    num_objectives: int,
    ids: dict[str, np.ndarray],
    places: dict[str, np.ndarray],
    objectives: np.ndarray,
) -> None:
    limits = {name: (config.vocab_size, "Use the tokenizer that the model was trained with") for name in ids}
    limits |= {name: (config.positions + 1, f"Use a model with more positions ({MORE_POSITIONS})") for name in places}
    limits["objective_ids"] = (num_objectives, "Set num_objectives to the objectives that there are")
    arrays = {**ids, **places, "objective_ids": objectives}
    check_ranges(
        {name: Range(torch.from_numpy(array.astype(np.int64)), *limits[name]) for name, array in arrays.items()}
    )


def _before(sizes: np.ndarray) -> np.ndarray:
    """The sum of the sizes before each one, and of all: [K] -> [K + 1]."""
    return np.concatenate(([0], np.cumsum(sizes)))
