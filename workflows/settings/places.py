"""The places of a recipe, made absolute."""

import copy
from typing import Any, TypeVar

from infra import storage, tracking
from infra.errors import UserError
from infra.storage import local
from workflows.settings.campaign import CampaignRecipe
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.models import model_in
from workflows.settings.recipe import R, Recipe

F = TypeVar("F", bound=FinetuneRecipe)

_IN_JOB = "inside a Ray job it would lie in the job's own folder, which vanishes with the job"


def resolve_paths(recipe: R, *, in_job: bool) -> R:
    """The recipe with absolute paths, so that workers mean the same places. Raises UserError for relative ones inside a
    Ray job.
    """
    check_database(recipe.tracking, in_job=in_job)
    recipe = copy.deepcopy(recipe)
    _make_absolute(_places(recipe), in_job=in_job)
    if recipe.model.init_from:
        recipe.model.init_from = model_in(recipe.model.init_from)
    recipe.data.select.exclude = [_absolute_if_there(entry) for entry in recipe.data.select.exclude]
    return recipe


def resolve_finetune_paths(recipe: F, *, in_job: bool) -> F:
    """As `resolve_paths`. Files of splits that lie below task.data stay relative to it."""
    check_database(recipe.tracking, in_job=in_job)
    recipe = copy.deepcopy(recipe)
    places: list[tuple[str, Any, str]] = [("run.storage_path", recipe.run, "storage_path")]
    optional = (("model.init_from", recipe.model, "init_from"), ("task.data", recipe.task, "data"))
    _make_absolute(places + [place for place in optional if getattr(place[1], place[2])], in_job=in_job)
    if recipe.model.init_from:
        recipe.model.init_from = model_in(recipe.model.init_from)
    if not recipe.task.data:
        splits = recipe.task.splits.items()
        recipe.task.splits = {name: _absolute(f"task.splits.{name}", url, in_job=in_job) for name, url in splits}
    return recipe


def resolve_campaign_paths(recipe: CampaignRecipe, *, in_job: bool) -> CampaignRecipe:
    """As `resolve_paths`. Recipe files of tasks are read where the command runs, and stay as they are."""
    recipe = resolve_finetune_paths(recipe, in_job=in_job)
    campaign = recipe.campaign
    given = [name for name in ("data", "eval_data") if getattr(campaign, name)]
    _make_absolute([(f"campaign.{name}", campaign, name) for name in given], in_job=in_job)
    if isinstance(campaign.tasks, dict):
        places = campaign.tasks.items()
        campaign.tasks = {task: _absolute(f"campaign.tasks.{task}", url, in_job=in_job) for task, url in places}
    return recipe


def check_database(config: tracking.TrackingConfig, *, in_job: bool) -> None:
    """Raises UserError for MLflow in a file with a relative path inside a Ray job."""
    if in_job and (given := tracking.relative_database(config)):
        raise UserError(
            f"{given} is a relative path",
            why=_IN_JOB,
            try_="use four slashes and an absolute path, or a tracking server",
        )


def _make_absolute(places: list[tuple[str, Any, str]], *, in_job: bool) -> None:
    for key, owner, name in places:
        value = getattr(owner, name)
        value = storage.newest(value) if key == "model.init_from" else value
        setattr(owner, name, _absolute(key, value, in_job=in_job))


def _absolute(key: str, value: str, *, in_job: bool) -> str:
    absolute = storage.absolute(value)
    if in_job and absolute != value and not value.startswith("file:"):
        raise UserError(
            f"{key}={value} is a relative path",
            why=_IN_JOB,
            try_="use an absolute path or URL that all nodes can reach, for example "
            f"--{key.split('[')[0]}=/shared/{value.removeprefix('./')}",
        )
    return absolute


def _absolute_if_there(entry: str) -> str:
    """An entry of data.select.exclude: it may also be an id, or a path below the root of a source."""
    if not entry or not storage.is_local(entry):
        return entry
    place = storage.absolute(entry)
    return place if local.expand(place) else entry


def _places(recipe: Recipe) -> list[tuple[str, Any, str]]:
    """(key, the section or item that holds it, its name there) of each place that the recipe gives."""
    data = recipe.data
    optional: list[tuple[str, Any, str]] = [
        ("data.store", data, "store"),
        ("model.init_from", recipe.model, "init_from"),
        ("data.cache", data, "cache"),
        ("data.tokenizer.url", data.tokenizer, "url"),
    ]
    optional += [(f"data.sources[{i}].url", source, "url") for i, source in enumerate(data.sources)]
    optional += [(f"data.mix[{i}].store", member, "store") for i, member in enumerate(data.mix)]
    optional += [(f"data.select.decontaminate[{i}].url", one, "url") for i, one in enumerate(data.select.decontaminate)]
    optional += [(f"train.eval_tasks[{i}].data", task, "data") for i, task in enumerate(recipe.train.eval_tasks)]
    given = [(key, owner, name) for key, owner, name in optional if getattr(owner, name)]
    return [("run.storage_path", recipe.run, "storage_path"), ("data.root", data, "root"), *given]
