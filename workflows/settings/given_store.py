"""Settings that a recipe takes over: those of a finished store, whose manifest says them; the tokenizer of a model."""

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from infra import config
from infra.errors import UserError
from pipelines.config import OWN, DataConfig, made_with
from workflows.settings.recipe import R

if TYPE_CHECKING:
    from pipelines.store.manifest import Manifest

_UNKNOWN = object()


def settle(recipe: R, places: dict[str, str]) -> R:
    """The recipe with the settings of data that the manifests of data.store or data.mix hold; without these with the
    tokenizer of model.init_from, where no other is given.

    places: key -> where it was given, of the settings that were given by hand. Raises UserError for those that
    contradict a store, and DataError for what is not a store.
    """
    data, init_from = recipe.data, recipe.model.init_from
    if not data.store and not data.mix:
        if not init_from or data.tokenizer.url:
            return recipe
        return replace(recipe, data=replace(data, tokenizer=replace(data.tokenizer, url=init_from)))
    from pipelines.store.format import TokenStore  # with pyarrow

    keys = {f"data.mix[{i}].store": member.store for i, member in enumerate(data.mix)}
    given = {"data.store": data.store} if data.store else keys
    manifests = {f"{key}={url}": TokenStore.open(url).manifest for key, url in given.items()}
    for name, manifest in manifests.items():
        _check_tokenizer(data, name, manifest)
        _check(data, places, name, manifest)
    known = [_settings(manifest) for manifest in manifests.values()]
    same = {key: value for key, value in known[0].items() if all(other.get(key) == value for other in known)}
    if data.mix:
        same.pop("sources", None)  # each has its own
    return replace(recipe, data=_merged(data, same))


def _settings(manifest: "Manifest") -> dict[str, Any]:
    """What a manifest says of the settings of data, as a recipe has them. Stores of earlier versions say less."""
    names = {field.name for field in fields(DataConfig)}
    values = {key: value for key, value in manifest.data.items() if key in names}
    return values | {key: value for key, value in manifest.settings.items() if key in names and key != "select"}


def _merged(data: DataConfig, known: dict[str, Any]) -> DataConfig:
    """The settings that a run on a finished store has of its own, and those of the store."""
    own = {key: value for key, value in config.plain(data).items() if key in OWN}
    select = known.get("select", {})
    sets = [{"url": "", **one} for one in select.get("decontaminate", [])]
    values = own | known | ({"select": {**select, "decontaminate": sets}} if select else {})
    return config.dataclass_from(DataConfig, values, where="in the manifest of a store")


def _check(data: DataConfig, places: dict[str, str], name: str, manifest: "Manifest") -> None:
    """Refuse given settings that the store does not have."""
    mine, theirs = made_with(replace(data, store=None, mix=[])), _settings(manifest)
    wrong: list[tuple[str, Any, Any]] = []
    for key in places:
        section, _, path = key.partition(".")
        if section != "data" or path.partition(".")[0] in OWN or key == "data.tokenizer.url":
            continue
        value, made = _at(mine, path), _stored(theirs, path, manifest)
        if value not in (_UNKNOWN, None, []) and made is not _UNKNOWN and _comparable(value) != _comparable(made):
            wrong.append((key, value, made))
    if not wrong:
        return
    key, value, made = wrong[0]
    lines = [f"{key}={_shown(value)} {places[key]}: the store has {_shown(made)}" for key, value, made in wrong]
    raise UserError(
        f"{key}={_shown(value)} {places[key]} is not what the store was made with: {_shown(made)}",
        why="\n".join([f"{name} is finished, and keeps its settings", *lines[1:]]),
        try_=f"leave it out, or give the store's: --{key}='{_shown(made)}'; or leave out the store, to make another",
    )


def _stored(values: dict[str, Any], path: str, manifest: "Manifest") -> Any:
    """What the store was made with; where it was made before manifests said all, what can be told."""
    found = _at(values, path)
    if (found is _UNKNOWN and path == "tokenizer.train") or path.startswith("tokenizer.train."):
        return "a tokenizer that was loaded" if found is _UNKNOWN and "tokenizer" in values else found
    select = manifest.settings.get("select", {})
    if found is _UNKNOWN and path == "select.exclude":
        return select.get("exclude", [])
    if found is _UNKNOWN and path == "select.decontaminate" and "evaluation_sets" not in select:
        return []
    return found


def _check_tokenizer(data: DataConfig, name: str, manifest: "Manifest") -> None:
    url = data.tokenizer.url
    if not url or url == _at(manifest.data, "tokenizer.url"):
        return
    from pipelines.store.tokenizer import load_tokenizer

    if load_tokenizer(url, lowercase=data.tokenizer.lowercase).digest != manifest.tokenizer_digest:
        raise UserError(
            f"data.tokenizer.url={url} is not the tokenizer of {name}",
            why="the store holds ids of its own tokenizer, which stand for other text in this one",
            try_="leave out data.tokenizer.url: a store brings its tokenizer; or prepare a store with this one",
        )


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(values, dict) or name not in values:
            return _UNKNOWN
        values = values[name]
    return values


def _comparable(value: Any) -> Any:
    return (
        sorted(map(str.lower, value)) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
