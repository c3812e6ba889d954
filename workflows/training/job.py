"""What the driver hands to every train worker."""

from __future__ import annotations

from dataclasses import dataclass

from glm_model.config import GLMConfig
from infra.tracking.mlflow_client import RunHandle
from workflows.settings.budget import Budget
from workflows.settings.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """All that a worker needs to train a run, from its last checkpoint or from the start. Ray pickles it: driver and
    workers run the same code, so values cross as they are.
    """

    recipe: Recipe
    """Its places are absolute, and all nodes see them."""
    model: GLMConfig
    budget: Budget
    identity: str
    """Digest of the settings that decide what the run computes; checkpoints hold it."""
    store_url: str
    """The token store, with its tokenizer."""
    blanks_key: str
    """Names the blanks that the store may hold already, drawn in advance."""
    run_url: str | None
    """The run's folder, where metrics go. None: nothing is logged."""
    checkpoints_url: str
    tracking: RunHandle
    link: str | None
    """Name of the driver's `Link`. None: no driver listens, nothing is posted, nobody asks for a stop."""
