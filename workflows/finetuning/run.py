"""A fine-tuning from its setup to the exported model: train, choose the weights, write them with their task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra import checkpoint, config, storage, tracking
from infra.errors import Interrupted
from workflows.finetuning.setup import FinetuneSetup, describe_finetune
from workflows.runs.launch import is_over
from workflows.runs.mlflow_views import FINETUNING, offer_view
from workflows.runs.progress import training
from workflows.runs.run import Run, check_init_from
from workflows.runs.workers import WorkerWait, run_group, workers_text
from workflows.settings.taught import write_taught
from workflows.training.finetuning import Finetuning
from workflows.training.job import Job
from workflows.training.loop import train_worker


def finetune(setup: FinetuneSetup, run: Run) -> Run:
    """Train, export the model with its task, and record what came of it; returns the finished run. Needs a connected
    Ray. Raises Interrupted when the run was stopped, and what its workers raise.
    """
    run, handle = _start(setup, check_init_from(run, setup.init_url))
    rows = describe_finetune(setup) + [("run", run.url)] + ([("mlflow", handle.uri)] if handle.enabled else [])
    title = f"glm finetune · {setup.task.name} · {workers_text(setup.recipe)} workers · run {run.name}"
    setup.screen.header(title, rows)
    try:
        _launch(setup, run, handle)
        validated = _export(setup, run, handle)
    except BaseException as error:
        is_stop = isinstance(error, Interrupted | KeyboardInterrupt)
        tracking.finish(handle, "interrupted" if is_stop else "failed")
        raise
    run = run.with_record(finished=True)
    run.write()
    tracking.finish(handle, "finished")
    setup.screen.line(_chosen_text(setup, validated))
    return run


def _start(setup: FinetuneSetup, run: Run) -> tuple[Run, tracking.RunHandle]:
    recipe = setup.recipe
    if recipe.run.fresh:
        storage.remove_tree(run.url)
    run = run.with_record(model=setup.shape, steps=setup.steps)
    run.write()
    text = config.to_yaml(recipe)
    storage.write_bytes(storage.join(run.url, "config.yaml"), text.encode())
    # Before there is a model: it is one once its config.json is written, and checkpoints are asked this task too.
    write_taught(task_record(setup), run.model_url)
    handle = tracking.open_run(
        recipe.tracking,
        name=run.name,
        run_dir=run.url,
        params=config.flatten(recipe),
        tags={
            "glm.phase": "finetune",
            "glm.task": f"{setup.task.name} {setup.task.digest[:12]}",
            "glm.started_from": setup.init_url,
            "glm.selected_on": setup.selection.told,
            "glm.group": setup.group[:12],
            "glm.tokenizer_digest": setup.tokenizer.digest,
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=run.record.mlflow_run_id,
        default_root=recipe.run.storage_path,
    )
    if handle.enabled and run.record.mlflow_run_id != handle.run_id:
        run = run.with_record(mlflow_run_id=handle.run_id, tracking_uri=handle.uri, experiment_id=handle.experiment_id)
        run.write()
        offer_view(handle, FINETUNING)
        tracking.log_text(handle, text, "config.yaml")
    return run, handle


def job_of(setup: FinetuneSetup, run: Run, handle: tracking.RunHandle, *, link: str | None) -> Job:
    """All that a worker of this run needs. link: as `Job` has it."""
    recipe = setup.recipe
    kind = Finetuning(
        model=setup.shape,
        init_from=setup.init_url,
        is_random=recipe.model.random,
        train=setup.selection.train,
        held_out=setup.selection.held_out,
        plan=setup.plan,
        loss=recipe.train.loss,
        metrics=setup.task.metrics,
        classes=len(setup.task.labels),
        has_head=recipe.task.head,
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
        raise Interrupted(f"stopped {where}", try_="run the same command: it continues from there")


def _export(setup: FinetuneSetup, run: Run, handle: tracking.RunHandle) -> dict[str, float]:
    """Write the chosen checkpoint's weights as a model folder, with the task that it was trained on. Returns what
    validation said of it.
    """
    from glm_model import GLM, Classifier

    last = checkpoint.latest(run.checkpoints_url)
    assert last is not None, "a finished run has a checkpoint"
    chosen = (checkpoint.best(run.checkpoints_url) or last) if setup.selection.split else last
    loaded = checkpoint.load(chosen.url)
    model = (Classifier if setup.recipe.task.head else GLM).from_state(setup.shape, loaded.model)
    model.save_pretrained(run.model_url, setup.tokenizer, card=_card(setup, run, loaded.state))
    tracking.log_artifact_dir(handle, run.model_url, "model")
    return loaded.state["validated"]


def task_record(setup: FinetuneSetup) -> dict[str, Any]:
    """What a fine-tuned model's `task.json` says: what is asked of it, and how."""
    task, pattern = setup.task, setup.task.pattern()
    return {
        "task": task.name,
        "version": task.version,
        "kind": task.kind,
        "digest": task.digest,
        "pattern": pattern.text,
        "labels": list(task.labels),
        "words": dict(pattern.words),
        "settings": config.plain(setup.recipe.task),
        "started_from": setup.init_url,
        "selected_on": setup.selection.told,
        "selected_in": setup.selection.split,
        "seed": setup.recipe.train.seed,
        "group": setup.group,
    }


def _card(setup: FinetuneSetup, run: Run, state: dict[str, Any]) -> str:
    return f"""# {run.name}

A GLM (General Language Model, Du et al., ACL 2022) fine-tuned for {setup.task.name}.

| | |
|---|---|
| begun with | {setup.init_url}{" (its shape, random weights)" if setup.recipe.model.random else ""} |
| step | {state["step"]:,} of {setup.steps:,} |
| items | {len(setup.selection.train):,} |
| weights | {_chosen_text(setup, state["validated"])} |
| seed | {setup.recipe.train.seed} |
| pattern | `{setup.task.pattern().text}` |
| label words | `{json.dumps(dict(setup.task.pattern().words), ensure_ascii=False)}` |
| task digest | `{setup.task.digest}` |
"""


def _chosen_text(setup: FinetuneSetup, validated: dict[str, float]) -> str:
    """Which weights the model has, and what chose them."""
    selection, metric = setup.selection, setup.task.metrics[0]
    if selection.split is None:
        return f"those of the last step; selected on {selection.told}"
    score = f"{metric} {validated[f'val/{metric}']:.1f}"
    return f"those of step {validated['step']:,.0f}, {score}; selected on {selection.told}"
