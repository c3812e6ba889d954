"""Run a train function on workers with Ray Train, while the driver shows progress and answers signals.

Ray Train starts the processes, sets up the process group and restarts it after a failure; data order, checkpoints and
metrics are ours (docs/decisions/checkpoints.md), so it needs neither datasets nor reports. `fit` runs in a thread: Ray
Train would otherwise take SIGINT for itself and abort without a checkpoint.
"""

import functools
import math
import os
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from infra.errors import InfrastructureError, Interrupted, UserError, root_cause

T = TypeVar("T")

_POLL_S = 0.25
_REPEATED_S = 5.0  # Ray reports workers of a node that is leaving again at each look, until all of them have ended


@dataclass
class WorkersConfig:
    num_workers: int | tuple[int, int] = 1
    """Train workers (processes); one GPU each with use_gpu. [min, max]: as many of them as the cluster has room for,
    begun anew from the last checkpoint with more or fewer when that changes.
    """
    use_gpu: bool = False
    resources_per_worker: dict[str, float] | None = None
    """For example {CPU: 4}; fractions are allowed. Default: 1 CPU, or with use_gpu 1 GPU and no CPU."""
    max_failures: int = 3
    """Restarts of the worker group, from the last checkpoint, before the run fails. (Nodes that are announced to leave
    do not count.)
    """
    hang_s: float = 900.0
    """Seconds without a finished micro-batch after which a worker counts as hung and is ended, to be restarted; the
    start, with its reading of a checkpoint, and a first step that compiles must fit in too. 0: only processes that do
    not even answer Ray, after 10 minutes.
    """
    resize_every_s: float = 60.0
    """Seconds between looks for room for more workers, where their number is [min, max]."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            shown = self.num_workers if isinstance(self.num_workers, int) else list(self.num_workers)
            raise ValueError(f"num_workers={shown} is neither a number from 1 on nor [min, max]: 2, or [1, 4]")

    @property
    def min_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


def run_workers(
    function: Callable[[T], None],
    job: T,
    config: WorkersConfig,
    *,
    name: str,
    storage_path: str,
    poll: Callable[[], None],
    stop: Callable[[str], None],
    tell: Callable[[str], None] | None = None,
) -> None:
    """Run function(job) on every worker until all return; needs a connected Ray.

    poll() is called several times a second in the main thread; stop(reason) once at SIGINT or SIGTERM, and the workers
    are expected to write a checkpoint and return. A second SIGINT gives up waiting. tell(text) is called in a process
    of Ray's when workers failed, with what ended them. Raises what the workers raised, and InfrastructureError where
    they did not come to that because their processes ended.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # 2 s by default: adds seconds to start and end
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    if config.hang_s > 0:  # a process that does not even answer; our watchdog ends one that answers and does no work
        os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(config.hang_s))
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        functools.partial(function, job),  # its own `train_loop_config` is a dict of plain values
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.use_gpu,
            resources_per_worker=config.resources_per_worker,
            elastic_resize_monitor_interval_s=config.resize_every_s,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=[_tells_failures(tell)] if tell else None,
        ),
    )
    outcome = _Outcome()
    thread = threading.Thread(target=outcome.run, args=(trainer.fit,), name="glm-fit", daemon=True)
    with _signals(stop):
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            poll()
    if outcome.error is not None:
        raise explained(outcome.error, config.max_failures)


def preemption_notice() -> str | None:
    """That a node of the workers is about to be taken away, in words; None: none is. All workers call it, equally
    often: they wait for each other, some milliseconds.
    """
    import ray.train

    info = ray.train.get_preemption_info()
    if info is None:
        return None
    nodes = ", ".join(node[:8] for node in info.preempted_node_ids)
    until = f" at {time.strftime('%H:%M:%S', time.localtime(info.deadline_ms / 1000))}" if info.deadline_ms else ""
    return f"the node {nodes} with {len(info.preempted_ranks)} worker(s) is about to leave the cluster{until}"


def explained(error: BaseException, max_failures: int) -> BaseException:
    """What ended a training, in the user's words where worker processes died; any other error as it is."""
    failures = getattr(error, "worker_failures", {})
    dead = [(rank, one) for rank, one in sorted(failures.items()) if type(one).__name__.startswith("WorkerHealthCheck")]
    if not dead or isinstance(root_cause(error), UserError):
        return error
    rank, first = dead[0]
    used = f", and {max_failures} restarts are used up" if max_failures > 0 else ""
    told = InfrastructureError(
        f"worker {rank} ended without an error of its own{used}",
        why=_reason(first),
        try_="if it was memory, a smaller --train.micro_rows or --train.num_workers; the same command continues from "
        "the last checkpoint",
    )
    told.__cause__ = error
    return told


def _tells_failures(tell: Callable[[str], None]) -> Any:
    from ray.train import UserCallback

    seen_at: dict[str, float] = {}

    class Failures(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for rank, error in sorted(worker_exceptions.items()):
                text = f"worker {rank} failed: {_reason(error)}"
                before, seen_at[text] = seen_at.get(text, -math.inf), time.monotonic()
                if seen_at[text] - before > _REPEATED_S:
                    tell(text)

    return Failures()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(f"{type(error).__name__}: {lines[-1] if lines else ''}", 300, placeholder=" ...")


@dataclass
class _Outcome:
    error: BaseException | None = field(default=None)

    def run(self, fit: Callable[[], Any]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error


@contextmanager
def _signals(stop: Callable[[str], None]) -> Iterator[None]:
    """SIGINT and SIGTERM ask the workers to stop; a second SIGINT raises Interrupted at once."""
    asked = []

    def handle(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise Interrupted("interrupted twice: stopped without waiting for a checkpoint")
        if not asked:
            asked.append(number)
            # Not here: a signal handler that talks to Ray could interrupt Ray's own call in this thread.
            threading.Thread(target=stop, args=(signal.Signals(number).name,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
