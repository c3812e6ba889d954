"""A fine-tuning from its setup to the exported model: train, choose the weights, write them with their task."""

from __future__ import annotations

from infra import checkpoint, commands, config, storage, tracking
from infra.errors import Interrupted
from infra.tracking.mlflow_client import without_password
from workflows.finetuning import tracked
from workflows.finetuning.final_model import chosen, export, task_record, weights_text
from workflows.finetuning.setup import FinetuneSetup, describe_finetune
from workflows.runs.launch import is_over
from workflows.runs.progress import training
from workflows.runs.run import Run, bring_up_to_date, check_init_from, clear, close
from workflows.runs.workers import WorkerWait, run_group, workers_text
from workflows.settings.taught import write_taught
from workflows.training.finetuning import Finetuning
from workflows.training.job import Job
from workflows.training.loop import train_worker


def finetune(setup: FinetuneSetup, run: Run) -> Run:
    """Train, export the model with its task, and record what came of it; returns the finished run. Needs a connected
    Ray. Raises Interrupted when the run was stopped, and what its workers raise.
    """
    screen = setup.screen
    run, handle = _start(setup, check_init_from(run, setup.init_url))
    rows = [*describe_finetune(setup), ("run", run.url)]
    rows += [("mlflow", without_password(handle.uri))] if handle.enabled else []
    screen.header(f"glm finetune · {setup.task.name} · {workers_text(setup.recipe)} · run {run.name}", rows)
    try:
        _launch(setup, run, handle)
        export(setup, run)
        tracked.record_model(setup, run, handle)
    except BaseException as error:
        tracked.close_broken_entry(setup, run, handle, error)
        raise
    run = close(run, handle, screen, lambda run, handle: tracked.close_entry(setup, run, handle))
    screen.line(f"weights: {weights_text(setup, checkpoint.read_state(chosen(setup, run).url))}")
    return run


def catch_up(setup: FinetuneSetup, run: Run) -> None:
    """Give MLflow what it lacks of a finished run because it was away at the end; says so when it still is."""
    if setup.recipe.tracking.enabled:
        bring_up_to_date(
            run,
            setup.screen,
            lambda run, handle: tracked.record_model(setup, run, handle),
            lambda run, handle: tracked.close_entry(setup, run, handle),
        )


def job_of(setup: FinetuneSetup, run: Run, handle: tracking.RunHandle, *, link: str | None) -> Job:
    """All that a worker of this run needs. link: as `Job` has it."""
    recipe, writes = setup.recipe, setup.task.kind in ("write", "generate")
    kind = Finetuning(
        model=setup.shape,
        init_from=setup.init_url,
        is_random=recipe.model.random,
        train=setup.selection.train,
        held_out=setup.selection.held_out,
        plan=setup.plan,
        loss="written" if writes and recipe.train.loss == "choice" else recipe.train.loss,
        metrics=setup.metrics,
        classes=len(setup.task.labels),
        has_head=recipe.task.head,
        writes=writes,
    )
    return Job(
        kind,
        setup.steps,
        run.checkpoints_url,
        run.url,
        train=recipe.train.training(setup.steps_of_epoch),
        optim=recipe.optim,
        tracking=handle,
        link=link,
        record={"identity": run.record.identity, "task_digest": setup.task.digest, "mlflow_run_id": handle.run_id},
    )


def _start(setup: FinetuneSetup, run: Run) -> tuple[Run, tracking.RunHandle]:
    """Write the run's record, recipe and task, and open the tracking run (the same one when continuing)."""
    recipe = setup.recipe
    clear(run, fresh=recipe.run.fresh)
    run = run.with_record(url=run.url, model=setup.shape, steps=setup.steps)
    run.write()
    storage.write_bytes(storage.join(run.url, "config.yaml"), config.to_yaml(recipe).encode())
    # Before there is a model: it is one once its config.json is written, and checkpoints are asked this task too.
    write_taught(task_record(setup), run.model_url)
    handle = tracked.open_entry(setup, run)
    if handle.enabled and run.record.tracking != handle:
        run = run.with_record(mlflow_run_id=handle.run_id, tracking_uri=handle.uri, experiment_id=handle.experiment_id)
        run.write()
    return run, handle


def _launch(setup: FinetuneSetup, run: Run, handle: tracking.RunHandle) -> None:
    recipe, name = setup.recipe, run.attempt_name()
    job = job_of(setup, run, handle, link=f"glm-{run.name}-{name}")
    before = checkpoint.latest(run.checkpoints_url)
    with training(setup.screen, setup.steps, start=before.step if before else 0) as view:
        run_group(
            train_worker,
            job,
            WorkerWait(recipe, setup.screen.line),
            name=name,
            storage_path=storage.join(run.url, "ray"),
            on_messages=view.show,
            on_stop=lambda reason: setup.screen.line(f"{reason}: stopping after this step and writing a checkpoint"),
        )
    reached = checkpoint.latest(run.checkpoints_url)
    if reached is None or not is_over(reached, setup.steps, recipe.train.patience):
        where = f"at step {reached.step:,} of {setup.steps:,}; checkpoint written" if reached else "before a checkpoint"
        command = commands.same_command(is_fresh=recipe.run.fresh)
        raise Interrupted(f"stopped {where}", try_=f"run {command}: it continues from there")
