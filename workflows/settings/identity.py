"""What is recorded of a recipe: the settings that have an effect; and which of them make two runs the same run."""

import hashlib
import json
import re
from typing import Any

from infra import storage
from infra.config import flatten, plain
from infra.errors import UserError
from pipelines.config import effective_settings
from pipelines.selection.config import DUPLICATES
from workflows.settings.models import name_of
from workflows.settings.recipe import Recipe

# Settings that change where and how fast a run is, and not what it computes.
_NOT_IDENTITY = (
    "run",
    "tracking",
    "console",
    "cluster",
    "train.num_workers",
    "train.use_gpu",
    "train.resources_per_worker",
    "train.max_failures",
    "train.hang_s",
    "train.resize_every_s",
    "train.exact",
    "train.eval_tasks",
    "train.eval_items",
    "train.patience",
    "train.checkpoint_activations",
    "train.checkpoint_every",
    "train.max_skipped",
    "train.log_every",
    "train.keep_checkpoints",
    "train.keep_at_tokens",
    "data.root",
    "data.unit_bytes",
    "data.plan_epochs",
    "data.max_malformed",
    "data.max_window",
    "data.max_unknown",
    "data.cache",
    "data.cache_bytes",
)
# Settings that came after the first runs. Where they have their default they are left out, so that earlier runs keep
# their identity.
_LATER = ("optim.name", "optim.matrix_lr", "optim.momentum", "optim.decay_fraction")
_TOLD_FIRST = ("model.size", "model.init_from", "train.tokens", "train.steps", "train.hours", "optim.lr", "optim.name")
# Settings that are places: what lies there may move.
_NAMED = re.compile(r"(data\.(?:sources|select\.decontaminate)\.\d+)\.url")
_WEIGHT = re.compile(r"data\.mix\.\d+\.weight")
_EFFECTLESS = re.compile(
    r"train\.tokens|model\.size|data\.select\.(similarity|contaminated)|data\.tokenizer\.(lowercase|train\..*)"
)
_PLACE = re.compile(
    r"data\.(store|mix\.\d+\.store|tokenizer\.url|select\.exclude)|model\.init_from|train\.eval_tasks\.\d+\.data"
)


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The settings that have an effect, as a recipe file has them: what a run records of itself."""
    values = plain(recipe) | {"data": effective_settings(recipe.data)}
    if recipe.train.steps is not None or recipe.train.hours is not None:
        del values["train"]["tokens"]
    if recipe.model.init_from:
        del values["model"]["size"]
    if recipe.optim.name == "adamw":
        del values["optim"]["matrix_lr"], values["optim"]["momentum"]
    if recipe.optim.schedule != "trapezoidal":
        del values["optim"]["decay_fraction"]
    return values


def flat_settings(values: dict[str, Any]) -> dict[str, str]:
    """Dotted key -> text of recorded settings. Weights of a mix are the shares that they come to."""
    flat = flatten(values)
    weights = {key: float(value) for key, value in flat.items() if _WEIGHT.fullmatch(key)}
    total = sum(weights.values())
    return flat | ({key: f"{weight / total:.6g}" for key, weight in weights.items()} if total > 0 else {})


def identity(recipe: Recipe) -> str:
    """Hex digest of the settings that decide what a run computes, wherever its text, stores and models lie."""
    canonical = json.dumps(without_places(identity_settings(recipe)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def identity_settings(recipe: Recipe) -> dict[str, str]:
    """The settings behind `identity`, flat and with their places, to say what differs between two runs of one name."""
    flat = without_later_defaults(flat_settings(recorded(recipe)))
    return {key: value for key, value in flat.items() if not _in(key, _NOT_IDENTITY)}


def without_later_defaults(settings: dict[str, str]) -> dict[str, str]:
    """Flat settings of a recipe of any kind without those that earlier versions lacked and that have their default."""
    default = flatten(Recipe())
    return {key: value for key, value in settings.items() if key not in _LATER or value != default[key]}


def seed_group(settings: dict[str, str]) -> str:
    """Hex digest that runs share which differ in train.seed alone. settings: those behind their identity, flat."""
    told = without_later_defaults(without_places(settings))
    kept = {key: value for key, value in told.items() if key != "train.seed"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def comparable_settings(recipe: Recipe) -> dict[str, str]:
    """The settings that are worth comparing, flat: without places and without what only decides where things lie and
    what they are called. Those that runs differ by most often come first.
    """
    hidden = tuple(key for key in _NOT_IDENTITY if not key.startswith("train."))
    shown = {
        key: value for key, value in without_places(flat_settings(recorded(recipe))).items() if not _in(key, hidden)
    }
    first = {key: shown[key] for key in _TOLD_FIRST if shown.get(key, "null") != "null"}
    return first | shown


def without_places(settings: dict[str, str]) -> dict[str, str]:
    """Flat settings with the names of sources, stores, tokenizers and models in the place of where they lie."""
    named = dict(settings)
    for key, value in settings.items():
        if source := _NAMED.fullmatch(key):
            del named[key]
            if named.get(f"{source[1]}.name", "null") == "null":
                named[f"{source[1]}.name"] = storage.base_name(value) or settings[f"{source[1]}.reader"]
        elif _PLACE.fullmatch(key) and value != "null":
            named[key] = _names(value)
    if named.get("data.select.duplicates") == "auto":  # as earlier versions recorded it
        named["data.select.duplicates"] = DUPLICATES[settings["data.clean.preset"]]
    if any(key.startswith("data.sources.") for key in settings):  # the store is what these make, wherever it lies
        named["data.store"] = "null"
    return named


def data_places(settings: dict[str, str]) -> dict[str, str]:
    """Those of flat settings that say where the data lies."""
    keys = (key for key in settings if _NAMED.fullmatch(key) or _PLACE.fullmatch(key))
    return {key: settings[key] for key in keys if key.startswith("data.") and settings[key] not in ("null", "[]", "")}


def changed_settings(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Keys of the flat settings in which two runs differ, wherever their text, stores and models lie."""
    one, two, default = without_places(before), without_places(now), flatten(Recipe())
    keys = sorted(key for key in {*one, *two} if one.get(key, default.get(key)) != two.get(key, default.get(key)))
    # What has no effect is not recorded, and was in earlier versions; what takes its effect away is compared itself.
    return [key for key in keys if (key in one and key in two) or not _EFFECTLESS.fullmatch(key)]


def run_name(recipe: Recipe, recipe_name: str) -> str:
    """The name of the run's folder. recipe_name: of the recipe's file; "" where there is none. Raises UserError."""
    return check_name(recipe.run.name or f"{recipe_name or 'pretrain'}-{identity(recipe)[:8]}")


def check_name(name: str) -> str:
    """The name of a run. Raises UserError for one that would be another place than a folder of its own."""
    if not re.fullmatch(r"\w[\w.+=-]*", name):
        raise UserError(
            f"run.name={name!r} cannot be a run's name",
            why="it names a folder in run.storage_path: letters, digits and _ . + = -, a letter or digit first",
            try_="--run.name=<another>",
        )
    return name


def _in(key: str, sections: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of these, or below one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _names(value: str) -> str:
    """The last part of a place, or of each in a list; of a run's model, runs/a/model, the run's name."""
    if value.startswith("["):
        return json.dumps([storage.base_name(one) for one in json.loads(value)], ensure_ascii=False)
    return name_of(value)
