"""Whether two models are the same."""

import torch

from glm_model.model import GLM


def same_weights(one: GLM, other: GLM) -> bool:
    """Whether both have the same names, each equal bit for bit; two of them may differ in dtype."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
