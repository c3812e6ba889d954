"""Which of some texts, such as those of a task's items, share a run of 50 bytes with the documents of a store.

The rule is that of `contamination`, seen from the other side: there a document is left out, here a text was seen.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from infra import storage
from infra.storage import parquet
from pipelines.corpus.clean import repair
from pipelines.corpus.records import Unit
from pipelines.document import without_surrogates
from pipelines.selection.contamination import check_unit
from pipelines.selection.dropped import SelectedText, drop_files
from pipelines.selection.per_unit import UnitJob, file_of, missing
from pipelines.selection.window_index import WindowIndex, make_index, save_index, windows_of
from pipelines.stages import Runner, run_stage


def index_texts(texts: Iterable[str]) -> tuple[WindowIndex, np.ndarray]:
    """(the index of texts by their numbers, whether each is long enough to be found: bool [N])."""
    hashes, owners, is_long = [np.empty(0, np.uint64)], [np.empty(0, np.int32)], []
    for number, text in enumerate(texts):
        windows = windows_of(repair(without_surrogates(text))[0])  # as documents are
        is_long.append(len(windows) > 0)
        hashes.append(windows)
        owners.append(np.full(len(windows), number, np.int32))
    return make_index(np.concatenate(hashes), np.concatenate(owners)), np.array(is_long, bool)


def find_overlap(index: WindowIndex, units: list[Unit], text: SelectedText, folder: str, runner: Runner) -> np.ndarray:
    """Numbers of the texts that share a run with a document that was selected, ascending. folder: of what is found,
    by index and unit, so that it is found once.
    """
    digest = hashlib.blake2b(index.hashes.tobytes() + index.entries.tobytes(), digest_size=12)
    digest.update("".join(unit.digest for unit in units).encode())
    place = storage.join(folder, digest.hexdigest())
    index_url = storage.join(place, "index.parquet")
    if not storage.exists(index_url):
        save_index(index, index_url)
    text_url = text.url
    run_stage(runner, "overlap", lambda job: _check(text_url, job, index_url), missing(units, place))
    dropped = _dropped(text)
    found, first = [np.empty(0, np.int64)], 0
    for unit in units:
        table = parquet.read_table(file_of(place, unit.path))
        is_kept = ~np.isin(table["row"].to_numpy() + first, dropped)
        found.append(table["entry"].to_numpy()[is_kept])
        first += unit.kept
    return np.unique(np.concatenate(found))


def _check(text_url: str, job: UnitJob, index_url: str) -> int:
    return check_unit(text_url, job, index_url).matches


def _dropped(text: SelectedText) -> np.ndarray:
    """Numbers of the documents that are left out."""
    if text.selection is None:
        return np.empty(0, np.int64)
    parts = [parquet.read_table(url, ["number"])["number"].to_numpy() for url in drop_files(text.selection)]
    return np.concatenate([np.empty(0, np.int64), *parts])
