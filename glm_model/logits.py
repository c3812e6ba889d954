"""The output layer: hidden states times the transposed token embedding, which is shared with the input.

Shapes: M positions, D width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 8


def logits_of(x_D: Tensor, weight_VD: Tensor) -> Tensor:
    """[..., D] hidden states -> [..., V]."""
    return _by_halves(x_D, weight_VD) if _few(x_D, weight_VD) else F.linear(x_D, weight_VD)


def target_logprobs(logits_MV: Tensor, targets_MK: Tensor, *, known: int) -> Tensor:
    """log p of ids at each position, float32 [M, K]. known: ids from here on have no probability. Overwrites logits.

    A few rows at a time stay in the cache: 540 of 30,592 take a fifth of the time of logsumexp over all at once.
    """
    logits_MV = logits_MV.float()
    logits_MV[:, known:] = -torch.inf  # rather than a slice, which would have to be copied
    parts = zip(logits_MV.split(_ROWS), targets_MK.split(_ROWS), strict=True)
    return torch.cat([rows.log_softmax(1).gather(1, targets) for rows, targets in parts])


def _few(x_D: Tensor, weight_VD: Tensor) -> bool:
    """Whether these are the one to three positions of a step of generation, in fp32 on a CPU."""
    few = 0 < x_D.numel() <= 3 * x_D.shape[-1] and len(weight_VD) % 2 == 0
    return few and x_D.device.type == "cpu" and x_D.dtype == weight_VD.dtype == torch.float32


def _by_halves(x_D: Tensor, weight_VD: Tensor) -> Tensor:
    """The same product as a batch of two, the halves of the vocabulary, one position after the other.

    torch's product of so few rows with a large matrix runs on one core: 1, 2 and 3 rows of width 384 times 30,592
    entries take 3.3, 6.8 and 10.2 ms. As a batch of two, all cores read the weights: 0.66, 1.3 and 2.0 ms on two cores,
    and 1.6, 3.1 and 4.5 on one (docs/lab.md). Since each position is multiplied by itself, the bits of its logits do
    not depend on the others.
    """
    halves, rows = weight_VD.unflatten(0, (2, -1)), x_D.reshape(-1, x_D.shape[-1])
    # A column is a transposed row, [D, 1] with strides (1, D): with strides (1, 1) torch makes slower products.
    products = [torch.bmm(halves, row.T.expand(2, -1, -1)).flatten() for row in rows.split(1)]
    return torch.stack(products).reshape(*x_D.shape[:-1], -1)
