"""How long a step takes here: a few real ones, by real workers with their feed, exchange and optimizer.

For runs whose length is given in hours, and for `--plan --calibrate`. Takes some 15 s besides the steps.
"""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from glm_model.config import GLMConfig
from infra import storage
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.errors import Interrupted
from infra.tracking.mlflow_runs import NOT_TRACKED
from pipelines.store.format import TokenStore
from pipelines.token_classes import TokenClasses
from workflows.runs import run as runs
from workflows.runs.launch import room_for
from workflows.settings.budget import make_budget
from workflows.settings.recipe import Recipe
from workflows.training.job import Job
from workflows.training.loop import run_worker
from workflows.training.worker import Worker

MANY_STEPS = 10**9  # of the budget that is calibrated with: its end must not be in sight
_WARM_UP, _LEAST, _MOST = 2, 3, 50  # steps
_ENOUGH_S = 20.0


class Pace(NamedTuple):
    """Seconds of a step and of a validation (medians), and the most bytes that rank 0 held: of the GPU's memory, or of
    the machine's.
    """

    step_s: float
    validation_s: float
    memory_bytes: float

    def steps_in(self, hours: float, eval_every: int) -> int:
        """Optimizer steps in that time, with a validation at both ends and every `eval_every` steps."""
        each_s = self.step_s + (self.validation_s / eval_every if eval_every else 0.0)
        return max(1, round((hours * 3600 - 2 * self.validation_s) / each_s))


def measure_pace(
    recipe: Recipe,
    run: runs.Run,
    opened: TokenStore,
    shape: GLMConfig,
    vocabulary: TokenClasses,
    say: Callable[[str], None],
) -> Pace:
    """Take a few steps of the run on a connected Ray, and leave nothing behind. Raises what the workers raise."""
    budget = make_budget(recipe, opened, shape, vocabulary, steps=MANY_STEPS)
    name = f"calibration-{run.name}-{time.time_ns()}"
    scratch = storage.join(recipe.run.storage_path, f".{name}")
    link = Link.create(name)
    job = runs.worker_job(recipe, run, opened, budget, shape, NOT_TRACKED, link=name)
    found: list[dict[str, Any]] = []
    asked: list[str] = []
    room = room_for(recipe, say)

    def poll() -> None:
        found.extend(posts := link.poll())
        room.see(posts)
        room.check(is_stopped=bool(asked))

    def stop(reason: str) -> None:
        asked.append(reason)
        link.request_stop(reason)

    try:
        run_workers(
            time_steps,
            replace(job, run_url=None, checkpoints_url=storage.join(scratch, "checkpoints")),
            replace(recipe.train, max_failures=0),  # begun anew by whoever asked, not while they wait
            name="calibration",
            storage_path=scratch,
            poll=poll,
            stop=stop,
        )
    finally:
        found += link.poll()
        storage.remove_tree(scratch)
        if failure := link.failure():
            raise failure
    return _pace_of(found, is_stopped=bool(asked))


def _pace_of(posts: list[dict[str, Any]], *, is_stopped: bool) -> Pace:
    """What rank 0 posted. A stop counts too where the workers, validating, heard nothing of it."""
    paces = [post["pace"] for post in posts if "pace" in post]
    if is_stopped or not paces:
        raise Interrupted("stopped while a few steps were timed", try_="the same command begins with that again")
    return Pace(*paces[-1])


def time_steps(job: Job) -> None:
    """What each worker does: steps until their time is known, one validation; rank 0 posts what came of it."""
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
        w.telemetry.post({"pace": Pace(step_s, time.perf_counter() - validated_at, _memory_bytes(w.ranks.device))})
    w.close()


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
