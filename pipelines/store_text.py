"""The cleaned text that a store was made of, where it is still beside it."""

from dataclasses import dataclass

from infra import storage
from pipelines.corpus.records import Unit, unit_of
from pipelines.names import selection_place
from pipelines.selection.dropped import SelectedText
from pipelines.store.manifest import Manifest


@dataclass(frozen=True)
class StoreText:
    """What a store was made of."""

    units: list[Unit]
    """In the order of the store's, with the documents that a selection leaves out."""
    text: SelectedText

    @property
    def num_bytes(self) -> int:
        return sum(unit.num_bytes for unit in self.units)


def find_text(store_url: str, manifest: Manifest) -> StoreText | None:
    """The text of a store, which lies in <root>/stores; None where a unit, or the list of what is left out, is gone."""
    root = store_url.rstrip("/").rpartition("/")[0].rpartition("/")[0]
    wanted = dict.fromkeys(manifest.text_digests)
    folder = storage.join(root, "text")
    found: dict[str, dict[str, Unit]] = {}
    for info in storage.list_files(folder) if wanted and storage.exists(folder) else []:
        key, _, rest = info.path.partition("/")
        if rest.endswith(".json") and "/" not in rest:
            units = [unit_of(record) for record in storage.read_json(info.url)]
            found.setdefault(key, {}).update({unit.digest: unit for unit in units if unit.digest in wanted})
    for key, by_digest in found.items():
        if by_digest.keys() == wanted.keys():
            units = [by_digest[digest] for digest in manifest.text_digests]
            return _selected(root, storage.join(folder, key), units, manifest)
    return None


def _selected(root: str, url: str, units: list[Unit], manifest: Manifest) -> StoreText | None:
    there = {info.path for info in storage.list_files(url)}
    if not {f"{unit.path}.parquet" for unit in units} <= there:
        return None
    settings = {name: value for name, value in manifest.settings["select"].items() if name != "version"}
    if settings["duplicates"] == "off" and not settings["exclude"] and "evaluation_sets" not in settings:
        return StoreText(units, SelectedText(url, None))
    selection = selection_place(root, units, settings)
    return (
        StoreText(units, SelectedText(url, selection))
        if storage.exists(storage.join(selection, "record.json"))
        else None
    )
