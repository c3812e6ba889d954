"""`task.json` in the folder of a fine-tuned model: what it was taught to answer, and how it is asked.

Labels, their order and their words decide what an answer means, so the file has a checksum: where someone changed one
of them, every answer would be taken for another.
"""

import hashlib
import json
from typing import Any

from infra import storage
from infra.errors import UserError

_FILE, _CHECKSUM = "task.json", "checksum"


def write_taught(taught: dict[str, Any], model_url: str) -> None:
    storage.write_json(storage.join(model_url, _FILE), {**taught, _CHECKSUM: _checksum(taught)})


def read_taught(model_url: str) -> dict[str, Any]:
    """What a model was taught; empty where it was not fine-tuned. Raises UserError for a file that was changed."""
    place = storage.join(model_url, _FILE)
    if not storage.exists(place):
        return {}
    taught = storage.read_json(place)
    if taught.pop(_CHECKSUM, None) not in (None, _checksum(taught)):
        raise UserError(
            f"{place} was changed after finetune.py wrote it",
            why="it says what the answers of the model mean: with other labels or words they would be taken for others",
            try_="bring the file back as it was; a model for other labels is another fine-tuning",
        )
    return taught


def _checksum(taught: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(taught, sort_keys=True).encode()).hexdigest()
