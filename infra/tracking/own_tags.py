"""Texts that we keep in tags of MLflow, such as descriptions, until a person changes or deletes them.

A tag of its own holds a digest of each text as it was written last: a text that is something else by now, or gone, is a
person's, and stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

NOTE = "mlflow.note.content"
"""Description of an experiment or a run, in Markdown."""
# The UI hides tags that begin with `mlflow.`.
_WRITTEN = "mlflow.glm.written"


def due(tags: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    """The tags to write so that an experiment or run with these tags has these texts: without those that it has, and
    those that are a person's.
    """
    written = _written(tags)
    changed = {key: text for key, text in texts.items() if text != tags.get(key) and _is_ours(tags, key, written)}
    if not changed:
        return {}
    return {**changed, _WRITTEN: json.dumps(written | {key: _digest(text) for key, text in changed.items()})}


def _is_ours(tags: Mapping[str, str], key: str, written: Mapping[str, str]) -> bool:
    if key not in written:
        return key not in tags
    return key in tags and _digest(tags[key]) == written[key]


def _written(tags: Mapping[str, str]) -> dict[str, str]:
    return json.loads(tags.get(_WRITTEN, "{}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
