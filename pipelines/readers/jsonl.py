"""JSON: one object a line, its text in one field. About 100 MB/s per core. Also arrays of objects, and objects that
follow each other in another layout, at half that speed (`_json_values`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.document import Document, Rejected, decode_utf8
from pipelines.readers import _json_values
from pipelines.readers._json_values import Value

SUFFIXES = (".jsonl", ".json", ".ndjson")

_HEAD = 4096
_NAMES = 200  # characters of a message that lists the fields


@dataclass
class Options:
    field: str = "text"
    """The field that holds the text; one inside others by their names with dots, such as doc.text."""


def splittable(options: Options) -> bool:
    """A line is an object: ranges of lines can be read by different tasks."""
    return True


def in_one_piece(head: bytes) -> bool:
    """Whether a file that begins so holds an array, or objects over several lines, or several in its first line."""
    line, line_end, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return line.startswith(b"[")
    text = line.decode(errors="replace").rstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        return bool(line_end) and _json_values.is_cut_off(text, error)
    return text[end:].lstrip(", ").startswith("{")


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document an object. One without the field is a Rejected that names its fields: files of another kind may lie
    among the shards. `path` is not used.
    """
    for offset, record in objects(stream):
        yield record if isinstance(record, Rejected) else field_document(record, offset, options.field)


def objects(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """(offset, object) for each object of a buffered stream; what is not an object is a Rejected."""
    # A range behind the first is one of lines, whatever its first line looks like.
    is_later_range = getattr(stream, "origin", 0) > 0
    if not is_later_range and in_one_piece(stream.peek(_HEAD)[:_HEAD]):  # type: ignore[attr-defined]
        yield from map(_of_value, _json_values.read_values(stream))
        return
    offset = 0
    for line in stream:
        if not line.isspace():
            yield from _of_line(line, offset)
        offset += len(line)


def field_document(
    record: dict[str, Any], offset: int, field: str, meta: dict[str, Any] | None = None
) -> Document | Rejected:
    """The document of a JSON object's field, whose name may have dots."""
    text = record.get(field, _ABSENT)
    if text is _ABSENT and "." in field:
        text = _inner(record, field)
    if text is _ABSENT:
        names = ", ".join(sorted(_names(record))) or "nothing"
        return Rejected(offset, "missing_field", f"no {field!r}, but {names}"[:_NAMES])
    if not isinstance(text, str):
        inside = f", which has {', '.join(sorted(_names({field: text})))}" if isinstance(text, dict) and text else ""
        return Rejected(offset, "not_text", f"{field!r}: expected a string, got {type(text).__name__}{inside}"[:_NAMES])
    return Document(text.replace("\r\n", "\n") if "\r" in text else text, offset, meta)


_ABSENT = object()


def _inner(record: Any, field: str) -> Any:
    for name in field.split("."):
        if not isinstance(record, dict) or name not in record:
            return _ABSENT
        record = record[name]
    return record


def _names(record: dict[str, Any]) -> Iterator[str]:
    """The fields of an object; those of an object within it with its name and a dot before them."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _of_line(line: bytes, offset: int) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """What a line holds: an object, or several with commas or nothing between them, or in an array."""
    decoded = decode_utf8(line)
    if decoded is None:
        yield offset, _undecodable(line, offset)
        return
    try:
        value = json.loads(decoded[0])
    except RecursionError:  # its own words depend on the depth of the call
        yield offset, Rejected(offset, "malformed_json", f"nested too deeply: {decoded[0][:80]!r}")
        return
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            yield offset, Rejected(offset, "malformed_json", f"{error}: {decoded[0][:80]!r}")
            return
        value = [{}]
    if isinstance(value, dict):
        yield offset, value
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for one in _json_values.read_values(io.BytesIO(line)):
            yield _of_value(one._replace(offset=offset + one.offset, is_cut=False))
    else:
        yield offset, Rejected(offset, "not_an_object", f"expected an object, got {type(value).__name__}")


def _of_value(one: Value) -> tuple[int, dict[str, Any] | Rejected]:
    return one.offset, _rejected(one) or _repaired(one)


def _rejected(one: Value) -> Rejected | None:
    if one.error:
        detail = f"{one.error}: {one.text[:80]!r}"
        if one.is_cut:
            return Rejected(one.offset, "truncated_json", detail, None)
        return Rejected(one.offset, "malformed_json", detail)
    if not isinstance(one.value, dict):
        return Rejected(one.offset, "not_an_object", f"expected an object, got {type(one.value).__name__}")
    return None


def _repaired(one: Value) -> dict[str, Any] | Rejected:
    """The object, with what is not UTF-8 in it replaced."""
    if one.text.isascii():
        return one.value
    data = one.text.encode(errors="surrogateescape")
    decoded = decode_utf8(data)
    if decoded is None:
        return _undecodable(data, one.offset)
    return json.loads(decoded[0]) if decoded[1] else one.value


def _undecodable(data: bytes, offset: int) -> Rejected:
    return Rejected(offset, "not_utf8", f"more than 1 % of the characters of {data[:40]!r}... do not decode")
