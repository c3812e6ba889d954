"""The pure parts of a training step: the module that DDP wraps, optimizer, schedule, loss weights, seeds, peak rates.

A step accumulates sums over its micro-batches. With the global counts known before backward,
`loss = (sums_O * loss_scales(counts_O, shares_O, weighting)).sum()` gives gradients that do not depend on how the step
is cut into micro-batches.

Shapes: B rows, L row length, O objectives.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glm_model.attention import check_backend
from glm_model.attention.backends import Backend
from glm_model.checks import check_fields
from glm_model.config import LossOptions, OptimConfig
from glm_model.loss import PLAIN, blank_loss, blanks_at, filled, find_blanks
from glm_model.model import GLM, Execution
from glm_model.muon import Muon, Share, alone
from glm_model.outline import Outline

Precision = Literal["auto", "fp32", "bf16"]
LossWeighting = Literal["objective", "token"]
# Dense bf16 operations per second of one card, by a part of its name: the makers' data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
__all__ = [
    "LossOptions",
    "OptimConfig",
    "TrainStep",
    "autocast",
    "clip_gradients",
    "learning_rate",
    "loss_scales",
    "make_optimizer",
    "objective_weights",
    "peak_flops",
    "resolve_precision",
    "seed_dropout",
    "set_learning_rates",
]


class TrainStep(nn.Module):
    """batch -> (sums_O float32, counts_O int64) of its blanks; see `blank_loss`. This is what DDP wraps.

    num_objectives: O. precision: see `resolve_precision`. max_logits: see `blank_loss`.
    options: apply in training mode only, so that validation is plain cross-entropy.
    compiled: run the layers (but for attention) and the loss as compiled code. Worth it on GPUs; on a CPU nothing was
    gained (docs/lab.md).
    checkpoint_activations, backend: see `model.Execution`.
    Raises ValueError on a precision, a backend or a number that does not exist.
    """

    def __init__(
        self,
        model: GLM,
        *,
        num_objectives: int = 1,
        precision: Precision = "auto",
        options: LossOptions = PLAIN,
        max_logits: int | None = None,
        compiled: bool = False,
        checkpoint_activations: bool = False,
        backend: Backend | None = None,
    ):
        super().__init__()
        resolve_precision(precision, "cpu")  # raises for an unknown one now, not at the first step
        check_backend(backend)
        for name, value in (("num_objectives", num_objectives), ("max_logits", max_logits)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.model = model
        self.num_objectives = num_objectives
        self.precision: Precision = precision
        self.options = options
        self.max_logits = max_logits
        self.execution = Execution(backend, compiled, checkpoint_activations)

    def forward(self, batch: dict[str, Any], *, num_objectives: int | None = None) -> tuple[Tensor, Tensor]:
        """batch: int64 [B, L] under the names of `layout.Example` (`objective_ids` may be missing, `loss_mask` bool).
        Under `outline` it may hold what the host knows of it (`glm_model.outline`): values are not checked then, and a
        GPU is not waited for. num_objectives: O of this batch, where it is not the step's.

        Raises ValueError on missing names, and on shapes, dtypes and ids that do not fit (`GLM.hidden`, `find_blanks`).
        """
        inputs = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        needed = (*inputs, "targets", "loss_mask")
        missing = [name for name in needed if batch.get(name) is None]
        if missing:
            raise ValueError(
                f"the batch has no {', '.join(missing)}: expected {', '.join(needed)}, as in layout.Example"
            )
        check_fields({name: batch.get(name) for name in (*needed, "objective_ids")}, like="tokens")
        known: Outline | None = batch.get("outline")
        asked, count = (batch["targets"], batch.get("objective_ids")), num_objectives or self.num_objectives
        if known is None:
            size = self.model.config.vocab_size
            blanks = find_blanks(asked[0], batch["loss_mask"], asked[1], vocab_size=size, num_objectives=count)
        else:
            blanks = blanks_at(known.at_M, *asked, num_objectives=count)
        with autocast(self.precision, batch["tokens"].device):
            x = self.model.hidden(
                *(batch[name] for name in inputs),
                at=filled(blanks.at_M),
                execution=self.execution,
                runs=known.runs if known else None,
            )
            return blank_loss(
                self.model,
                x,
                blanks,
                options=self.options if self.training else PLAIN,
                max_logits=self.max_logits,
                compiled=self.execution.compiled,
            )


def resolve_precision(precision: Precision, device: torch.device | str) -> Literal["fp32", "bf16"]:
    """The precision meant: `auto` is bf16 on CUDA and on CPUs that multiply bf16 in hardware, and fp32 elsewhere."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision={precision!r} is unknown (have: auto, fp32, bf16)")
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    return "bf16" if kind == "cuda" or (kind == "cpu" and _cpu_has_bf16()) else "fp32"


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager:
    """The context in which the forward runs: weights stay fp32, matrix products run in the precision's dtype."""
    bf16 = resolve_precision(precision, device) == "bf16"
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=bf16)


def make_optimizer(model: nn.Module, config: OptimConfig, *, share: Share = alone) -> torch.optim.AdamW | Muon:
    """AdamW in its fused form (4.6 times as fast as a loop on a CPU), or `Muon` for matrices and AdamW for the rest.

    Matrices are the weights of `nn.Linear`; a query-key-value projection (`qkv`) is three of them. Decay spares biases
    and norms. share: for `Muon`.
    """
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in named if name in linear] if config.name == "muon" else []
    rest = [(name, p) for name, p in named if config.name != "muon" or name not in linear]
    adamw = {"lr": config.lr, "betas": (config.betas[0], config.betas[1]), "eps": config.eps}
    groups = [
        {"params": [p for name, p in rest if _decays(name)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in rest if not _decays(name)], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, **adamw, fused=True)
    muon = {"lr": config.matrix_lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    parts = {name: 3 if name.endswith("qkv.weight") else 1 for name, _ in matrices}
    by_parts = [(n, [p for name, p in matrices if parts[name] == n]) for n in sorted({*parts.values()})]
    moved = [*(muon | {"params": ps, "parts": n} for n, ps in by_parts), *(adamw | group for group in groups)]
    return Muon(moved, share)


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, total_steps: int, config: OptimConfig) -> float:
    """Set the rates of update number `step`, as `learning_rate`; returns AdamW's."""
    for group in optimizer.param_groups:
        peak = config.matrix_lr if "momentum" in group else config.lr
        group["lr"] = learning_rate(step, total_steps, config, peak=peak)
    return learning_rate(step, total_steps, config)


def learning_rate(step: int, total_steps: int, config: OptimConfig, *, peak: float | None = None) -> float:
    """Rate of update number `step`, counted from 0: linear warm-up to the peak, then the schedule down to the floor.

    The last update reaches the floor; later ones keep it. peak: None means `config.lr`. Raises ValueError when warm-up
    takes all steps.
    """
    warmup, peak = config.warmup(total_steps), config.lr if peak is None else peak
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    begin = warmup
    if config.schedule == "trapezoidal":
        begin = max(warmup, total_steps - round(config.decay_fraction * total_steps))
    done = min(1.0, max(0, step + 1 - begin) / max(1, total_steps - begin))
    falling = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return peak * (config.floor_ratio + (1 - config.floor_ratio) * falling)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit` (0: never). Returns the norm before that."""
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit > 0:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def objective_weights(counts_O: Tensor, shares_O: Tensor, weighting: LossWeighting = "objective") -> Tensor:
    """w_O of the loss L = sum over o of w_o * S_o / N_o: float64, with sum 1 (or 0 without any target).

    counts_O: N_o, the targets of the whole step over all ranks. shares_O: the mixture's shares, in any scale.
    weighting: with "objective", w_o is the share among the objectives that occur in this step; with "token",
    w_o = N_o / N, which makes L one global mean.
    """
    if weighting not in ("objective", "token"):
        raise ValueError(f"train.loss_weighting={weighting!r} is unknown (have: objective, token)")
    counts = counts_O.double()
    weights = counts if weighting == "token" else shares_O.to(counts) * (counts > 0)
    return weights / weights.sum().clamp_min(torch.finfo(torch.float64).tiny)


def loss_scales(counts_O: Tensor, shares_O: Tensor, weighting: LossWeighting = "objective") -> Tensor:
    """w_o / N_o in float32, by which a micro-batch's sums S_o are multiplied before backward; 0 where N_o is 0."""
    return (objective_weights(counts_O, shares_O, weighting) / counts_O.double().clamp_min(1)).float()


def seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Seed torch's generators for one micro-batch: its dropout depends on nothing but these three numbers."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, step, micro_batch), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def peak_flops(device: torch.device) -> float | None:
    """What one device could do in bf16, operations per second; None for CPUs and for cards without a known figure."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


def _decays(name: str) -> bool:
    return not (name.endswith(".bias") or "norm." in name)


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware: by AMX, or AVX-512 BF16.

    Steps of tiny are then 1.3 times as fast as in fp32, those of mini 2.4 times.
    """
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("amx_bf16", "avx512_bf16"))
