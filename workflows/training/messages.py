"""What the workers of a job tell their driver, in the order of time. It travels over `infra.cluster.link`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """A worker has found its place: the driver need not wait for it any longer."""


@dataclass(frozen=True)
class Began:
    """A group of workers begins, the first time or again."""

    step: int
    """Optimizer steps that were taken before."""
    num_workers: int
    skipped: tuple[str, ...] = ()
    """URLs of newer checkpoints that are incomplete."""


@dataclass(frozen=True)
class Point:
    """Metrics of a step, by the names that MLflow shows."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class Warned:
    """Something that the user should see, in a sentence."""

    text: str


@dataclass(frozen=True)
class Failed:
    """A worker ended: which one, and what ended it."""

    text: str


@dataclass(frozen=True)
class Pace:
    """Medians of a few steps and validations."""

    step_s: float
    validation_s: float
    memory_bytes: float
    """The most that rank 0 took: of the GPU's memory, or of the machine's."""

    def steps_in(self, hours: float, eval_every: int) -> int:
        """Optimizer steps in that time, with a validation at both ends and every `eval_every` steps."""
        each_s = self.step_s + (self.validation_s / eval_every if eval_every else 0.0)
        return max(1, round((hours * 3600 - 2 * self.validation_s) / each_s))


Message = Placed | Began | Point | Warned | Failed | Pace
