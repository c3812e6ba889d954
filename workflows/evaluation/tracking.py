"""An evaluation in MLflow: one run for each model, or for all checkpoints of a run, with a point for each step."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infra import storage, tracking
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.results import Result


def record(options: EvaluateConfig, evaluated: Sequence[Evaluated], results: Sequence[Result]) -> str | None:
    """Log the scores. Returns where; None where tracking is off. An evaluation that is shown again stays one run."""
    subjects = dict.fromkeys(_subject(one) for one in evaluated)
    for subject in subjects:
        _record(options, subject, [one for one in evaluated if _subject(one) == subject], results)
    return tracking.resolve_uri(options.tracking, _root(options))


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


def _record(options: EvaluateConfig, subject: str, evaluated: Sequence[Evaluated], results: Sequence[Result]) -> None:
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
        return
    for model in models.values():
        own = [one for one in results if one.model == model.name]
        tracking.log_values(handle, metrics_of(own), step=model.step or 0)
    storage.write_json(place, {**before, handle.uri: handle.run_id})
    tracking.finish(handle, "FINISHED")


def _root(options: EvaluateConfig) -> str:
    """The folder of the evaluations' parent: where runs and their MLflow are by default."""
    return options.to.rstrip("/").rpartition("/")[0] or "."
