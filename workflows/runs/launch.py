"""Start the workers of a run, wait for room for them, show what they post, and stop them."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from glm_model.config import GLMConfig, num_parameters
from infra import checkpoint, storage
from infra.cluster import capacity, connect
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.console import Console
from infra.errors import InfrastructureError, Interrupted
from infra.tracking import RunHandle
from pipelines.feed.stored_blanks import blanks_key
from workflows.runs.progress import training
from workflows.runs.report import workers_text
from workflows.runs.run import Run
from workflows.runs.setup import Setup
from workflows.runs.shared_places import check_shared
from workflows.settings.budget import BYTES_PER_PARAMETER
from workflows.settings.recipe import Recipe
from workflows.training.health import Patience
from workflows.training.job import Job
from workflows.training.loop import train_worker
from workflows.training.messages import Failed, Message, Placed
from workflows.training.pretraining import Pretraining

Messages = list[Message]
_WARN_AFTER_S = 90.0  # on a busy machine processes take most of a minute to start


# -- room for workers --------------------------------------------------------------------------------------------------


def check_room(recipe: Recipe, shape: GLMConfig, screen: Console) -> None:
    """Refuse what the Ray that is named here, or else this machine, could not hold. Starts no Ray.

    Raises InfrastructureError.
    """
    train = recipe.train
    workers = (train.min_workers, train.resources_per_worker, train.use_gpu)
    if connect.inside_job() or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        connect.connect(recipe.cluster, say=screen.line)
        capacity.check_capacity(*workers)
        check_memory(recipe, shape)
        return
    cores = os.cpu_count() or 1
    cpus = recipe.cluster.local_cpus or max(train.max_workers + 1, cores)  # as `ray_for_workers` has them started
    capacity.check_machine(*workers, cpus=cpus, bytes_per_worker=BYTES_PER_PARAMETER * num_parameters(shape))
    if train.max_workers > cores:
        screen.warn(f"{train.max_workers} workers would share {cores} cores of this machine, and its memory")


def check_memory(recipe: Recipe, shape: GLMConfig) -> None:
    """Raises InfrastructureError where the connected Ray has less memory than the workers' models need."""
    if not recipe.train.use_gpu:
        capacity.check_memory(recipe.train.min_workers, BYTES_PER_PARAMETER * num_parameters(shape))


@contextlib.contextmanager
def ray_for_workers(recipe: Recipe, screen: Console) -> Iterator[None]:
    """A Ray that has room for the recipe's workers, and shares with them what they need."""
    train, cores = recipe.train, os.cpu_count() or 1
    ray = connect.connect(recipe.cluster, min_cpus=train.max_workers + 1, say=screen.line)
    try:
        if ray.started_here and train.max_workers > cores:
            screen.warn(f"{train.max_workers} workers share {cores} cores of this machine, and its memory")
        workers = (train.min_workers, train.resources_per_worker, train.use_gpu)
        capacity.wait_for_capacity(*workers, wait_s=recipe.cluster.wait_s, say=screen.line)
        if capacity.several_nodes(*workers[1:]):
            check_shared(recipe)
        yield
    finally:
        connect.shutdown(ray)


class WorkerWait:
    """How long a group of workers has been waited for, and when that is given up: Ray Train waits for ever, and says
    nothing. Workers post `Placed` as they begin, and `Failed` is posted when they end.

    clock: seconds.
    """

    def __init__(self, recipe: Recipe, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic):
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
                f"no free resources for {workers_text(self._recipe)} workers after waiting {wait_s:g} s{before}",
                why="a node is gone or busy",
                try_="run the same command once there is room: it continues from the last checkpoint; or go on with "
                f"fewer: --train.num_workers='[1, {self._recipe.train.max_workers}]'",
            )
        if waited_s > _WARN_AFTER_S and not self._has_warned:
            self._has_warned = True
            self._say(
                f"no worker has begun for {waited_s:.0f} s: perhaps others use the cluster; waiting up to {wait_s:g} s"
            )


# -- workers -----------------------------------------------------------------------------------------------------------


def launch(
    setup: Setup, run: Run, handle: RunHandle, *, on_messages: Callable[[Messages], None] = lambda messages: None
) -> None:
    """Run the train workers from the last checkpoint, or the start, to the last step. Needs a connected Ray.

    on_messages: also gets what the workers post. Raises Interrupted when they were stopped early, and what they raise.
    """
    screen, budget = setup.screen, setup.budget
    name = run.attempt_name()
    before = checkpoint.latest(run.checkpoints_url)

    def warn_of_stop(reason: str) -> None:
        screen.line(f"{reason}: stopping after this step and writing a checkpoint (Ctrl-C again: at once, without one)")

    with training(screen, budget, start=before.step if before else 0) as view:

        def show(messages: Messages) -> None:
            view.show(messages)
            on_messages(messages)

        run_group(
            train_worker,
            job_of(setup, run, handle, link=f"glm-{run.name}-{name}"),
            WorkerWait(setup.recipe, screen.line),
            name=name,
            storage_path=storage.join(run.url, "ray"),
            on_messages=show,
            on_stop=warn_of_stop,
        )
    reached = checkpoint.latest(run.checkpoints_url)
    if reached is None or not is_over(reached, budget.steps, setup.recipe.train.patience):
        raise Interrupted(
            f"stopped at step {reached.step:,} of {budget.steps:,}; checkpoint written"
            if reached
            else "stopped before the first checkpoint",
            try_="run the same command: it continues from there",
        )
    if reached.step < budget.steps:
        waited = setup.recipe.train.patience
        screen.line(f"ended at step {reached.step:,} of {budget.steps:,}: no better for {waited} validations")


def is_over(reached: checkpoint.Checkpoint, steps: int, patience: int | None) -> bool:
    """Whether a run that has come to this checkpoint is at its end: its last step, or that of its patience."""
    return reached.step >= steps or Patience.of(checkpoint.read_state(reached.url), patience).is_over


def job_of(setup: Setup, run: Run, handle: RunHandle, *, link: str | None) -> Job:
    """All that a worker of this run needs. link: as `Job` has it."""
    recipe, store, feed, steps = setup.recipe, setup.store, setup.feed, setup.budget.steps
    key = blanks_key(feed.mixture, seed=feed.seed, width=feed.width)
    return Job(
        Pretraining(recipe, setup.budget, setup.shape, store.url, key, run.url),
        steps,
        run.checkpoints_url,
        run.url,
        train=recipe.train,
        optim=recipe.optim,
        tracking=handle,
        link=link,
        record={
            "identity": run.record.identity,
            "store_digest": store.digest,
            "mlflow_run_id": handle.run_id,
        },
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
