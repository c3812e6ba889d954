"""What is noticed while training: gradients that are not finite, losses that jump, validations that do not improve."""

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.errors import DivergedError

_RECENT = 20  # logged losses that a jump is measured against
_DEVIATIONS = 6.0


@dataclass
class GradientHealth:
    """Whether gradients are finite and losses stay near those before.

    max_skipped: steps in a row without a finite gradient that are skipped.
    look_at: step -> the command that shows its examples.

    All ranks see the same norms, so all of them skip and stop at the same step.
    """

    max_skipped: int
    look_at: Callable[[int], str]
    rates: str = "--optim.lr"
    """The learning rates that may be too high, for messages."""
    skipped: int = 0
    """Steps skipped so far, in all."""
    in_a_row: int = 0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def skips(self, step: int, norm: float) -> bool:
        """Whether to leave out this step's update. Raises DivergedError when too many in a row would be."""
        if math.isfinite(norm):
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self.skipped += 1
        if self.in_a_row <= self.max_skipped:
            return True
        first = step - self.in_a_row + 1
        place = f"at step {step}" if first == step else f"at {self.in_a_row} steps in a row, {first} to {step}"
        raise DivergedError(
            f"the gradient is not finite {place}",
            why="the learning rate is too high for this model, or a batch holds something degenerate",
            try_=f"lower {self.rates} (a new run), or raise --optim.warmup_fraction; the first of these batches: "
            f"{self.look_at(first)}",
        )

    def jump(self, step: int, loss: float) -> str | None:
        """What to say of a logged loss that lies far above those before it, or None."""
        before = list(self.losses)
        if math.isfinite(loss):
            self.losses.append(loss)
        if len(before) < _RECENT // 2 or not math.isfinite(loss):
            return None
        usual, spread = statistics.fmean(before), statistics.stdev(before)
        if loss - usual <= _DEVIATIONS * max(spread, 0.01 * abs(usual)):
            return None
        return f"the loss jumped to {loss:.3f} at step {step:,} (before: {usual:.3f}); its batch: {self.look_at(step)}"


@dataclass
class Patience:
    """limit: validations in a row without a lower loss after which a run ends early; None: it never does."""

    limit: int | None
    best: float = math.inf
    best_step: int = 0
    without: int = 0
    """Validations since the best one."""

    @staticmethod
    def of(state: dict[str, Any], limit: int | None) -> "Patience":
        """As a checkpoint's state has it, with the limit of now."""
        return Patience(**{**state["patience"], "limit": limit})

    def see(self, step: int, loss: float) -> None:
        if loss < self.best:
            self.best, self.best_step, self.without = loss, step, 0
        else:
            self.without += 1

    @property
    def is_over(self) -> bool:
        return self.limit is not None and self.without >= self.limit
