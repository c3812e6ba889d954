"""JSON lines: one object a line, its text in one field. About 100 MB/s per core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from infra.errors import DataError, nearest
from pipelines.document import Document, Rejected, decode_utf8

SUFFIXES = (".jsonl", ".json", ".ndjson")
# Lines without the field before a file is taken to use another name for it.
_PATIENCE = 100


@dataclass
class Options:
    field: str = "text"
    """The field that holds the text."""


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """A DataError names the fields that exist when a file's objects do not have `options.field`."""
    found = False
    without: list[Rejected] = []
    fields: dict[str, None] = {}
    for offset, record in objects(stream):
        if isinstance(record, Rejected):
            yield record
            continue
        if options.field in record:
            found = True
            yield from without
            without = []
            yield field_document(record[options.field], offset, options.field)
            continue
        fields |= dict.fromkeys(map(str, record))
        without.append(
            Rejected(offset, "missing_field", f"no {options.field!r}, but {', '.join(sorted(record))}"[:200])
        )
        if not found and len(without) >= _PATIENCE:
            raise _wrong_field(path, options.field, fields)
        if found:
            yield without.pop()
    if without:
        raise _wrong_field(path, options.field, fields)


def objects(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """(offset, object) for each line; blank lines are skipped, what is no object is a Rejected."""
    offset = 0
    for line in stream:
        if not line.isspace():
            yield offset, _object(line, offset)
        offset += len(line)


def field_document(text: Any, offset: int, field: str, meta: dict[str, Any] | None = None) -> Document | Rejected:
    """The document of a JSON value."""
    if not isinstance(text, str):
        return Rejected(offset, "not_text", f"{field!r} holds {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, as in "\ud83d": legal JSON, no text
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        meta = {**(meta or {}), "repaired": "utf8"}
    return Document(text.replace("\r\n", "\n") if "\r" in text else text, offset, meta)


def _object(line: bytes, offset: int) -> dict[str, Any] | Rejected:
    decoded = decode_utf8(line)
    if decoded is None:
        return Rejected(offset, "not_utf8", f"more than 1 % of the characters of {line[:40]!r}... do not decode")
    try:
        value = json.loads(decoded[0])
    except (ValueError, RecursionError) as error:
        return Rejected(offset, "malformed_json", f"{error}: {decoded[0][:80]!r}")
    return (
        value
        if isinstance(value, dict)
        else Rejected(offset, "not_an_object", f"{type(value).__name__}, not an object")
    )


def _wrong_field(path: str, field: str, fields: dict[str, None]) -> DataError:
    return DataError(
        f"{path} has no field {field!r}{nearest(field, fields)}",
        why="the reader 'jsonl' takes the text of a document from one field of each line",
        try_="set the source's options.field",
    )
