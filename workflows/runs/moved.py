"""The store of a run, wherever it lies now: it is known by its digest, and its place may have changed.

Run, store and raw text move together or alone. A run that goes on takes the store with the digest that it began with:
that of data.store or data.mix; where the sources lie where they did, the one that it recorded, or the same one moved
with the run or with data.root; else the one that the sources make.
"""

from collections.abc import Iterator

from infra import storage
from infra.errors import UserError
from pipelines.prepare import find_store, open_given, preparation_of
from pipelines.store.format import TokenStore
from workflows.runs.record import RunRecord
from workflows.runs.run import Run, check_store
from workflows.settings.identity import data_places
from workflows.settings.recipe import Recipe


def own_store(run: Run, recipe: Recipe) -> TokenStore | None:
    """The store that a run has begun with; None for a new run, and where the recipe's sources decide.

    What has happened to the corpus since, or to the packages that train its tokenizer, must not change what a run sees.
    Raises DataError when the store that is named is not the one that it began with.
    """
    if run.record.store_digest is None:
        return None
    if recipe.data.store or recipe.data.mix:
        store = open_given(recipe.data)
        check_store(run, store)
        return store
    if _other_places(run, recipe):  # the same text moved, or another text of the same name: what it makes tells
        return None
    return find_again(run.record, run.url, root=recipe.data.root)


def check_finished(run: Run, recipe: Recipe) -> None:
    """Whether a finished run is the one that is meant, where the text that is named lies elsewhere than its own did.

    Raises DataError for another store, and UserError where that cannot be known.
    """
    if recipe.data.store or recipe.data.mix:
        check_store(run, open_given(recipe.data))
    elif _other_places(run, recipe):
        url = find_store(preparation_of(recipe.data, recipe.blanks))
        if url is None:
            raise UserError(
                f"the run {run.name!r} is finished, and was trained on text that lay elsewhere",
                why="; ".join(_other_places(run, recipe)),
                try_="python workflows/prepare.py with the same settings, which tells whether the text is the same; or "
                "choose another --run.name for a run on this text",
            )
        check_store(run, TokenStore.open(url))


def find_again(record: RunRecord, run_url: str, *, root: str | None = None) -> TokenStore | None:
    """The store with the digest that a run recorded: where it lay, or moved with the run or below data.root."""
    for url in dict.fromkeys(_places(record, run_url, root)):
        if storage.exists(storage.join(url, "manifest.json")):
            store = TokenStore.open(url)
            members = [storage.join(member.url, "manifest.json") for member in store.manifest.members]
            if store.digest == record.store_digest and all(map(storage.exists, members)):
                return store
    return None


def _places(record: RunRecord, run_url: str, root: str | None) -> Iterator[str]:
    before = record.store_url
    if before is None:
        return
    yield before
    name = storage.base_name(before)
    for folder in filter(None, (root, storage.join(_above(run_url), "data"))):
        yield storage.join(folder, "stores", name)
        yield storage.join(folder, "mixes", name)
    old, new = record.url or "", run_url
    while (old := _above(old)) and (new := _above(new)):
        if before.startswith(f"{old}/"):
            yield new + before.removeprefix(old)


def _above(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0]


def _other_places(run: Run, recipe: Recipe) -> list[str]:
    """What the recipe names of the data that lies elsewhere than it did when the run began, in words."""
    before, now = data_places(run.record.settings), data_places(Run.of(recipe, run.name).record.settings)
    if not run.record.settings:
        return []
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return [f"{key} was {before.get(key, 'unset')}, is {now.get(key, 'unset')}" for key in keys]
