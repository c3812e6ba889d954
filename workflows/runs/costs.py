"""What a training costs, in words: memory, time and disk. Times are measured, or follow from assumed rates, said so."""

from __future__ import annotations

from infra import storage
from infra.console import duration, human_bytes
from workflows.runs.workers import ForWorkers, workers_text
from workflows.settings.budget import BYTES_PER_PARAMETER
from workflows.training.messages import Pace

# Sustained rates (FLOP/s) that hours are quoted at, with their assumption said beside them.
_RATES = {"H100/H200 at 45 % MFU": 0.45 * 989e12, "A100 at 45 % MFU": 0.45 * 312e12, "CPU core, fp32": 0.1e12}


def memory_text(parameters: int, pace: Pace | None) -> str:
    """What a worker takes. pace: None where nothing was measured."""
    state = f"{human_bytes(parameters * BYTES_PER_PARAMETER)} per worker with gradients and optimizer"
    # Two workers of `tiny` take 1.1 GB each on two cores, of which 24 MB are this state.
    rest = "besides, some 1 GB for the process and more for activations: --calibrate measures it"
    return f"{state}, {f'{human_bytes(pace.memory_bytes)} at the most, measured' if pace else rest}"


def time_text(recipe: ForWorkers, steps: int, flops: float, pace: Pace | None, *, every: int) -> str:
    """How long a run takes. flops: of all its steps; every: steps between validations, 0 for none."""
    workers = f"with {workers_text(recipe)} workers"
    if pace:
        seconds = steps * pace.step_s + (2 + (steps // every if every else 0)) * pace.validation_s
        each = f"{pace.step_s:.3g} s a step, {pace.validation_s:.3g} s a validation"
        return f"{duration(seconds)} {workers}: {each}, measured here"
    own_first = sorted(_RATES.items(), key=lambda rate: rate[0].startswith("CPU") == recipe.train.use_gpu)
    hours = (f"{duration(flops / rate / recipe.train.max_workers)} ({what})" for what, rate in own_first)
    return f"{', '.join(hours)}, {workers}; assumed rates, --calibrate measures"


def disk_text(parameters: int, keep_checkpoints: int, storage_path: str) -> str:
    size = human_bytes(12 * parameters * (keep_checkpoints + 2))
    return f"{size} of checkpoints in {storage.absolute(storage_path)}"
