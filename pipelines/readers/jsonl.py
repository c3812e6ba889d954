"""JSON lines: one object a line, its text in one field. About 100 MB/s per core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.document import Document, Rejected, decode_utf8

SUFFIXES = (".jsonl", ".json", ".ndjson")


@dataclass
class Options:
    field: str = "text"
    """The field that holds the text."""


def splittable(options: Options) -> bool:
    """A line is an object: ranges of lines can be read by different tasks."""
    return True


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document a line. An object without the field is a Rejected that names its fields: files of another kind may
    lie among the shards. `path` is not used.
    """
    for offset, record in objects(stream):
        yield record if isinstance(record, Rejected) else field_document(record, offset, options.field)


def objects(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """(offset, object) for each line; blank lines are skipped, and what is not an object is a Rejected."""
    offset = 0
    for line in stream:
        if not line.isspace():
            yield offset, _object(line, offset)
        offset += len(line)


def field_document(
    record: dict[str, Any], offset: int, field: str, meta: dict[str, Any] | None = None
) -> Document | Rejected:
    """The document of a JSON object's field."""
    if field not in record:
        return Rejected(offset, "missing_field", f"no {field!r}, but {', '.join(sorted(record)) or 'nothing'}"[:200])
    text = record[field]
    if not isinstance(text, str):
        return Rejected(offset, "not_text", f"{field!r}: expected a string, got {type(text).__name__}")
    return Document(text.replace("\r\n", "\n") if "\r" in text else text, offset, meta)


def _object(line: bytes, offset: int) -> dict[str, Any] | Rejected:
    decoded = decode_utf8(line)
    if decoded is None:
        return Rejected(offset, "not_utf8", f"more than 1 % of the characters of {line[:40]!r}... do not decode")
    try:
        value = json.loads(decoded[0])
    except RecursionError:  # its own words depend on the depth of the call
        return Rejected(offset, "malformed_json", f"nested too deeply: {decoded[0][:80]!r}")
    except ValueError as error:
        return Rejected(offset, "malformed_json", f"{error}: {decoded[0][:80]!r}")
    if not isinstance(value, dict):
        return Rejected(offset, "not_an_object", f"expected an object, got {type(value).__name__}")
    return value
