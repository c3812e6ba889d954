"""Run a train function on workers with Ray Train, while the driver shows progress and handles signals.

Ray Train starts the processes, sets up the process group and restarts it after a failure; data order, checkpoints and
metrics are ours (docs/decisions/checkpoints.md), so it needs neither datasets nor reports. `fit` runs in a thread:
otherwise Ray Train would handle SIGINT itself, and abort without a checkpoint.
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
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Lt

from infra.errors import InfrastructureError, Interrupted, UserError, root_cause

T = TypeVar("T")

_POLL_S = 0.25
_SENT_TWICE_S = 0.3  # `timeout -s INT` sends a signal to its command, and at once again to the group of that
_REPEATED_S = 5.0  # Ray reports the workers of a leaving node at every check, until all of them have ended


@dataclass
class WorkersConfig:
    num_workers: int | tuple[int, int] = 1
    """Train workers (processes). [min, max]: as many as the cluster has room for; when that changes, training restarts
    from the last checkpoint with more or fewer.
    """
    use_gpu: bool = False
    """Give each worker one GPU."""
    resources_per_worker: dict[str, float] | None = None
    """For example {CPU: 4}; fractions are allowed. Default: 1 CPU, or with use_gpu 1 GPU and no CPU."""
    max_failures: Annotated[int, Ge(-1)] = 3
    """Restarts of the worker group, from the last checkpoint, before the run fails; -1: no limit. (Nodes that announce
    that they leave do not count.)
    """
    hang_s: Annotated[float, Ge(0), Lt(math.inf)] = 900.0
    """Seconds without a finished micro-batch after which a worker counts as hung and is restarted. Reading a checkpoint
    at the start and compiling the first step must take less. 0: restart processes that do not answer Ray for 10
    minutes, and no others.
    """
    resize_every_s: Annotated[float, Gt(0), Lt(math.inf)] = 60.0
    """Seconds between checks whether there is room for more workers, if num_workers is [min, max]."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            given = self.num_workers if isinstance(self.num_workers, int) else list(self.num_workers)
            raise ValueError(
                f"train.num_workers must be a number of at least 1, or [min, max] such as [1, 4], got {given}"
            )

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
    on_failure: Callable[[str], None] | None = None,
) -> None:
    """Run function(job) on every worker until all have returned. Ray must be connected.

    name, storage_path: where Ray Train keeps its own state. poll: called several times a second in the main thread.
    stop: called once at SIGINT or SIGTERM with the signal's name; the workers are expected to write a checkpoint and
    return, and a second SIGINT ends the wait for that. on_failure: called when workers fail, in a process of Ray's,
    with what ended them.

    Raises what the workers raised, and InfrastructureError if their processes ended without an error.
    """
    trainer = _trainer(functools.partial(function, job), config, name, storage_path, on_failure)
    outcome = _Outcome()
    thread = threading.Thread(target=outcome.run, args=(trainer.fit,), name="glm-fit", daemon=True)
    with stop_signals(stop):
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            poll()
    if outcome.error is not None:
        raise describe_failure(outcome.error, config.max_failures)


def preemption_notice() -> str | None:
    """A sentence that says which of the workers' nodes are about to be taken away, or None. All workers must call it
    equally often: they wait for each other, some milliseconds.
    """
    import ray.train

    info = ray.train.get_preemption_info()
    if info is None:
        return None
    nodes = ", ".join(node[:8] for node in info.preempted_node_ids)
    until = f" at {time.strftime('%H:%M:%S', time.localtime(info.deadline_ms / 1000))}" if info.deadline_ms else ""
    return f"the node {nodes} with {len(info.preempted_ranks)} worker(s) is about to leave the cluster{until}"


def describe_failure(error: BaseException, max_failures: int) -> BaseException:
    """An InfrastructureError if processes died, the workers or those of Ray Train, with the reason that Ray gives; any
    other error as it is.
    """
    if isinstance(root_cause(error), UserError):
        return error
    failures = getattr(error, "worker_failures", {})
    dead = [(rank, one) for rank, one in sorted(failures.items()) if type(one).__name__.startswith("WorkerHealthCheck")]
    if dead:
        used = f", and {max_failures} restarts are used up" if max_failures > 0 else ""
        what, why = f"worker {dead[0][0]} ended without an error of its own{used}", dead[0][1]
    elif (why := _death_of_ray(error)) is not None:
        what = "a process of Ray Train ended, which restarts no worker after that"
    else:
        return error
    failure = InfrastructureError(
        what,
        why=_reason(why),
        try_="reduce --train.micro_rows or --train.num_workers if it ran out of memory; the same command continues "
        "from the last checkpoint",
    )
    failure.__cause__ = error
    return failure


def _death_of_ray(error: BaseException) -> Exception | None:
    """The end of one of Ray's actors, if that is what ended the training: since 2.56 Ray kills several processes at
    once when memory is short, and the controller of the workers may be among them.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError

    inner = getattr(error, "controller_failure", error)
    cause = root_cause(inner)
    return next((one for one in (cause, inner) if isinstance(one, RayActorError | OutOfMemoryError)), None)


def _trainer(
    function: Callable[[], None],
    config: WorkersConfig,
    name: str,
    storage_path: str,
    on_failure: Callable[[str], None] | None,
) -> Any:
    """Ray's TorchTrainer of these workers. The function takes no arguments: Ray's `train_loop_config` would have to be
    a dict of plain values.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # 2 s by default: adds seconds to start and end
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    if config.hang_s > 0:  # a process that does not even answer; our watchdog ends one that answers and does no work
        os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(config.hang_s))
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        function,
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
            callbacks=[_failure_callback(on_failure)] if on_failure else None,
        ),
    )


def _failure_callback(on_failure: Callable[[str], None]) -> Any:
    from ray.train import UserCallback

    reported_at: dict[str, float] = {}

    class Failures(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for rank, error in sorted(worker_exceptions.items()):
                text = failure_text(rank, error)
                before, reported_at[text] = reported_at.get(text, -math.inf), time.monotonic()
                if reported_at[text] - before > _REPEATED_S:
                    on_failure(text)

    return Failures()


def failure_text(rank: int, error: Exception) -> str:
    """What a user is told when a worker fails and the group begins again, in a line."""
    return f"worker {rank} failed: {_reason(error)}"


def _reason(error: Exception) -> str:
    """What ended a worker, in a line: our own error's message; of what Ray says, the last line, as in a traceback, that
    is not advice with a link.
    """
    cause = root_cause(error)
    if isinstance(cause, UserError):
        return textwrap.shorten(cause.message, 300, placeholder=" ...")
    text = str(error)
    if "low on memory" in text or "memory usage threshold" in text:
        return "the machine ran short of memory, and Ray ended the process to keep it alive"
    lines = [line.strip() for line in text.splitlines() if line.strip() and "https://" not in line]
    return textwrap.shorten(f"{type(error).__name__}: {lines[-1] if lines else ''}", 300, placeholder=" ...")


@dataclass
class _Outcome:
    """How a function ended in its thread: error is None if it returned."""

    error: BaseException | None = None

    def run(self, fit: Callable[[], Any]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error


@contextmanager
def stop_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` in a thread at the first SIGINT or SIGTERM, with its name; raise Interrupted at a second SIGINT, if
    it comes later than any that is sent twice.
    """
    received_at: list[float] = []

    def handle(number: int, frame: Any) -> None:
        if received_at and number == signal.SIGINT and time.monotonic() - received_at[0] > _SENT_TWICE_S:
            raise Interrupted("interrupted twice: stopped without waiting for a checkpoint")
        if not received_at:
            received_at.append(time.monotonic())
            # In a thread: a signal handler that talks to Ray could interrupt Ray's own call in this thread.
            threading.Thread(target=stop, args=(signal.Signals(number).name,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
