"""Files that a recipe's sources have got since a run's store was made: the run does not read them, and says so."""

from infra import storage
from infra.console import Console, counted
from infra.errors import UserError
from infra.storage import parquet
from pipelines.corpus.sources import InputFile, list_inputs
from pipelines.prepare import find_store, preparation_of
from pipelines.store.format import TokenStore
from pipelines.store.lineage import documents_of
from workflows.settings.recipe import Recipe

_SHOWN = 3


def warn_of_added(store: TokenStore | None, recipe: Recipe, screen: Console) -> None:
    """Warn of files that the recipe names and the store of its run knows nothing of. Nothing where no sources are
    named, where they are gone, or where the store is.
    """
    if store is None or not recipe.data.sources or recipe.data.store or recipe.data.mix:
        return
    try:
        if find_store(preparation_of(recipe.data, recipe.blanks)) == store.url:
            return
        added = added_files(store, list_inputs(recipe.data.sources))
    except (OSError, UserError):  # a run needs its sources no longer
        return
    if added:
        names = ", ".join(added[:_SHOWN]) + (", ..." if len(added) > _SHOWN else "")
        were = "was" if len(added) == 1 else "were"
        screen.warn(
            f"{counted(len(added), 'file')} {were} added to the sources since the store of this run was made, and the "
            f"run is without them: {names}. A run of another --run.name reads them"
        )


def added_files(store: TokenStore, files: list[InputFile]) -> list[str]:
    """The paths of those files of which the store has neither a document nor a line in its ledger, in their order."""
    known: set[tuple[str, str]] = set()
    for split in store.splits:
        for shard in range(len(split.shards)):
            table = documents_of(split, shard, columns=["source", "path"]).group_by(["source", "path"]).aggregate([])
            known |= set(zip(table["source"].to_pylist(), table["path"].to_pylist(), strict=True))
    new = [file for file in files if (file.source, file.path) not in known]
    if not new:
        return []
    ledger = storage.join(store.url, "ledger.parquet")
    uris = set(parquet.read_table(ledger, ["uri"])["uri"].to_pylist()) if storage.exists(ledger) else set[str]()
    # The text may have moved: then a file of the same name is taken for the one in the ledger.
    names = {storage.base_name(uri) for uri in uris}
    return [file.path for file in new if file.url not in uris and storage.base_name(file.path) not in names]
