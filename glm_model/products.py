"""Products of a few positions with a matrix, which are most of generation, at the speed of memory.

torch's product of a row with a matrix [O, I] that does not fit in the cache reads it at about half the speed of memory,
and a large vocabulary with three rows at a seventh. In blocks of the matrix, as one batched product, a row reads it at
nearly full speed, three at half (docs/lab.md):

    weight_OI    |  block  |  block  |  block  |  ...        [O / 64, 64, I]
    x_MI         |    x    |    x    |    x    |  ...        the same for each block

Shapes: M positions, I and O inputs and outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW = 3
_MANY = 128  # positions from which on blocks of a vocabulary gain nothing: their results are copied once
_BLOCK = 64  # rows of a matrix; 32 and 128 are as fast


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x_I: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return linear(x_I, self.weight, self.bias)


def linear(x_I: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """[..., I] -> [..., O], as `torch.nn.functional.linear` to rounding. Of up to three positions in fp32 on a CPU, the
    bits of each do not depend on the others.
    """
    if x_I.numel() > _FEW * x_I.shape[-1] or not _in_blocks(x_I, weight_OI):
        return F.linear(x_I, weight_OI, bias_O)
    x_MI, blocks = _apart(x_I, weight_OI)
    # Positions are columns here, [I, M] with strides (1, I): as rows, as below, three of them take twice as long.
    columns = x_MI.t().expand(blocks.shape[0], -1, -1)
    bias_NB1 = None if bias_O is None else bias_O.view(-1, _BLOCK, 1)
    y_NBM = torch.bmm(blocks, columns) if bias_NB1 is None else torch.baddbmm(bias_NB1, blocks, columns)
    return y_NBM.flatten(0, 1).t().reshape(*x_I.shape[:-1], -1)


def wide_linear(x_I: Tensor, weight_OI: Tensor) -> Tensor:
    """The same for a matrix with many rows, a vocabulary, whose blocks pay up to 128 positions. On CPUs in fp32,
    positions with equal inputs get equal bits, which `torch.nn.functional.linear` does not give to 5, 6, 7, 9, 10 or 11
    of them on two cores (torch 2.13).
    """
    positions = x_I.numel() // max(1, x_I.shape[-1])
    if not _FEW < positions <= _MANY or not _in_blocks(x_I, weight_OI):
        return linear(x_I, weight_OI)
    x_MI, blocks = _apart(x_I, weight_OI)
    y_NMB = torch.bmm(x_MI.expand(blocks.shape[0], -1, -1), blocks.mT)
    return y_NMB.transpose(0, 1).reshape(*x_I.shape[:-1], -1)


def _apart(x_I: Tensor, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """The positions [M, I], and the blocks of the matrix [N, B, I]."""
    width = x_I.shape[-1]
    return x_I.reshape(-1, width), weight_OI.view(-1, _BLOCK, width)


def _in_blocks(x_I: Tensor, weight_OI: Tensor) -> bool:
    """Not where a gradient is wanted, which blocks would have to sum up, nor in code that torch compiles."""
    is_float = x_I.dtype == weight_OI.dtype == torch.float32 and x_I.device.type == "cpu"
    can = is_float and x_I.numel() > 0 and weight_OI.shape[0] % _BLOCK == 0
    return can and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
