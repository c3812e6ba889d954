"""The places of a recipe: made absolute, and seen by all nodes that need them."""

from typing import Any

from infra import storage, tracking
from infra.cluster import capacity
from infra.errors import UserError
from pipelines.corpus.sources import local_places
from pipelines.prepare import Preparation, find_store
from workflows.settings.recipe import Recipe

_TASK = {"CPU": 1.0}  # what a task of a preparation takes


def settle_paths(recipe: Recipe, *, in_job: bool) -> None:
    """Make local paths absolute, so that workers mean the same places; inside a Ray job relative ones are refused."""
    places: list[tuple[str, Any, str]] = [
        ("run.storage_path", recipe.run, "storage_path"),
        ("data.root", recipe.data, "root"),
    ]
    if recipe.data.store:
        places.append(("data.store", recipe.data, "store"))
    if recipe.model.init_from:
        places.append(("model.init_from", recipe.model, "init_from"))
    if recipe.data.cache:
        places.append(("data.cache", recipe.data, "cache"))
    if recipe.data.tokenizer.url:
        places.append(("data.tokenizer.url", recipe.data.tokenizer, "url"))
    if in_job and (given := tracking.relative_database(recipe.tracking)):
        raise UserError(
            f"{given} is a relative path",
            why="inside a Ray job it would lie in the job's own folder, which vanishes with the job",
            try_="four slashes and an absolute path, or a tracking server",
        )
    places += [(f"data.sources[{i}].url", s, "url") for i, s in enumerate(recipe.data.sources) if s.url]
    places += [(f"data.mix[{i}].store", member, "store") for i, member in enumerate(recipe.data.mix)]
    exams = recipe.data.select.decontaminate
    places += [(f"data.select.decontaminate[{i}].url", exam, "url") for i, exam in enumerate(exams)]
    for key, owner, name in places:
        value = getattr(owner, name)
        absolute = storage.absolute(value)
        if in_job and absolute != value and not value.startswith("file:"):
            raise UserError(
                f"{key}={value} is a relative path",
                why="inside a Ray job it would lie in the job's own folder, which vanishes with the job",
                try_="an absolute path or URL that all nodes can reach, for example "
                f"--{key.split('[')[0]}=/shared/{value.removeprefix('./')}",
            )
        setattr(owner, name, absolute)


def check_shared(recipe: Recipe) -> None:
    """UserError when a node of a cluster of several does not see a place that all workers of a training need."""
    uri = tracking.resolve_uri(recipe.tracking, recipe.run.storage_path)
    if uri and uri.startswith("sqlite:"):
        raise UserError(
            f"MLflow's database {uri} is a file",
            why="the cluster has several nodes, and SQLite is for the processes of one",
            try_="mlflow server on one of them, and --tracking.uri=http://...; or --tracking.enabled=false",
        )
    written = {"run.storage_path": recipe.run.storage_path, "data.root": recipe.data.root}
    read = {
        "data.store": recipe.data.store,
        "data.tokenizer.url": recipe.data.tokenizer.url,
        "model.init_from": recipe.model.init_from,
    }
    read |= {f"data.mix[{i}].store": member.store for i, member in enumerate(recipe.data.mix)}
    for key, place in {**written, **read}.items():
        if not place or not storage.is_local(place):
            continue
        if blind := (capacity.nodes_not_sharing if key in written else capacity.nodes_missing)(place):
            raise _not_shared(f"{key}={place}", blind, f"a folder that all nodes share, or a URL: --{key}=s3://...")


def check_shared_data(preparation: Preparation) -> None:
    """UserError when a preparation is to run on several nodes of the connected Ray, and one that it may use does not
    see where it writes, or what it has to read: sources that a finished store holds are read no more.
    """
    data = preparation.config
    if preparation.given or not capacity.several_nodes(_TASK, False):
        return
    if storage.is_local(data.root) and (blind := capacity.nodes_not_sharing(data.root, only=_TASK)):
        try_ = "a folder that all nodes share, or a URL: --data.root=s3://..."
        raise _not_shared(f"data.root={data.root}", blind, try_)
    local = local_places(preparation.inputs.files)
    if not local or find_store(preparation):
        return
    for index, files in local.items():
        for file in files:
            if blind := capacity.nodes_missing(file, only=_TASK):
                source = data.sources[index]
                told = f"data.sources[{index}].url={source.url}" if source.url else f"the source {source.reader!r}"
                try_ = "a folder that all nodes have at the same path (a network file system does), or a URL: s3://..."
                raise _not_shared(told, blind, try_, sees=file)


def _not_shared(told: str, blind: list[str], try_: str, *, sees: str = "it") -> UserError:
    return UserError(
        f"{told} is a place of this machine only",
        why=f"{len(blind)} other node(s) do not see {sees}: {', '.join(blind[:4])}",
        try_=try_,
    )
