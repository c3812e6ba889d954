"""Muon for the matrices of a network, AdamW for all else: one optimizer with one state.

Muon (K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix along the orthogonal matrix that
is nearest to its momentum, so that the directions with small gradients change as much as those with large ones. With
momentum 0.95 and rate a, a matrix W [rows, columns] with gradient G becomes

    B <- 0.95 B + 0.05 G
    W <- (1 - a * decay) W - a * sqrt(max(1, rows / columns)) * orthogonal(0.95 B + 0.05 G)

as `torch.optim.Muon` does it (its state too is this mean, not the sum of its documentation). Three things differ:
matrices of equal shape are multiplied together, workers may share them out, and on CPUs the products run in float32. In
bfloat16, whose rounding turns a last bit of a gradient into a hundredth of an update, another number of workers would
soon train another model.

Shapes: N matrices, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# Of x -> a x + b x^3 + c x^5: five of them take a singular value from [0.003, 1] to [0.68, 1.14] (the post above).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_LEAST_NORM = 1e-7
# Columns over rows, from which on the polynomial takes fewer products: 17 R + 2 C against 5 (R + 2 C), times R^2.
_LONG = 1.5


Share = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""Takes a function and its items [N, ...], and returns what it makes of each."""


def alone(compute: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    """All of it in this process."""
    return compute(items)


class Muon(torch.optim.Optimizer):
    """groups: of parameters, each with `lr` and `weight_decay`. One with `momentum` holds matrices, which Muon moves;
    each of its parameters holds `parts` of them, one below the other. The others have `betas` and `eps`, and AdamW
    moves them, in its fused form. share: who of the workers, all of which have the same gradients, computes which
    orthogonal matrices.

    A state holds `momentum_buffer`, or what `torch.optim.AdamW` has.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], share: Share = alone) -> None:
        super().__init__([{"fused": "betas" in group, **group} for group in groups], {})
        self._share = share

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and "momentum" in group:
                self._move_matrices(params, group)
            elif params:
                self._move_by_adamw(params, group)
        return loss

    def _move_matrices(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, buffers, group["momentum"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for same in _of_equal_shape(params):
            rows, columns = params[same[0]].shape[0] // group["parts"], params[same[0]].shape[1]
            moves = self._share(orthogonal, torch.stack([ahead[i] for i in same]).view(-1, rows, columns))
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            moves = moves.view(len(same), -1, columns).to(params[same[0]].dtype)
            torch._foreach_add_([params[i] for i in same], list(moves.unbind()), alpha=-rate)

    def _move_by_adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] |= {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(M_NRC: Tensor) -> Tensor:
    """The orthogonal matrices next to these, nearly: the same singular vectors, with values between about 0.7 and 1.1
    (those below 0.003 of the norm stay smaller). The result has the shape of M; it is float32 on CPUs, else bfloat16.
    """
    is_tall = M_NRC.shape[-2] > M_NRC.shape[-1]
    X = M_NRC.mT if is_tall else M_NRC  # so that the products of rows with rows are the smaller ones
    X = X.float() if X.device.type == "cpu" else X.bfloat16()
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp_min(_LEAST_NORM)
    on_cpu = X.device.type == "cpu"
    X = _polynomial_of_rows(X) @ X if on_cpu and X.shape[-1] > _LONG * X.shape[-2] else _iterated(X)
    return X.mT if is_tall else X


def _iterated(X: Tensor) -> Tensor:
    for _ in range(_ITERATIONS):
        S = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(S, S, S, beta=_B, alpha=_C), X, beta=_A)
    return X


def _polynomial_of_rows(X: Tensor) -> Tensor:
    """Q with Q X = `_iterated(X)`: each iteration multiplies X by a polynomial of X X^T from the left. So X, with its
    longer rows, is in two products instead of ten. In bfloat16 they would lose what tells small singular values apart.
    """
    S, Q = X @ X.mT, None
    identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
    for left in reversed(range(_ITERATIONS)):
        P = torch.baddbmm(S, S, S, beta=_B, alpha=_C).add_(identity, alpha=_A)
        Q = P if Q is None else P @ Q
        S = P @ S @ P if left else S
    assert Q is not None
    return Q


def _of_equal_shape(params: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the parameters, those of one shape together."""
    found: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for index, p in enumerate(params):
        found[p.shape].append(index)
    return list(found.values())
