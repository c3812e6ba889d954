"""The weights that a run begins with: drawn at random, or those of another model (`model.init_from`)."""

from __future__ import annotations

import torch

from glm_model import GLM, GLMConfig, from_pretrained
from glm_model.resize import extend_positions, grow_vocabulary
from infra.errors import DataError


def initial_model(shape: GLMConfig, *, seed: int, init_from: str | None) -> GLM:
    """A model of this shape: drawn by the seed, or with the weights of `init_from`, whose tables are grown to it."""
    torch.manual_seed(seed)
    if init_from is None:
        return GLM(shape)
    try:
        before = from_pretrained(init_from)
    except ValueError as error:
        raise DataError(str(error)) from error
    extend_positions(before, shape.positions, seed=seed)
    grow_vocabulary(before, shape.vocab_size)
    return GLM.from_state(shape, before.state_dict()).train()
