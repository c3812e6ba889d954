"""An evaluation in MLflow: one run for each model, or for all checkpoints of a run, with a point for each step."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infra import commands, storage, tracking
from infra.tracking import LinkedDataset, LinkedModel
from infra.tracking.mlflow_client import without_password
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import Model
from workflows.evaluation.results import Result
from workflows.evaluation.tasks import AskedTask
from workflows.runs.mlflow_views import evaluation_view, offer_evaluation_view, ways_to_compare
from workflows.settings.models import weights_digest


def record(options: EvaluateConfig, evaluated: Sequence[Evaluated], results: Sequence[Result]) -> list[tuple[str, str]]:
    """Log the scores. Returns what to print so that a user finds them: (purpose, command); nothing where tracking is
    off. An evaluation that is shown again stays one run.
    """
    subjects = dict.fromkeys(_subject(one) for one in evaluated)
    handles = [
        _record(options, subject, [one for one in evaluated if _subject(one) == subject], results)
        for subject in subjects
    ]
    tracked = [handle for handle in handles if handle.enabled]
    return ways_to_compare(tracked[0], evaluation_view(())) if tracked else []


def metrics_of(results: Sequence[Result]) -> dict[str, float]:
    """Names and values of one step: `eval/<task>/<metric>`, and behind it `_n`, `_low`, `_high`; other patterns than
    the default have their number in between.
    """
    values: dict[str, float] = {}
    for one in results:
        place = "" if one.is_default else f"p{one.pattern}/"
        name = f"eval/{one.task}/{place}{one.metric}"
        values |= {name: one.value, f"{name}_n": float(one.n)}
        if one.low is not None and one.high is not None:
            values |= {f"{name}_low": one.low, f"{name}_high": one.high}
    return values


def _subject(one: Evaluated) -> str:
    """What is evaluated: a run, of whose checkpoints it may be several, or a model."""
    return one.model.run or one.model.name


def _record(
    options: EvaluateConfig, subject: str, evaluated: Sequence[Evaluated], results: Sequence[Result]
) -> tracking.RunHandle:
    models = {one.model.name: one.model for one in evaluated}
    first = evaluated[0].model
    tasks = sorted({one.asked.task.name for one in evaluated})
    place = storage.join(options.to, f"mlflow-{subject}-{'-'.join(tasks)}-{evaluated[0].asked.split}.json")
    before = storage.read_json(place) if storage.exists(place) else {}
    uri = tracking.resolve_uri(options.tracking, _root(options))
    handle = tracking.open_run(
        replace(options.tracking, required=False),  # what is answered is not lost for want of a record
        name=f"eval-{subject}",
        run_dir=options.to,
        params={
            "model": first.run or first.url,
            "tasks": ", ".join(tasks),
            "split": evaluated[0].asked.split,
            "started_from": first.started_from,
            "selected_by": first.selected_by,
        },
        tags={
            "glm.phase": "evaluate",
            "glm.model_digest": ",".join(model.digest[:12] for model in models.values())[:500],
            **{f"glm.task.{one.asked.task.name}": one.asked.task.digest[:12] for one in evaluated},
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=before.get(str(uri)),
        default_root=_root(options),
        take_over=False,
    )
    if not handle.enabled:
        return handle
    data = {one.asked.task.name: _dataset(one.asked) for one in evaluated}
    for dataset in data.values():
        tracking.link_dataset(handle, dataset, context="evaluation")
    for model in models.values():
        model_id = tracking.link_used_model(handle, _linked(model))
        for task, dataset in data.items():
            values = metrics_of([one for one in results if (one.model, one.task) == (model.name, task)])
            tracking.log_values(handle, values, step=model.step or 0, model_id=model_id, dataset=dataset)
    storage.write_json(place, {**before, handle.uri: handle.run_id})
    tracking.set_note(handle, _note(options, subject, tasks, evaluated[0].asked.split), {"glm.status": "finished"})
    tracking.finish(handle, "finished")
    offer_evaluation_view(handle)
    return handle


def _linked(model: Model) -> LinkedModel:
    """A model as the entry of its training has it, where that is known."""
    tags = {"glm.step": str(model.step)} if model.step is not None else {}
    return LinkedModel(model.name, weights_digest(model.url), model.url, tags)


def _dataset(asked: AskedTask) -> LinkedDataset:
    """The items that were asked; equal ones have one digest, wherever they lie and in whatever order."""
    items = sorted(json.dumps([item.id, dict(item.fields), item.gold, item.candidates]) for item in asked.items)
    digest = hashlib.sha256("\n".join(items).encode()).hexdigest()
    profile = {"items": len(items), "task_digest": asked.task.digest}
    return LinkedDataset(f"{asked.task.name}-{asked.split}", digest, str(asked.config.data or ""), profile)


def _note(options: EvaluateConfig, subject: str, tasks: Sequence[str], split: str) -> str:
    command = commands.command(commands.program("python"), *sys.argv)
    return without_password(
        f"**Evaluation** of `{subject}` on the split {split} of {', '.join(tasks)}. The same command shows it again:"
        f"\n\n```\n{command}\n```\n\nEvery answer, and the page `evaluation.html`: `{options.to}`"
    )


def _root(options: EvaluateConfig) -> str:
    """The folder of the evaluations' parent: where runs and their MLflow are by default."""
    return options.to.rstrip("/").rpartition("/")[0] or "."
