"""Run a train function on workers with Ray Train, while the driver shows progress and answers signals.

Ray Train starts the processes, sets up the process group and restarts it after a failure; data order, checkpoints and
metrics are ours (docs/decisions/checkpoints.md), so it needs neither datasets nor reports. `fit` runs in a thread: Ray
Train would otherwise take SIGINT for itself and abort without a checkpoint.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from infra.errors import Interrupted

_POLL_S = 0.25


@dataclass
class WorkersConfig:
    num_workers: int = 1
    """Train workers (processes); one GPU each with use_gpu."""
    use_gpu: bool = False
    resources_per_worker: dict[str, float] | None = None
    """For example {CPU: 4}; fractions are allowed. Default: 1 CPU, or 1 GPU and 1 CPU."""
    max_failures: int = 3
    """Restarts of the worker group, from the last checkpoint, before the run fails."""


def run_workers(
    function: Callable[[dict[str, Any]], None],
    job: dict[str, Any],
    config: WorkersConfig,
    *,
    name: str,
    storage_path: str,
    poll: Callable[[], None],
    stop: Callable[[str], None],
) -> None:
    """Run function(job) on every worker until all return; needs a connected Ray.

    poll() is called several times a second in the main thread; stop(reason) once at SIGINT or SIGTERM, and the workers
    are expected to write a checkpoint and return. A second SIGINT gives up waiting. Raises what the workers raised.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # 2 s by default: adds seconds to start and end
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        function,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu, resources_per_worker=config.resources_per_worker
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=config.max_failures),
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
        raise outcome.error


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
