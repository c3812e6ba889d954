"""Micro-batches as tensors on the device that trains; in page-locked memory on the way, where a GPU fetches them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glm_model import GLMConfig, device_layout
from glm_model.layout import Example, Packed, Ragged
from glm_model.outline import outline
from pipelines.feed.micro_batches import MicroBatch


def to_device(
    micro_batch: MicroBatch, device: torch.device | str = "cpu", *, config: GLMConfig | None = None
) -> dict[str, Any]:
    """The arrays of `Example` by name, int64 [R, width]; rows that are not laid out yet are laid out on the device.

    config: the model's. It adds `outline`: the batch is checked on the host, and nothing is asked of the device.
    """
    inputs = micro_batch.inputs
    known = {} if config is None else {"outline": outline(inputs, config, len(micro_batch.counts), device)}
    if isinstance(inputs, Packed):
        batch, row_offsets, width, marks = inputs
        return device_layout.expand(batch, row_offsets, width=width, marks=marks, device=device) | known
    arrays = inputs.arrays().items()
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays} | known


def page_lock(micro_batch: MicroBatch) -> MicroBatch:
    """The same micro-batch in page-locked memory, from where a GPU fetches it while it computes. Needs CUDA.

    Costs one copy on the host: for the thread of the feed. The arrays stay numpy arrays, as views of memory that torch
    does not reuse before the transfers from it are done.
    """
    inputs = micro_batch.inputs
    if isinstance(inputs, Packed):
        # The last two belong to ablations, which are never left to the device.
        batch = Ragged._make((*map(_page_locked, inputs.batch[:6]), None, None))
        return replace(micro_batch, inputs=inputs._replace(batch=batch, row_offsets=_page_locked(inputs.row_offsets)))
    return replace(micro_batch, inputs=Example(*map(_page_locked, inputs.arrays().values())))


def _page_locked(array: np.ndarray) -> np.ndarray:
    return torch.from_numpy(array).pin_memory().numpy()
