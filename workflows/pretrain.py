"""Pretrain a GLM: prepare its token store if there is none yet, train, export, and fill a few blanks.

    python workflows/pretrain.py --config workflows/recipes/quickstart.yaml
    python workflows/pretrain.py --config workflows/recipes/wiki_mini.yaml --train.tokens 20M --plan
    ray job submit --working-dir . --runtime-env infra/deploy/runtime_env.yaml -- python workflows/pretrain.py --config
    ...

The same command continues an unfinished run from its last checkpoint.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

from glm_model.config import GLMConfig, num_parameters
from glm_model.tokenizer import Tokenizer
from infra import checkpoint, config, storage, tracking
from infra.cluster import capacity, connect
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.console import Console
from infra.errors import Interrupted, UserError, run_main
from pipelines.prepare import find_store, preparation_of
from pipelines.store.format import TokenStore
from pipelines.token_classes import TokenClasses
from workflows.runs import report
from workflows.runs import run as runs
from workflows.runs.final_model import export, fill_examples
from workflows.runs.launch import room_for
from workflows.runs.pace import Pace, measure_pace
from workflows.runs.plan import show_plan
from workflows.runs.preparation import _prepared
from workflows.runs.progress import training
from workflows.runs.report import show_examples
from workflows.runs.run import settle_model
from workflows.settings.budget import BYTES_PER_PARAMETER, Budget, check_recipe, make_budget
from workflows.settings.places import check_shared, settle_paths
from workflows.settings.recipe import Recipe, run_name
from workflows.settings.shape import model_config, told_growth
from workflows.training.health import Patience
from workflows.training.loop import train_worker

_COMMON = (
    "data.sources",
    "data.tokenizer.url",
    "model.size",
    "train.tokens",
    "train.steps",
    "train.hours",
    "train.num_workers",
    "train.use_gpu",
    "run.name",
    "run.storage_path",
    "optim.lr",
)


def main() -> None:
    recipe, flags, recipe_name = config.parse(
        Recipe,
        description="Pretrain a GLM with Ray Data, Ray Train and MLflow.",
        flags={
            "plan": "Print what the run would do and cost, and exit.",
            "calibrate": "With --plan: take a few steps on the workers, for a time that is measured.",
        },
        common=_COMMON,
    )
    settle_paths(recipe, in_job=connect.inside_job())
    name = run_name(recipe, recipe_name or "pretrain")
    check_recipe(recipe, begun=runs.has_begun(recipe, name) and not flags["plan"])
    screen = Console(recipe.console)
    if flags["calibrate"] and not flags["plan"]:
        raise UserError("--calibrate is of --plan", try_="--plan --calibrate")
    if flags["plan"]:
        _plan(recipe, name, screen, calibrate=flags["calibrate"])
        return
    storage.ensure_writable(recipe.run.storage_path)
    run = runs.open_run(recipe, name)
    if run.finished:
        runs.catch_up(run, recipe, screen)
        report.show_finished(run, screen)
        return
    with runs.held(run), _workers_fit(recipe, screen):
        opened = runs.own_store(run) or _prepared(recipe, screen)
        train(recipe, run, opened, screen)


def _plan(recipe: Recipe, name: str, screen: Console, *, calibrate: bool) -> None:
    run = runs.open_run(recipe, name)  # refused here too where its settings are another run's
    if not calibrate:
        shape = show_plan(recipe, name, screen)
        if run.finished:
            screen.line(f"the run {name} is finished")
        elif not recipe.run.fresh and (found := checkpoint.latest(run.checkpoints_url)):
            screen.line(f"the run {name} has come to step {found.step:,}, and goes on from there")
        if shape:
            _check_room(recipe, shape, screen)
        return
    if find_store(preparation_of(recipe.data, recipe.blanks)) is None:
        raise UserError("--calibrate needs the token store", try_="python workflows/prepare.py --config <recipe>")

    def pace(opened: TokenStore, shape: GLMConfig, vocabulary: TokenClasses) -> Pace:
        _check_memory(recipe, shape)
        return measure_pace(recipe, runs.Run.of(recipe, name), opened, shape, vocabulary, screen.line)

    with _workers_fit(recipe, screen):
        show_plan(recipe, name, screen, pace=pace)


def _check_room(recipe: Recipe, shape: GLMConfig, screen: Console) -> None:
    """Refuse what the Ray that is named here, or else this machine, could not hold. Starts no Ray.

    Raises InfrastructureError.
    """
    train = recipe.train
    workers = (train.min_workers, train.resources_per_worker, train.use_gpu)
    if connect.inside_job() or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        connect.connect(recipe.cluster, say=screen.line)
        capacity.check_capacity(*workers)
        _check_memory(recipe, shape)
        return
    cores = os.cpu_count() or 1
    cpus = recipe.cluster.local_cpus or max(train.max_workers + 1, cores)  # as `_workers_fit` has them started
    capacity.check_machine(*workers, cpus=cpus, bytes_per_worker=BYTES_PER_PARAMETER * num_parameters(shape))
    if train.max_workers > cores:
        screen.warn(f"{train.max_workers} workers would share {cores} cores of this machine, and its memory")


@contextlib.contextmanager
def _workers_fit(recipe: Recipe, screen: Console) -> Iterator[None]:
    """A Ray that has room for the recipe's workers, and shares with them what they need."""
    ray = connect.connect(recipe.cluster, min_cpus=recipe.train.max_workers + 1, say=screen.line)
    try:
        if ray.started_here and recipe.train.max_workers > (os.cpu_count() or 1):
            screen.warn(
                f"{recipe.train.max_workers} workers share {os.cpu_count()} cores of this machine, and its memory"
            )
        workers = (recipe.train.min_workers, recipe.train.resources_per_worker, recipe.train.use_gpu)
        capacity.wait_for_capacity(*workers, wait_s=recipe.cluster.wait_s, say=screen.line)
        if capacity.several_nodes(*workers[1:]):
            check_shared(recipe)
        yield
    finally:
        connect.shutdown(ray)


def train(recipe: Recipe, run: runs.Run, opened: TokenStore, screen: Console) -> None:
    """Train on a finished store, export the model, show what it learned."""
    tokenizer = Tokenizer.load(opened.url)
    shape = settle_model(run, recipe, lambda: model_config(recipe, opened, tokenizer))
    _check_memory(recipe, shape)
    budget = _settled(recipe, run, opened, shape, TokenClasses.of(tokenizer), screen)
    handle = runs.start(recipe, run, opened, budget)
    report.show_header(recipe, run, opened, budget, handle, screen)
    if recipe.run.fresh:
        screen.line("begun anew; the same command without --run.fresh continues it")
    if recipe.model.init_from and checkpoint.latest(run.checkpoints_url) is None:
        screen.line(f"weights from {told_growth(recipe.model.init_from, shape)}")
    show_examples(recipe, run, opened, tokenizer, handle)
    try:
        _run_workers(recipe, run, opened, budget, shape, handle, screen)
        validated = export(run, opened, tokenizer, shape, handle)
    except BaseException as error:
        tracking.finish(handle, "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED")
        raise
    runs.finish(run, handle, validated, screen)
    fill_examples(run.model_url, opened, screen)
    report.show_next(run, handle, screen)


def _check_memory(recipe: Recipe, shape: GLMConfig) -> None:
    if not recipe.train.use_gpu:
        capacity.check_memory(recipe.train.min_workers, BYTES_PER_PARAMETER * num_parameters(shape))


def _settled(
    recipe: Recipe, run: runs.Run, opened: TokenStore, shape: GLMConfig, vocabulary: TokenClasses, screen: Console
) -> Budget:
    """The run's budget; of a new run that is given in hours, after timing a few steps."""
    steps = run.record.get("steps")
    if recipe.train.hours is None or steps is not None:
        return make_budget(recipe, opened, shape, vocabulary, steps=steps)
    screen.line(f"timing a few steps, to see how many {recipe.train.hours:g} hours are")
    pace = measure_pace(recipe, run, opened, shape, vocabulary, screen.line)
    steps = pace.steps_in(recipe.train.hours, recipe.train.eval_every)
    screen.line(f"{steps:,} steps of {pace.step_s:.3g} s")
    return make_budget(recipe, opened, shape, vocabulary, steps=steps)


def _run_workers(
    recipe: Recipe,
    run: runs.Run,
    opened: TokenStore,
    budget: Budget,
    shape: GLMConfig,
    handle: tracking.RunHandle,
    screen: Console,
) -> None:
    """Run the train workers to the last step. Raises Interrupted when they were stopped early."""
    link_name = f"glm-{run.name}-{run.attempt_name()}"
    link = Link.create(link_name)
    job = runs.worker_job(recipe, run, opened, budget, shape, handle, link=link_name)
    found = checkpoint.latest(run.checkpoints_url)

    stopped = threading.Event()

    def stop(reason: str) -> None:
        stopped.set()
        screen.line(f"{reason}: stopping after this step and writing a checkpoint (Ctrl-C again: at once, without one)")
        link.request_stop(reason)

    def poll() -> None:
        posts = link.poll()
        room.see(posts)
        view.show(posts)
        room.check(is_stopped=stopped.is_set())

    room = room_for(recipe, screen.line)
    with training(screen, budget, start=found.step if found else 0) as view:
        try:
            run_workers(
                train_worker,
                job,
                recipe.train,
                name=run.attempt_name(),
                storage_path=storage.join(run.url, "ray"),
                poll=poll,
                stop=stop,
                on_failure=lambda text: link.post({"failed": text}),
            )
        finally:
            view.show(link.poll())
            if failure := link.failure():
                raise failure
    reached = checkpoint.latest(run.checkpoints_url)
    if reached is None or not _is_over(reached, budget, recipe):
        raise Interrupted(
            f"stopped at step {reached.step:,} of {budget.steps:,}; checkpoint written"
            if reached
            else "stopped before the first checkpoint",
            try_="the same command continues from there",
        )
    if reached.step < budget.steps:
        waited = recipe.train.patience
        screen.line(f"ended at step {reached.step:,} of {budget.steps:,}: no better for {waited} validations")


def _is_over(reached: checkpoint.Checkpoint, budget: Budget, recipe: Recipe) -> bool:
    if reached.step >= budget.steps:
        return True
    return Patience.of(checkpoint.read_state(reached.url), recipe.train.patience).is_over


if __name__ == "__main__":
    run_main(main)
