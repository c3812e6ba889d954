"""An evaluation in MLflow: one run for each model, or for all checkpoints of a run, with a point for each step. Models
that differ in their seed alone have a parent, which shows the mean over seeds.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from infra import commands, storage, tracking
from infra.tracking import LinkedDataset, LinkedModel
from infra.tracking.mlflow_client import without_password
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.contamination import Contamination
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import Model
from workflows.evaluation.results import Result
from workflows.evaluation.seeds import SeedResult
from workflows.evaluation.tasks import AskedTask
from workflows.runs.mlflow_views import evaluation_view, offer_evaluation_view, ways_to_compare
from workflows.settings.models import name_of, weights_digest

_PARENT = "mlflow.parentRunId"


def record(
    options: EvaluateConfig,
    evaluated: Sequence[Evaluated],
    results: Sequence[Result],
    over_seeds: Sequence[SeedResult] = (),
    seen: Sequence[Contamination] = (),
) -> list[tuple[str, str]]:
    """Log the scores. Returns what to print so that a user finds them: (purpose, command); nothing where tracking is
    off. An evaluation that is shown again stays one run.
    """
    handles, parents = [], dict[str, str]()
    for group in dict.fromkeys(one.group for one in over_seeds):
        members = [one for one in evaluated if one.model.group == group]
        handles.append(_record_seeds(options, members, [one for one in over_seeds if one.group == group]))
        parents[group] = handles[-1].run_id
    for subject in dict.fromkeys(_subject(one) for one in evaluated):
        members = [one for one in evaluated if _subject(one) == subject]
        parent = parents.get(members[0].model.group, "")
        handles.append(_record(options, subject, members, results, seen, parent=parent))
    tracked = [handle for handle in handles if handle.enabled]
    return ways_to_compare(tracked[0], evaluation_view(())) if tracked else []


def metrics_of(results: Sequence[Result]) -> dict[str, float]:
    """Names and values of one step: `eval/<task>/<metric>`, and behind it `_n`, `_low`, `_high`, `_without_context`;
    other patterns than the default have their number in between.
    """
    values: dict[str, float] = {}
    for one in results:
        name = _metric(one)
        less = {} if one.without_context is None else {f"{name}_without_context": one.without_context}
        values |= {name: one.value, f"{name}_n": float(one.n), **_bounds(name, one), **less}
    return values


def shares_of(seen: Sequence[Contamination]) -> dict[str, float]:
    """`contamination/<task>/asked`, `context`: per cent of the items that are in the text of the model's training."""
    values: dict[str, float] = {}
    for one in seen:
        shares = {"asked": one.asked, "context": one.context}
        values |= {f"contamination/{one.task}/{name}": share for name, share in shares.items() if share is not None}
    return values


def metrics_over_seeds(results: Sequence[SeedResult]) -> dict[str, float]:
    """As `metrics_of`, of the mean over seeds, with its `_sd` and the number of `_seeds`."""
    values: dict[str, float] = {}
    for one in results:
        name = _metric(one)
        seeds = {f"{name}_sd": one.sd, f"{name}_seeds": float(len(one.seeds))}
        values |= {name: one.mean, f"{name}_n": float(one.n), **seeds, **_bounds(name, one)}
    return values


def _metric(one: Result | SeedResult) -> str:
    return f"eval/{one.task}/{'' if one.is_default else f'p{one.pattern}/'}{one.metric}"


def _bounds(name: str, one: Result | SeedResult) -> dict[str, float]:
    if one.low is None or one.high is None:
        return {}
    return {f"{name}_low": one.low, f"{name}_high": one.high}


def _subject(one: Evaluated) -> str:
    """What is evaluated: a run, of whose checkpoints it may be several, or a model."""
    return one.model.run or one.model.name


def _record(
    options: EvaluateConfig,
    subject: str,
    evaluated: Sequence[Evaluated],
    results: Sequence[Result],
    seen: Sequence[Contamination],
    *,
    parent: str,
) -> tracking.RunHandle:
    """parent: MLflow's id of the run that has the mean over seeds; "" where there is none."""
    models = {one.model.name: one.model for one in evaluated}
    tags = {_PARENT: parent} if parent else {}
    handle = _open(options, subject, evaluated, key=subject, tags=tags)
    if not handle.enabled:
        return handle
    data = _link_data(handle, evaluated)
    for model in models.values():
        model_id = tracking.link_used_model(handle, _linked(model))
        for task, dataset in data.items():
            values = metrics_of([one for one in results if (one.model, one.task) == (model.name, task)])
            values |= shares_of([one for one in seen if (one.model, one.task) == (model.name, task)])
            tracking.log_values(handle, values, step=model.step or 0, model_id=model_id, dataset=dataset)
    split = evaluated[0].asked.split
    what = (
        f"**Evaluation** of `{subject}` on the split {split} of {', '.join(data)}{_chosen_by(models.values(), split)}"
    )
    return _close(options, handle, what)


def _record_seeds(
    options: EvaluateConfig, evaluated: Sequence[Evaluated], results: Sequence[SeedResult]
) -> tracking.RunHandle:
    """The run that has the means over seeds; those of the models are its children."""
    name, group = results[0].models, results[0].group
    handle = _open(options, name, evaluated, key=f"seeds-{group[:8]}", tags={})
    if not handle.enabled:
        return handle
    data = _link_data(handle, evaluated)
    for model in {one.model.name: one.model for one in evaluated}.values():
        tracking.link_used_model(handle, _linked(model))
    for step in dict.fromkeys(one.step for one in results):
        for task, dataset in data.items():
            values = metrics_over_seeds([one for one in results if (one.step, one.task) == (step, task)])
            tracking.log_values(handle, values, step=step or 0, dataset=dataset)
    seeds, split = sorted({seed for one in results for seed in one.seeds}), evaluated[0].asked.split
    chosen = _chosen_by((one.model for one in evaluated), split)
    what = (
        f"**Evaluation** of `{name}`, which differ in their seed alone ({', '.join(map(str, seeds))}), on the split "
        f"{split} of {', '.join(data)}{chosen}: each score is the mean over seeds, `_sd` its sample "
        "standard deviation, and `_low` to `_high` the 95 % interval of the mean over items"
    )
    return _close(options, handle, what)


def _open(
    options: EvaluateConfig, subject: str, evaluated: Sequence[Evaluated], *, key: str, tags: dict[str, str]
) -> tracking.RunHandle:
    """The run in MLflow, whose id is kept beside the results. key: of the subject, for the name of that file."""
    models = {one.model.name: one.model for one in evaluated}
    first, split = evaluated[0].model, evaluated[0].asked.split
    tasks = sorted({one.asked.task.name for one in evaluated})
    place = storage.join(options.to, f"mlflow-{key}-{'-'.join(tasks)}-{split}.json")
    before = storage.read_json(place) if storage.exists(place) else {}
    uri = tracking.resolve_uri(options.tracking, _root(options))
    handle = tracking.open_run(
        replace(options.tracking, required=False),  # what is answered is not lost for want of a record
        name=f"eval-{subject}",
        run_dir=options.to,
        params={
            "model": subject,
            "tasks": ", ".join(tasks),
            "split": split,
            "started_from": name_of(first.started_from),  # a parameter tells no places apart
            "selected_by": first.selected_for(split),
        },
        tags={
            "glm.phase": "evaluate",
            "glm.started_from": first.started_from,
            "glm.model_digest": ",".join(model.digest[:12] for model in models.values())[:500],
            **{f"glm.task.{one.asked.task.name}": one.asked.task.digest[:12] for one in evaluated},
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
            **tags,
        },
        run_id=before.get(str(uri)),
        default_root=_root(options),
        take_over=False,
    )
    if handle.enabled:
        storage.write_json(place, {**before, handle.uri: handle.run_id})
    return handle


def _link_data(handle: tracking.RunHandle, evaluated: Sequence[Evaluated]) -> dict[str, LinkedDataset]:
    """Task -> its items, as MLflow links them."""
    data = {one.asked.task.name: asked_dataset(one.asked) for one in evaluated}
    for dataset in data.values():
        tracking.link_dataset(handle, dataset, context="evaluation")
    return data


def _close(options: EvaluateConfig, handle: tracking.RunHandle, what: str) -> tracking.RunHandle:
    """Describe and finish the run. what: a sentence on what was evaluated, without its stop."""
    command = commands.command(commands.program("python"), *sys.argv)
    note = (
        f"{what}. The same command shows it again:\n\n```\n{command}\n```\n\nEvery answer, and the page "
        f"`evaluation.html`: `{options.to}`"
    )
    tracking.set_note(handle, without_password(note), {"glm.status": "finished"})
    tracking.finish(handle, "finished")
    offer_evaluation_view(handle)
    return handle


def _chosen_by(models: Iterable[Model], split: str) -> str:
    """What chose the weights, for a note: that it was the split which is reported is repeated there too (law 20)."""
    told = [by for by in dict.fromkeys(model.selected_for(split) for model in models) if by]
    return f", selected on {' or '.join(told)}" if told else ""


def _linked(model: Model) -> LinkedModel:
    """A model as the entry of its training has it, where that is known."""
    tags = {"glm.step": str(model.step)} if model.step is not None else {}
    return LinkedModel(model.name, weights_digest(model.url), model.url, tags)


def asked_dataset(asked: AskedTask) -> LinkedDataset:
    """The items that were asked; equal ones have one digest, wherever they lie and in whatever order."""
    profile = {"items": asked.size, "task_digest": asked.task.digest}
    return LinkedDataset(f"{asked.task.name}-{asked.split}", asked.digest, str(asked.config.data or ""), profile)


def _root(options: EvaluateConfig) -> str:
    """The folder of the evaluations' parent: where runs and their MLflow are by default."""
    return options.to.rstrip("/").rpartition("/")[0] or "."
