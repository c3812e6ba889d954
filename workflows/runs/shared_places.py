"""Whether the nodes of a cluster see the places that they all need."""

from collections.abc import Mapping

from infra import storage, tracking
from infra.cluster import capacity
from infra.errors import UserError
from pipelines.corpus.sources import local_places
from pipelines.prepare import Preparation, find_store
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.recipe import Recipe, RunConfig

_TASK = {"CPU": 1.0}  # what a task of a preparation takes


def check_shared(recipe: Recipe) -> None:
    """Raises UserError when a node of a cluster of several does not see a place that all workers of a training need."""
    _check_database(recipe.tracking, recipe.run)
    written = {"run.storage_path": recipe.run.storage_path, "data.root": recipe.data.root}
    read = {
        "data.store": recipe.data.store,
        "data.tokenizer.url": recipe.data.tokenizer.url,
        "model.init_from": recipe.model.init_from,
    }
    if recipe.data.store or recipe.data.mix:
        del read["data.tokenizer.url"]  # the store has its own
    read |= {f"data.mix[{i}].store": member.store for i, member in enumerate(recipe.data.mix)}
    _check_places(written, read)


def check_shared_finetuning(recipe: FinetuneRecipe) -> None:
    """As `check_shared`. Items are read by the driver alone, and reach the workers with their task."""
    _check_database(recipe.tracking, recipe.run)
    _check_places({"run.storage_path": recipe.run.storage_path}, {"model.init_from": recipe.model.init_from})


def check_shared_data(work: Preparation) -> None:
    """Raises UserError when a preparation is to run on several nodes of the connected Ray, and one that it may use does
    not see where it writes, or what it has to read: sources that a finished store holds are not read again.
    """
    data = work.config
    if work.given or not capacity.several_nodes(_TASK, False):
        return
    if storage.is_local(data.root) and (blind := capacity.nodes_not_sharing(data.root, only=_TASK)):
        try_ = "use a folder that all nodes share, or a URL: --data.root=s3://..."
        raise _not_shared(f"data.root={data.root}", blind, try_)
    local = local_places(work.inputs.files)
    if not local or find_store(work):
        return
    for index, files in local.items():
        for file in files:
            if blind := capacity.nodes_missing(file, only=_TASK):
                source = data.sources[index]
                name = f"data.sources[{index}].url={source.url}" if source.url else f"the source {source.reader!r}"
                try_ = (
                    "use a folder that lies at the same path on all nodes (a network file system), or a URL: s3://..."
                )
                raise _not_shared(name, blind, try_, sees=file)


def _not_shared(place: str, blind: list[str], try_: str, *, sees: str = "it") -> UserError:
    """place: what is not shared, in words; sees: what the blind nodes lack."""
    return UserError(
        f"{place} is a place of this machine only",
        why=f"{len(blind)} other node(s) do not see {sees}: {', '.join(blind[:4])}",
        try_=try_,
    )


def _check_database(config: tracking.TrackingConfig, run: RunConfig) -> None:
    uri = tracking.resolve_uri(config, run.storage_path)
    if uri and uri.startswith("sqlite:"):
        raise UserError(
            f"MLflow's database {uri} is a file",
            why="the cluster has several nodes, and SQLite is for the processes of one",
            try_="start `mlflow server` on one of them and give --tracking.uri=http://..., or --tracking.enabled=false",
        )


def _check_places(written: Mapping[str, str | None], read: Mapping[str, str | None]) -> None:
    """Setting -> its place: those that all nodes write to, and those that they read."""
    for key, place in {**written, **read}.items():
        if not place or not storage.is_local(place):
            continue
        if blind := (capacity.nodes_not_sharing if key in written else capacity.nodes_missing)(place):
            raise _not_shared(f"{key}={place}", blind, f"use a folder that all nodes share, or a URL: --{key}=s3://...")
