"""Workers of a run, whatever it trains: room for them, how long they are waited for, and how they are run."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from glm_model.config import GLMConfig, num_parameters
from infra.cluster import capacity, connect
from infra.cluster.connect import ClusterConfig
from infra.cluster.link import Link
from infra.cluster.train_workers import WorkersConfig, run_workers
from infra.console import Console
from infra.errors import InfrastructureError, Interrupted
from workflows.settings.budget import BYTES_PER_PARAMETER
from workflows.training.job import Job
from workflows.training.messages import Failed, Message, Placed

Messages = list[Message]
_WARN_AFTER_S = 90.0  # on a busy machine processes take most of a minute to start


class ForWorkers(Protocol):
    """The part of a recipe that says how many workers there are, and where."""

    @property
    def train(self) -> WorkersConfig: ...

    @property
    def cluster(self) -> ClusterConfig: ...


def workers_text(recipe: ForWorkers, kind: str = "") -> str:
    """How many workers the recipe asks for, in words: 1 worker, 2 to 4 workers. kind: a word before the noun."""
    least, most = recipe.train.min_workers, recipe.train.max_workers
    count = str(most) if least == most else f"{least} to {most}"
    return " ".join(filter(None, (count, kind, "worker" if most == 1 else "workers")))


def check_room(recipe: ForWorkers, shape: GLMConfig, screen: Console) -> None:
    """Refuse what the Ray that is named here, or else this machine, could not hold. Starts no Ray. Where this machine
    lacks the GPUs, that is only said: a plan is often made elsewhere than it is carried out.

    Raises InfrastructureError.
    """
    train = recipe.train
    workers = (train.min_workers, train.resources_per_worker, train.use_gpu)
    if connect.inside_job() or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        connect.connect(recipe.cluster, say=screen.line)
        capacity.check_capacity(*workers)
        check_memory(recipe, shape)
        return
    if lack := capacity.lacking_gpus(*workers):
        screen.line(f"note: {lack}; start it where they are, or plan on that Ray: RAY_ADDRESS=<its address>")
        return
    cores = os.cpu_count() or 1
    cpus = recipe.cluster.local_cpus or max(train.max_workers + 1, cores)  # as `ray_for_workers` has them started
    capacity.check_machine(*workers, cpus=cpus, bytes_per_worker=BYTES_PER_PARAMETER * num_parameters(shape))
    if train.max_workers > cores:
        screen.warn(f"{train.max_workers} workers would share {cores} cores of this machine, and its memory")


def check_memory(recipe: ForWorkers, shape: GLMConfig) -> None:
    """Raises InfrastructureError where the connected Ray has less memory than the workers' models need."""
    if not recipe.train.use_gpu:
        capacity.check_memory(recipe.train.min_workers, BYTES_PER_PARAMETER * num_parameters(shape))


@contextlib.contextmanager
def ray_for_workers(
    recipe: ForWorkers, screen: Console, *, check_shared: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """A Ray that has room for the recipe's workers. check_shared: raises where a node lacks what workers need."""
    train, cores = recipe.train, os.cpu_count() or 1
    ray = connect.connect(recipe.cluster, min_cpus=train.max_workers + 1, say=screen.line)
    try:
        if ray.started_here and train.max_workers > cores:
            screen.warn(f"{train.max_workers} workers share {cores} cores of this machine, and its memory")
        workers = (train.min_workers, train.resources_per_worker, train.use_gpu)
        capacity.wait_for_capacity(*workers, wait_s=recipe.cluster.wait_s, say=screen.line)
        if capacity.several_nodes(*workers[1:]):
            check_shared()
        yield
    finally:
        connect.shutdown(ray)


class WorkerWait:
    """How long a group of workers has been waited for, and when that is given up: Ray Train waits for ever, and says
    nothing. Workers post `Placed` as they begin, and `Failed` is posted when they end.

    clock: seconds.
    """

    def __init__(self, recipe: ForWorkers, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic):
        self._recipe, self._say, self._clock = recipe, say, clock
        self._since: float | None = clock()
        self._has_failed = self._has_warned = False

    def see(self, messages: Messages) -> None:
        for message in messages:
            match message:
                case Placed():
                    self._since, self._has_warned = None, False
                case Failed():
                    self._since, self._has_failed = self._since or self._clock(), True

    def check(self, *, is_stopped: bool) -> None:
        """Raises Interrupted when a stop is asked for while a group is waited for, as nobody hears it then, and
        InfrastructureError after the longest wait.
        """
        if self._since is None:
            return
        if is_stopped:
            when = "between a failure and the next beginning" if self._has_failed else "before workers began"
            raise Interrupted(f"stopped {when}", try_="run the same command: it continues from the last checkpoint")
        waited_s, wait_s = self._clock() - self._since, self._recipe.cluster.wait_s
        if waited_s > wait_s:
            before = " (workers had failed before)" if self._has_failed else ""
            raise InfrastructureError(
                f"no free resources for {workers_text(self._recipe)} after waiting {wait_s:g} s{before}",
                why="a node is gone or busy",
                try_="run the same command once there is room: it continues from the last checkpoint; or go on with "
                f"fewer: --train.num_workers='[1, {self._recipe.train.max_workers}]'",
            )
        if waited_s > _WARN_AFTER_S and not self._has_warned:
            self._has_warned = True
            self._say(
                f"no worker has begun for {waited_s:.0f} s: perhaps others use the cluster; waiting up to {wait_s:g} s"
            )


def run_group(
    function: Callable[[Job], None],
    job: Job,
    wait: WorkerWait,
    *,
    name: str,
    storage_path: str,
    on_messages: Callable[[Messages], None],
    on_stop: Callable[[str], None] = lambda reason: None,
) -> bool:
    """Run function(job) on a group of workers until all have returned. Returns whether they were asked to stop.

    job: its link is made here; wait: gives up where workers find no room; name, storage_path: of the group, for Ray
    Train; on_messages: gets what workers post, in order; on_stop: gets the signal that stops them. Raises what they
    raise, and Interrupted as `WorkerWait.check`.
    """
    assert job.link is not None, "workers under Ray Train have a driver"
    link, stopped = Link.create(job.link), threading.Event()

    def poll() -> None:
        messages = link.poll()
        wait.see(messages)
        on_messages(messages)
        wait.check(is_stopped=stopped.is_set())

    def stop(reason: str) -> None:
        stopped.set()
        on_stop(reason)
        link.request_stop(reason)

    try:
        run_workers(
            function,
            job,
            job.train,
            name=name,
            storage_path=storage_path,
            poll=poll,
            stop=stop,
            on_failure=lambda text: link.post(Failed(text)),
        )
    finally:
        on_messages(link.poll())
        if failure := link.failure():
            raise failure
    return stopped.is_set()
