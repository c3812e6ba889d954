"""A campaign in MLflow: a run with the means, whose children are the runs of the cells. Each child has its scores, and
the tag `glm.campaign`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from infra import commands, config, storage, tracking
from infra.tracking import RunHandle, saved_view
from infra.tracking.mlflow_client import best_effort, without_password
from workflows.campaigns.plan import begun_text
from workflows.campaigns.planned import Planned
from workflows.campaigns.scores import Mean, Scored
from workflows.evaluation.tracking import asked_dataset, metrics_of
from workflows.finetuning.tracked import link_model
from workflows.runs.mlflow_views import cells_view, offer_campaign_view, offer_view
from workflows.settings.campaign import CampaignRecipe

Status = Literal["running", "finished", "interrupted", "failed"]


def open_entry(recipe: CampaignRecipe, name: str, folder: str, cells: Sequence[Planned]) -> RunHandle:
    """Open the campaign's run in MLflow, the same one whenever it goes on. folder: of the campaign."""
    place = storage.join(folder, "mlflow.json")
    before = storage.read_json(place) if storage.exists(place) else {}
    uri = tracking.resolve_uri(recipe.tracking, recipe.run.storage_path)
    handle = tracking.open_run(
        recipe.tracking,
        name=name,
        run_dir=folder,
        params=_params(recipe, cells),
        tags={
            "glm.phase": "campaign",
            "glm.campaign": name,
            "glm.started_from": begun_text(cells),
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=before.get(str(uri)),
        default_root=recipe.run.storage_path,
        take_over=False,
    )
    if handle.enabled:
        storage.write_json(place, {**before, handle.uri: handle.run_id})
        tracking.log_text(handle, config.to_yaml(recipe), "config.yaml")
    return handle


def tags_of_cell(name: str, handle: RunHandle) -> dict[str, str]:
    """What the runs of a campaign's cells have besides their own tags. handle: of the campaign's run."""
    return {"glm.campaign": name, **({"mlflow.parentRunId": handle.run_id} if handle.enabled else {})}


def record(
    name: str, handle: RunHandle, rows: Sequence[Mean], scored: Sequence[Scored], files: Mapping[str, str]
) -> None:
    """Log the means with the campaign's run, and its scores with each cell's. files: artifact -> its text."""
    for one in scored:
        _record_cell(one, tags_of_cell(name, handle))
    if not handle.enabled:
        return
    _log_new(handle, metrics_of_means(rows))
    for place, text in files.items():
        tracking.log_text(handle, text, place)


def metrics_of_means(rows: Sequence[Mean]) -> dict[str, float]:
    """`eval/<task>/<settings>/<metric>`, the settings only where they differ, and behind it `_sd`, `_seeds`, `_n`,
    `_low`, `_high`.
    """
    values: dict[str, float] = {}
    for one in rows:
        setting = re.sub(r"[^\w.-]+", "_", "-".join(f"{key}_{value}" for key, value in one.chosen))
        name = "/".join(part for part in ("eval", one.task, setting, one.metric) if part)
        beside = {"sd": one.sd, "seeds": len(one.seeds), "n": one.n, "low": one.low, "high": one.high}
        values |= {name: one.mean, **{f"{name}_{key}": float(v) for key, v in beside.items() if v is not None}}
    return values


def describe_entry(
    recipe: CampaignRecipe, name: str, handle: RunHandle, cells: Sequence[Planned], status: Status, told: str
) -> None:
    """Say how the campaign stands, and close its entry unless it runs. told: as half a sentence."""
    tasks = dict.fromkeys(planned.cell.task for planned in cells)
    scores = dict.fromkeys(f"eval/{one.cell.task}/{metric}" for one in cells for metric in one.setup.task.metrics)
    campaign = recipe.campaign
    settings = [*(["optim.lr"] if campaign.lr else []), *campaign.grid, *(["train.seed"] if campaign.seeds else [])]
    view = cells_view(name, settings, [*scores])
    command = commands.again(sys.argv)
    note = (
        f"**Campaign** of {len(cells)} fine-tunings on {', '.join(tasks)}, begun with {begun_text(cells)}. "
        f"**{status.capitalize()}**: {told}. [The cells]({saved_view.link(handle, view)}), or the rows below this "
        "run in the table of all runs.\n\n"
        f"The same command {'shows it again' if status == 'finished' else 'goes on'}:\n\n```\n{command}\n```\n\n"
        f"Folder: `{storage.join(recipe.run.storage_path, name)}`"
    )
    tracking.set_note(handle, without_password(note), {"glm.status": status_text(status, cells)})
    if status != "running":
        tracking.finish(handle, status)
    offer_campaign_view(handle)
    offer_view(handle, view)


def status_text(status: Status, cells: Sequence[Planned]) -> str:
    """finished, or: interrupted at 6/12 cells."""
    finished = sum(one.is_finished for one in cells)
    return status if finished == len(cells) else f"{status} at {finished}/{len(cells)} cells"


def _params(recipe: CampaignRecipe, cells: Sequence[Planned]) -> dict[str, str]:
    """The settings of the cells: where they differ all values, in the order of the cells."""
    found: dict[str, list[str]] = {}
    for planned in cells:
        for key, value in planned.setup.comparable_settings.items():
            found.setdefault(key, []).append(value)
    values = {key: [*dict.fromkeys(several)] for key, several in found.items()}
    shown = {key: several[0] if len(several) == 1 else json.dumps(several) for key, several in values.items()}
    tasks = [*dict.fromkeys(planned.cell.task for planned in cells)]
    return {"campaign.tasks": ", ".join(tasks), "campaign.split": recipe.campaign.split, **shown}


def _record_cell(one: Scored, tags: dict[str, str]) -> None:
    planned, handle = one.planned, one.planned.run.record.tracking
    if handle is None or not planned.setup.recipe.tracking.enabled:
        return
    tracking.set_tags(handle, tags)  # a run that was finished before may have another parent, or none
    dataset = replace(asked_dataset(one.evaluated.asked), name=f"{planned.cell.task}-{one.evaluated.asked.split}")
    model_id = link_model(planned.setup, planned.run, handle)
    _log_new(handle, metrics_of(one.results), step=planned.setup.steps, model_id=model_id, dataset=dataset)


def _log_new(handle: RunHandle, values: dict[str, float], **more: object) -> None:
    """Log those that the run does not have as they are: a campaign that is shown again adds no points."""
    known = best_effort(handle, "list its scores", lambda client: client.get_run(handle.run_id).data.metrics) or {}
    if new := {key: value for key, value in values.items() if known.get(key) != value}:
        tracking.log_values(handle, new, **more)  # pyright: ignore[reportArgumentType]
