"""A small tree of settings, as recipes have them: sections, a list of dataclasses, counts, values that are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from infra.config import Count, parse
from infra.errors import UserError


@dataclass
class Source:
    reader: str
    url: str = ""
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optim:
    """Optimizer."""

    lr: float = 1e-4
    """Peak learning rate, per step."""
    betas: tuple[float, float] = (0.9, 0.98)
    steps: int | None = None
    fused: bool = False
    schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.lr > 1:
            raise UserError(f"optim.lr={self.lr} is above 1", try_="lower it")
        if self.steps == 0:
            raise ValueError("optim.steps is 0")


@dataclass
class Data:
    sources: list[Source] = field(default_factory=list)
    """What to read."""
    mixture: dict[str, float] | str = "glm"
    settings: dict[str, dict[str, Any]] = field(default_factory=lambda: {"token": {"ratio": 0.15}})
    tokens: Count = Count("1M")


@dataclass
class Root:
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=lambda: Optim(lr=3e-4))
    name: str | None = None


def read(*argv: str) -> Root:
    return parse(Root, description="Train.", argv=list(argv))[0]
