"""Shapes of GLM models and settings of their training, as plain values. Imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

_SCHEDULES = ("cosine", "linear", "constant", "trapezoidal")
# The advice of errors about texts that are too long.
MORE_POSITIONS = "glm_model.resize.extend_positions extends this one"


@dataclass(frozen=True)
class GLMConfig:
    """The shape of a GLM: what a checkpoint needs besides its weights. Raises ValueError on an impossible shape."""

    layers: int
    width: int
    heads: int
    vocab_size: int
    """Rows of the embedding: the tokenizer's `padded_vocab_size`."""
    positions: int = 512
    """The largest position id. Both position tables have one row more."""
    block_positions: bool = True
    """Whether there is a second table, for the place inside a blank. Off only in ablations."""
    dropout: float = 0.1
    """Dropout of the embeddings, and of what attention and the MLP add to the residual stream."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), {"int": int, "bool": bool, "float": (int, float)}[str(field.type)]
            if not isinstance(value, kind) or (field.type != "bool" and isinstance(value, bool)):
                raise ValueError(f"model.{field.name}: expected {field.type}, got {value!r}")
        for name in ("layers", "width", "heads", "vocab_size", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} does not split evenly over model.heads={self.heads}. "
                "Choose a width that is a multiple of the heads (64 per head is usual)"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) <= 0.9999:  # 16 bits decide what is dropped: 0.99999 would leave nothing
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 0 and below 1 (at most 0.9999)")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> GLMConfig:
        """The inverse of `to_dict`. Raises ValueError naming unknown and missing keys."""
        known = [f.name for f in fields(cls)]
        for name in mapping:
            if name not in known:
                raise ValueError(f"model config has no key {name!r}{_nearest(name, known)}")
        missing = [name for name in ("layers", "width", "heads", "vocab_size") if name not in mapping]
        if missing:
            raise ValueError(f"model config lacks {', '.join(missing)}")
        return cls(**mapping)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule. The defaults are GLM-Base's (Du et al. 2022, appendix; the authors' configs)."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw: for all weights. muon: for the matrices of the layers; embeddings, biases and norms keep AdamW."""
    lr: float = 4e-4
    """Peak learning rate of AdamW."""
    matrix_lr: float = 0.02
    """Peak learning rate of the matrices under muon: about what a step adds to each of their singular values. A matrix
    with more rows than columns takes sqrt(rows / columns) times this.
    """
    momentum: float = 0.95
    """Momentum of the matrices under muon."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.1
    """Decoupled weight decay; not applied to biases and norms."""
    warmup_steps: int | None = None
    """Steps of linear warm-up. If unset: `warmup_fraction` of all steps."""
    warmup_fraction: float = 0.05
    schedule: Literal["cosine", "linear", "constant", "trapezoidal"] = "cosine"
    """How the rate goes from its peak to the floor. trapezoidal: it stays at the peak and falls linearly at the end."""
    decay_fraction: float = 0.2
    """The part of all steps in which the rate falls, under trapezoidal."""
    floor_ratio: float = 0.05
    """Learning rate at the end, as a fraction of the peak."""
    clip: float = 1.0
    """The largest gradient norm; 0 does not clip gradients."""

    def __post_init__(self) -> None:
        for name, known in (("name", ("adamw", "muon")), ("schedule", _SCHEDULES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"optim.{name}={value!r} is unknown{_nearest(value, known)}")
        for name in ("lr", "matrix_lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:  # nor nan, which compares as false
                raise ValueError(f"optim.{name}={getattr(self, name)} must be above 0 and finite")
        for name in ("warmup_fraction", "decay_fraction", "floor_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optim.{name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("weight_decay", "clip", "warmup_steps"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ValueError(f"optim.{name}={getattr(self, name)} must be finite and not negative")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas={self.betas} must each be at least 0 and below 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optim.momentum={self.momentum} must be at least 0 and below 1")

    def warmup(self, total_steps: int) -> int:
        """Steps of warm-up in a training of this length. Raises ValueError when they are all of it."""
        if self.warmup_steps is None:
            return round(self.warmup_fraction * total_steps)
        if 0 < self.warmup_steps >= total_steps:
            raise ValueError(
                f"optim.warmup_steps={self.warmup_steps} leaves nothing of {total_steps} steps. "
                "Lower it, or train longer"
            )
        return self.warmup_steps


@dataclass(frozen=True)
class LossOptions:
    """What is added to plain cross-entropy -log p_y, p = softmax(z), of a position with target y. Default: nothing."""

    label_smoothing: float = 0.0
    """e in (1 - e) * -log p_y + e / V * sum over v of -log p_v (Szegedy et al. 2016, section 7). The sum runs over all
    V rows of the embedding, its padding included, as in torch.nn.functional.cross_entropy.
    """
    z_loss: float = 0.0
    """c in + c * (log sum over v of exp z_v)^2, which keeps logits from drifting (Chowdhery et al. 2022, section 5:
    c = 1e-4).
    """

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"train.label_smoothing={self.label_smoothing} must be at least 0 and below 1 (0.1 is usual)"
            )
        if not 0 <= self.z_loss < math.inf:
            raise ValueError(f"train.z_loss={self.z_loss} must be finite and not negative (1e-4 is usual)")


def _size(layers: int, width: int, heads: int, vocab_size: int = 30_592, positions: int = 512) -> dict[str, int]:
    return {"layers": layers, "width": width, "heads": heads, "vocab_size": vocab_size, "positions": positions}


# The vocabulary is that of the published models (BERT uncased, GPT-2); override it with that of the tokenizer.
SIZES: dict[str, dict[str, int]] = {
    "tiny": _size(2, 128, 2),
    "mini": _size(6, 384, 6),
    "base": _size(12, 768, 12),
    "large": _size(24, 1024, 16),
    "410m": _size(30, 1024, 16),
    "515m": _size(30, 1152, 18),
    "2b": _size(36, 2048, 32, 50_304, 1024),
    "10b": _size(48, 4096, 64, 50_304, 1024),
}


def sized(name: str, **overrides: Any) -> GLMConfig:
    """The shape of a named size: `sized("base", vocab_size=tokenizer.padded_vocab_size)`.

    Raises ValueError listing the sizes when none has that name.
    """
    if name not in SIZES:
        raise ValueError(f"unknown model size {name!r}{_nearest(name, SIZES)}")
    return GLMConfig.from_dict({**SIZES[name], **overrides})


def num_parameters(config: GLMConfig) -> int:
    """Number of parameters; the tied output layer counts once."""
    d, tables = config.width, 1 + config.block_positions
    return (
        config.vocab_size * d
        + tables * (config.positions + 1) * d
        + config.layers * (12 * d * d + 13 * d)  # weights; biases and norms: 3 + 1 + 4 + 1 + 4
        + 2 * d
    )


def flops_per_token(
    config: GLMConfig, *, segment_length: float = 561, density: float = 0.80, blank_share: float = 0.183
) -> float:
    """Useful floating-point operations of forward and backward per *expanded position*, for MFU.

    6*12*L*d^2 (weights) + 12*L*d*T*density (attention) + 6*d*V*blank_share (output layer, on the blanks only).
    segment_length: T, expanded positions of a segment; density: visible share of its T x T pairs
    (`attention_density`); blank_share: blank positions / all. Defaults: 512 tokens under the token objective.
    Padding, recomputation and masked pairs are not useful work and are not counted.
    """
    layers, d = config.layers, config.width
    weights = 6 * 12 * layers * d * d
    return weights + 12 * layers * d * segment_length * density + 6 * d * config.vocab_size * blank_share


def attention_density(context_length: float, segment_length: float) -> float:
    """Share of a segment's query-key pairs that are visible: all see the context, blanks also what is before them."""
    blanks = segment_length - context_length
    return (context_length * segment_length + blanks * (blanks + 1) / 2) / segment_length**2


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (have: {', '.join(known)})"
