"""The cells of a campaign: each combination of its tasks, settings and seeds, in that order, as a recipe of its own.

The name of a cell's run says what it is, `sweep-cb-lr=1e-05-seed=2`, so the same campaign finds its runs again, and one
that has got more tasks, values or seeds goes on with those that it had.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from infra import config
from infra.errors import UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.splits import split_rows
from workflows.evaluation.tasks import data_of
from workflows.finetuning.setup import deciding_settings
from workflows.settings.campaign import CampaignRecipe
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.identity import check_name
from workflows.settings.places import resolve_finetune_paths

_SEED = "train.seed"


@dataclass(frozen=True)
class Cell:
    """A fine-tuning of a campaign."""

    name: str
    """That of its run."""
    task: str
    """What the campaign calls its task."""
    chosen: tuple[tuple[str, str], ...]
    """Short name and value of each setting that differs, without the seed: (("lr", "1e-05"),)."""
    seed: int
    recipe: FinetuneRecipe
    eval_data: str | None = None
    """The data of the split that is asked in the end, where they are not those of training."""

    @property
    def asked(self) -> TaskConfig:
        """The task with the data that are asked in the end."""
        task = self.recipe.task
        return replace(task, data=self.eval_data, splits={}) if self.eval_data else task


class _Task(NamedTuple):
    """settings: as a recipe file has them."""

    label: str
    settings: dict[str, Any]


def campaign_name(recipe: CampaignRecipe, recipe_name: str) -> str:
    """The name of the campaign: `run.name`, or one that follows from the settings that all cells share, so that more
    seeds or values are the same campaign. recipe_name: of the recipe's file; "" where there is none. Raises UserError.
    """
    campaign = recipe.campaign
    differ = {*(["optim.lr"] if campaign.lr else []), *campaign.grid, *([_SEED] if campaign.seeds else [])}
    shared = {
        key: value
        for key, value in deciding_settings(recipe.single).items()
        if key not in differ and not (campaign.tasks and key.startswith("task."))
    }
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()
    return check_name(recipe.run.name or f"{recipe_name or 'campaign'}-{digest[:8]}")


def list_cells(recipe: CampaignRecipe, name: str, *, in_job: bool = False) -> tuple[Cell, ...]:
    """All cells of the campaign of this name, the same for the same recipe. in_job: as for `resolve_finetune_paths`.

    Raises UserError for settings that do not exist or contradict each other, and for cells that would have one name;
    DataError where the data of a task are not there.
    """
    axes, seeds = _axes(recipe), recipe.campaign.seeds or [recipe.train.seed]
    tasks = [*_tasks(recipe)] or [_Task(_label(recipe.task.name), {})]
    combinations = itertools.product(tasks, itertools.product(*axes.values()), seeds)
    cells = tuple(
        _cell(recipe, name, task, dict(zip(axes, values, strict=True)), seed, in_job=in_job)
        for task, values, seed in combinations
    )
    names = [cell.name for cell in cells]
    if twice := [one for number, one in enumerate(names) if one in names[:number]]:
        raise UserError(
            f"two cells of the campaign {name!r} would be {twice[0]}",
            why="a value of campaign.tasks, campaign.lr, campaign.grid or campaign.seeds is there twice",
            try_="leave one of them out",
        )
    return cells


def check_split(cells: Sequence[Cell], split: str) -> None:
    """Raises UserError where the data that a cell is asked in the end have no such split, DataError where there are no
    data: before anything is trained.
    """
    checked: list[TaskConfig] = []
    for cell in cells:
        if (asked := cell.asked) in checked:
            continue
        checked.append(asked)
        try:
            split_rows(tasks.find_splits(asked), split)
        except UserError as error:
            told = f"--campaign.split={split} of the cell {cell.name}: {error.message}"
            raise type(error)(told, why=error.why, try_=error.try_) from error


def _axes(recipe: CampaignRecipe) -> dict[str, list[Any]]:
    """Setting -> its values, but for the seed."""
    campaign = recipe.campaign
    axes = {**({"optim.lr": campaign.lr} if campaign.lr else {}), **campaign.grid}
    for key, own in (("optim.lr", campaign.lr), (_SEED, [1])):
        if key in campaign.grid and own:
            raise UserError(
                f"campaign.grid names {key}, which has a list of its own",
                why="a setting has its values in one place",
                try_=f"--campaign.{'lr' if key == 'optim.lr' else 'seeds'}='[...]' alone",
            )
    if empty := [key for key, values in axes.items() if not values]:
        raise UserError(f"campaign.grid.{empty[0]} has no values", try_="give some, or leave it out")
    return axes


def _tasks(recipe: CampaignRecipe) -> Iterator[_Task]:
    campaign = recipe.campaign
    places: dict[str, str | None] = (
        {**campaign.tasks} if isinstance(campaign.tasks, dict) else dict.fromkeys(campaign.tasks)
    )
    if not isinstance(campaign.tasks, dict) and len(places) < len(campaign.tasks):
        raise UserError("campaign.tasks names a task twice", try_="leave one of them out")
    for given, place in places.items():
        settings: dict[str, Any] = {"task": {"name": given}}
        if given.endswith((".yaml", ".yml")):
            settings = _of_file(given)
        own = (settings.get("task") or {}).get("data")
        data = place or own or (data_of(campaign.data, _label(given)) if campaign.data else None)
        if data is None:
            raise UserError(
                f"campaign.data is missing: where the data of {given} lie is not known",
                why="it names the folder that holds a folder for each of campaign.tasks",
                try_=f"--campaign.data=<folder>, or --campaign.tasks='{{{given}: <its place>}}'",
            )
        yield _Task(_label(given), {**settings, "task": {**(settings.get("task") or {}), "data": data}})


def _of_file(path: str) -> dict[str, Any]:
    try:
        return config.mapping_from_yaml(Path(path).read_text(encoding="utf-8"), where=f"in {path}")
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}", why=error.strerror, try_="give a path to a recipe") from None


def _label(task: str) -> str:
    """cb; of a recipe file its stem, of a module the last part of its name."""
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task.rpartition(".")[2]


def _cell(recipe: CampaignRecipe, name: str, task: _Task, values: dict[str, Any], seed: int, *, in_job: bool) -> Cell:
    chosen = tuple((_short(key, values), _text(value)) for key, value in values.items())
    parts = [name, *([task.label] if recipe.campaign.tasks else []), *(f"{key}={text}" for key, text in chosen)]
    own = check_name("-".join([*parts, *([f"seed={seed}"] if recipe.campaign.seeds else [])]))
    made = config.with_settings(recipe.single, task.settings, where=f"of the task {task.label}")
    for key, value in values.items():
        where = "in campaign.grid" if key in recipe.campaign.grid else "in campaign.lr"
        made = config.with_settings(made, _nested(key, value), where=where)
    made = config.with_settings(made, {"train": {"seed": seed}, "run": {"name": own}}, where="in campaign.seeds")
    eval_data = recipe.campaign.eval_data and data_of(recipe.campaign.eval_data, task.label)
    return Cell(own, task.label, chosen, seed, resolve_finetune_paths(made, in_job=in_job), eval_data)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """As a recipe file has a setting: ("a.b", 1) -> {"a": {"b": 1}}."""
    return functools.reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value)


def _short(key: str, keys: Sequence[str] | dict[str, Any]) -> str:
    """The last part of a setting's name; all of it where another one ends so."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in (*keys, _SEED)) > 1 else last


def _text(value: Any) -> str:
    """A value as a part of a file's name."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
