"""What MLflow gets of a fine-tuning: its entry, with settings that can be compared; a note; the model that it made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from glm_model.config import num_parameters
from infra import checkpoint, commands, config, storage, tracking
from infra.console import counted, human
from infra.tracking import LinkedDataset, LinkedModel, RunHandle
from infra.tracking.metric_log import read_points
from infra.tracking.note import Subject, close_broken, describe, describe_running
from pipelines.feed.questions import fingerprint
from workflows.finetuning.final_model import chosen, weights_text
from workflows.finetuning.setup import FinetuneSetup
from workflows.runs.mlflow_views import FINETUNING, offer_view
from workflows.runs.run import Run
from workflows.settings.models import name_of, weights_digest


def open_entry(setup: FinetuneSetup, run: Run) -> RunHandle:
    """Open the run's entry, which a new run does not have yet."""
    recipe = setup.recipe
    handle = tracking.open_run(
        recipe.tracking,
        name=run.name,
        run_dir=run.url,
        params=setup.comparable_settings,
        tags={
            "glm.phase": "finetune",
            "glm.task": f"{setup.task.name} {setup.task.digest[:12]}",
            "glm.parameters": human(num_parameters(setup.shape)),
            "glm.started_from": setup.started_from,
            "glm.selected_on": setup.selection.told,
            "glm.group": setup.group[:12],
            "glm.tokenizer_digest": setup.tokenizer.digest,
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=run.record.mlflow_run_id,
        default_root=recipe.run.storage_path,
    )
    if handle.run_id != run.record.mlflow_run_id:
        offer_view(handle, FINETUNING)
        tracking.log_text(handle, config.to_yaml(recipe), "config.yaml")
        tracking.link_dataset(handle, _dataset(setup), context="fine-tuning")
        tracking.link_used_model(handle, _initial_model(setup))
    describe_running(handle, _subject(setup, run))
    return handle


def close_entry(setup: FinetuneSetup, run: Run, handle: RunHandle) -> None:
    """Close the entry of a finished run."""
    told = f"the weights are {weights_text(setup, checkpoint.read_state(chosen(setup, run).url))}"
    describe(handle, _subject(setup, run), "finished", told)
    tracking.finish(handle, "finished")


def close_broken_entry(setup: FinetuneSetup, run: Run, handle: RunHandle, error: BaseException) -> None:
    """Close the entry of a run that did not come to its end."""
    last = checkpoint.latest(run.checkpoints_url)
    close_broken(handle, _subject(setup, run), error, step=last.step if last else 0, steps=setup.steps)


def record_model(setup: FinetuneSetup, run: Run, handle: RunHandle) -> None:
    """Upload the run's model folder, and link it as what the run made, with its validation."""
    if not handle.enabled:
        return
    tracking.log_artifact_dir(handle, run.model_url, "model")
    step = chosen(setup, run).step
    model_id = link_model(setup, run, handle)
    points = [point for point in read_points(storage.join(run.url, "metrics.jsonl")) if point.step == step]
    values = {name: value for point in points for name, value in point.values.items() if name.startswith("val/")}
    if values and model_id:
        # The time of the point that the run has: MLflow adds it to the model, and no second one to the run.
        tracking.log_values(
            handle, values, step=step, seconds=points[-1].time, model_id=model_id, dataset=_dataset(setup)
        )


def link_model(setup: FinetuneSetup, run: Run, handle: RunHandle) -> str | None:
    """Link the run's model as what it made; returns MLflow's id of it. The same call again changes nothing."""
    tags = {"glm.task": setup.task.name, "glm.group": setup.group[:12]}
    model = LinkedModel(run.name, weights_digest(run.model_url), run.model_url, tags)
    return tracking.link_trained_model(handle, model, step=chosen(setup, run).step)


def _subject(setup: FinetuneSetup, run: Run) -> Subject:
    items, steps = counted(len(setup.selection.train), "item"), counted(setup.steps, "step")
    size = human(num_parameters(setup.shape))
    return Subject(
        f"**Fine-tuning** of {setup.started_from} ({size} parameters) for {setup.task.name} on {items}, {steps}",
        "To evaluate the model",
        commands.workflow("evaluate", "--models", run.url),
        f"Folder: `{run.url}`",
    )


def _dataset(setup: FinetuneSetup) -> LinkedDataset:
    """The labelled items of the train split; equal ones have one digest, wherever they lie."""
    digest = hashlib.sha256(f"{setup.task.digest} {fingerprint(setup.labelled)}".encode()).hexdigest()
    profile = {"items": len(setup.labelled), "task_digest": setup.task.digest}
    url = setup.recipe.task.data or setup.recipe.task.splits.get("train", "")
    return LinkedDataset(f"{setup.task.name}-train", digest, url, profile)


def _initial_model(setup: FinetuneSetup) -> LinkedModel:
    return LinkedModel(name_of(setup.init_url), weights_digest(setup.init_url), setup.init_url)
