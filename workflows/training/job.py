"""What the driver hands to every train worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from glm_model.config import OptimConfig
from infra.tracking import NOT_TRACKED, RunHandle
from workflows.settings.recipe import TrainConfig
from workflows.training.engine import Place, Training


class Kind(Protocol):
    """A kind of training: a frozen dataclass of what it needs, all of it values that can be pickled."""

    def begin(self, place: Place) -> Training:
        """Build what is trained, in a worker. All workers call it, each with its own place."""
        ...


@dataclass(frozen=True)
class Job:
    """All that a worker needs to train, from the last checkpoint or from the start.

    Ray pickles it: driver and workers run the same code, so values cross as they are.
    """

    kind: Kind
    steps: int
    """Optimizer steps, from the run's beginning."""
    checkpoints_url: str
    run_url: str | None = None
    """The run's folder, where metrics go. None: nothing is logged."""
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    tracking: RunHandle = NOT_TRACKED
    link: str | None = None
    """Name of the driver's `Link`. None: no driver listens, nothing is posted, nobody asks for a stop."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that each checkpoint holds beside its state, such as the digests of settings and data."""
    keep_steps: frozenset[int] = frozenset()
    """Steps whose checkpoints stay, and at which a validation runs."""
