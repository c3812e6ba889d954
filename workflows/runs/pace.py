"""How long a step takes here: a few real ones, by real workers with their feed, exchange and optimizer. And what a run
costs by that, in words: memory, time and disk; where nothing was measured, by assumed rates, said so.

For runs whose length is given in hours, and for `--plan --calibrate`. Takes some 15 s besides the steps.
"""

import resource
import statistics
import time
from dataclasses import replace

import torch

from infra import storage
from infra.console import Console, counted, duration, human_bytes
from infra.errors import Interrupted
from infra.tracking import NOT_TRACKED
from workflows.runs.launch import job_of
from workflows.runs.run import Run
from workflows.runs.setup import Setup
from workflows.runs.workers import ForWorkers, WorkerWait, run_group, workers_text
from workflows.settings.budget import BYTES_PER_PARAMETER, MANY_STEPS
from workflows.training.job import Job
from workflows.training.loop import run_worker
from workflows.training.messages import Message, Pace
from workflows.training.worker import Worker

_WARM_UP, _LEAST, _MOST = 2, 3, 50  # steps
_ENOUGH_S = 20.0
# Sustained rates (FLOP/s) that hours are quoted at, with their assumption said beside them.
_RATES = {"H100/H200 at 45 % MFU": 0.45 * 989e12, "A100 at 45 % MFU": 0.45 * 312e12, "CPU core, fp32": 0.1e12}


def resolve_length(setup: Setup, run: Run) -> Setup:
    """The setup with the run's number of steps. A new run whose length is given in hours has a few steps timed for it,
    which needs a connected Ray.
    """
    hours, screen = setup.recipe.train.hours, setup.screen
    if hours is None or run.record.steps is not None:
        return setup
    screen.line(f"timing a few steps, to see how many {hours:g} hours are")
    pace = measure_pace(setup, run)
    steps = pace.steps_in(hours, setup.recipe.train.eval_every)
    screen.line(f"{counted(steps, 'step')} of {pace.step_s:.3g} s")
    return setup.with_steps(steps)


def measure_pace(setup: Setup, run: Run) -> Pace:
    """Take a few steps of a pretraining, as `pace_of`."""
    job = job_of(setup.with_steps(MANY_STEPS), run, NOT_TRACKED, link=None)
    return pace_of(job, setup.recipe, run.url, setup.screen)


def pace_of(job: Job, recipe: ForWorkers, run_url: str, screen: Console) -> Pace:
    """Take a few steps of a run on a connected Ray, and leave nothing behind. job: with `MANY_STEPS`; run_url: the
    run's folder, beside which the workers write what is removed again. Raises what the workers raise.
    """
    folder, _, run = run_url.rstrip("/").rpartition("/")
    name = f"calibration-{run}-{time.time_ns()}"
    scratch = storage.join(folder, f".{name}")
    job = replace(
        job,
        link=name,
        run_url=None,
        checkpoints_url=storage.join(scratch, "checkpoints"),
        train=replace(job.train, max_failures=0),  # whoever asked tries again, not the group while they wait
    )
    messages: list[Message] = []
    try:
        is_stopped = run_group(
            time_steps,
            job,
            WorkerWait(recipe, screen.line),
            name="calibration",
            storage_path=scratch,
            on_messages=messages.extend,
        )
    finally:
        storage.remove_tree(scratch)
    return posted_pace(messages, is_stopped=is_stopped)


def posted_pace(messages: list[Message], *, is_stopped: bool) -> Pace:
    """What rank 0 posted. A stop counts too where the workers, validating, heard nothing of it: Interrupted."""
    paces = [message for message in messages if isinstance(message, Pace)]
    if is_stopped or not paces:
        raise Interrupted(
            "stopped while a few steps were timed", try_="run the same command: it begins with timing them again"
        )
    return paces[-1]


def time_steps(job: Job) -> None:
    """What each worker does: steps until their time is known, one validation; rank 0 posts the pace."""
    run_worker(job, _time_steps)


def _time_steps(w: Worker) -> None:
    took_s: list[float] = []
    began_at = last_at = time.perf_counter()
    for item in w.steps():
        if w.advance(item)[0].agreed.stop:
            w.close()
            return
        now = time.perf_counter()
        took_s, last_at = [*took_s, now - last_at], now
        enough = len(took_s) >= _WARM_UP + _MOST or (len(took_s) >= _WARM_UP + _LEAST and now - began_at >= _ENOUGH_S)
        # Rank 0's clock decides for all.
        if w.ranks.sum(torch.tensor([int(enough and w.ranks.rank == 0)])).item():
            break
    validated_at = time.perf_counter()
    w.validate()
    if w.ranks.rank == 0:
        step_s = statistics.median(took_s[_WARM_UP:])
        w.telemetry.post(Pace(step_s, time.perf_counter() - validated_at, _memory_bytes(w.ranks.device)))
    w.close()


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def memory_text(parameters: int, pace: Pace | None) -> str:
    """What a worker takes. pace: None where nothing was measured."""
    state = f"{human_bytes(parameters * BYTES_PER_PARAMETER)} per worker with gradients and optimizer"
    # Two workers of `tiny` take 1.1 GB each on two cores, of which 24 MB are this state.
    rest = "besides, some 1 GB for the process and more for activations: --calibrate measures it"
    return f"{state}, {f'{human_bytes(pace.memory_bytes)} at the most, measured' if pace else rest}"


def rates(recipe: ForWorkers) -> list[tuple[str, float]]:
    """(assumption, FLOP/s of a worker) that hours are quoted at where nothing was measured, the recipe's kind first."""
    return sorted(_RATES.items(), key=lambda rate: rate[0].startswith("CPU") == recipe.train.use_gpu)


def time_text(recipe: ForWorkers, steps: int, flops: float, pace: Pace | None, *, every: int) -> str:
    """How long a run takes. flops: of all its steps; every: steps between validations, 0 for none."""
    workers = f"with {workers_text(recipe)}"
    if pace:
        seconds = steps * pace.step_s + (2 + (steps // every if every else 0)) * pace.validation_s
        each = f"{pace.step_s:.3g} s a step, {pace.validation_s:.3g} s a validation"
        return f"{duration(seconds)} {workers}: {each}, measured here"
    hours = (f"{duration(flops / rate / recipe.train.max_workers)} ({what})" for what, rate in rates(recipe))
    return f"{', '.join(hours)}, {workers}; assumed rates, --calibrate measures"


def disk_text(parameters: int, keep_checkpoints: int, storage_path: str) -> str:
    size = human_bytes(12 * parameters * (keep_checkpoints + 2))
    return f"{size} of checkpoints in {storage.absolute(storage_path)}"
