"""Wikipedia as WikiExtractor writes it: <doc id= ...> blocks, or its JSON lines. Over 100 MB/s per core.

The title stays as the first line of the text. In the blocks WikiExtractor writes &amp; &lt; &gt; &quot; for & < > ";
they are turned back. Which attributes a header has, and in which order, depends on its version and options: `revid`
with --revisions, `language` and `revision` from its script for CirrusSearch dumps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from pipelines.document import Document, Rejected, text_document
from pipelines.readers import jsonl

SUFFIXES = None  # WikiExtractor names its files wiki_00, wiki_01, ...

_READ_BYTES = 1 << 24
_USUAL_HEADER = re.compile(r'<doc id="([^"\n]*)" url="([^"\n]*)" title="([^"\n]*)">')
_HEADER = re.compile(r"<doc( [^\n]*)>")
# Titles may hold quotes: a value ends where another attribute begins.
_ATTRIBUTE = re.compile(r' +([\w:-]+)="(.*?)"(?= +[\w:-]+="| *\Z)', re.ASCII)
_JSON_META = ("id", "revid", "url", "title")


def read(stream: BinaryIO, *, path: str, options: None = None) -> Iterator[Document | Rejected]:
    """One Document a block, or a line of JSON; `meta` holds the header's attributes. `path` is not used."""
    start = stream.peek(1)  # type: ignore[attr-defined]
    if start[:64].lstrip().startswith(b"{"):
        yield from _json_lines(stream)
    else:
        yield from _blocks(stream, b"\r\n" if start.partition(b"\n")[0].endswith(b"\r") else b"\n")


def _blocks(stream: BinaryIO, line_end: bytes) -> Iterator[Document | Rejected]:
    end = line_end + b"</doc>"
    offset = 0
    rest = b""
    while chunk := stream.read(_READ_BYTES):
        *blocks, rest = (rest + chunk).split(end + line_end)
        for block in blocks:
            yield from _block(block, offset)
            offset += len(block) + len(end + line_end)
    if rest.endswith(end):  # the last line of a file may lack its line end
        yield from _block(rest.removesuffix(end), offset)
    elif offset == 0 and b"<doc " not in rest:
        yield Rejected(0, "no_header", "no <doc id=...> in it: the reader 'text' reads articles without headers")
    elif rest.strip():
        yield Rejected(offset, "unterminated_block", f"no </doc> after {rest[:80]!r}")


def _block(block: bytes, offset: int) -> Iterable[Document | Rejected]:
    record = _regular(block, offset)
    return _irregular(block, offset) if record is None else (record,)


def _regular(block: bytes, offset: int) -> Document | Rejected | None:
    """The record of a block that begins with a header, else None."""
    header_end = block.find(b"\n")
    meta = _meta(block[:header_end]) if header_end > 0 else None
    if meta is None:
        return None
    record = text_document(block[header_end + 1 :].strip(b"\r\n"), offset, meta)
    return _unescaped(record) if b"&" in block else record


def _irregular(block: bytes, offset: int) -> Iterator[Document | Rejected]:
    """The records of a block that does not begin with a header: one may stand further down."""
    begin = block.find(b"<doc ")
    if begin > 0:
        if block[:begin].strip():
            yield Rejected(offset, "outside_document", f"{block[:80]!r} is in no <doc> block")
        yield from _block(block[begin:], offset + begin)
    elif begin == 0 and b"\n" not in block and (meta := _meta(block)):
        yield Document("", offset, meta)
    else:
        yield Rejected(offset, "bad_header", f"not <doc id=... url=... title=...>: {block[:80]!r}")


def _meta(line: bytes) -> dict[str, str] | None:
    """The attributes of a header; None for a line that is none, or has no id."""
    text = line.rstrip(b"\r").decode(errors="replace")
    if usual := _USUAL_HEADER.fullmatch(text):
        return {"id": usual[1], "url": usual[2], "title": usual[3]}
    header = _HEADER.fullmatch(text)
    attributes = dict(_ATTRIBUTE.findall(header[1])) if header else {}
    return attributes if "id" in attributes else None


def _unescaped(record: Document | Rejected) -> Document | Rejected:
    if isinstance(record, Rejected):
        return record
    meta = {name: _unescape(value) for name, value in (record.meta or {}).items()}
    return Document(_unescape(record.text), record.offset, meta)


def _unescape(text: str) -> str:
    # Not html.unescape: it would also turn "?a=1&para=2" into "?a=1¶=2".
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


def _json_lines(stream: BinaryIO) -> Iterator[Document | Rejected]:
    for offset, record in jsonl.objects(stream):
        if isinstance(record, Rejected):
            yield record
        else:
            meta = {name: str(record[name]) for name in _JSON_META if name in record}
            yield jsonl.field_document(record, offset, "text", meta)
