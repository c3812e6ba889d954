"""Which runs read a store: a note in it for each of them, so that it stays under runs whose folders lie elsewhere too.

<store>/used_by/<key>.json      {"run": URL of the run's folder}
"""

import contextlib
import hashlib

from infra import storage
from infra.errors import UserError
from pipelines.store.format import TokenStore

_FOLDER = "used_by"


def note_use(store: TokenStore, run_url: str) -> None:
    """Leave a note of the run in the store, and in the members of a mix.

    A store that cannot be written to gets none: whoever cannot write to it does not remove it either.
    """
    key = hashlib.sha256(run_url.encode()).hexdigest()[:16]
    for url in (store.url, *(member.url for member in store.manifest.members)):
        place = storage.join(url, _FOLDER, f"{key}.json")
        with contextlib.suppress(OSError, UserError):
            if not storage.exists(place):
                storage.write_json(place, {"run": run_url})


def noted_runs(store_url: str) -> list[str]:
    """URLs of the runs that have left a note, ascending; their folders may be gone."""
    folder = storage.join(store_url, _FOLDER)
    if not storage.exists(folder):
        return []
    notes = storage.read_jsons([info.url for info in storage.list_files(folder)])
    return sorted({note["run"] for note in notes})
