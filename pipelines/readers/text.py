"""Plain text: one document per file, line or paragraph (blank lines are between paragraphs), cut at separators."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from infra.errors import UserError
from pipelines.document import Document, Rejected, text_document

_READ_BYTES = 1 << 20

SUFFIXES = (".txt", ".text", ".md")


@dataclass
class Options:
    per: Literal["file", "line", "paragraph"] = "file"
    """What makes one document. Blank lines are not documents."""
    separator: str | None = None
    """What stands between documents and belongs to none of them, such as <|endoftext|>."""

    def __post_init__(self) -> None:
        if self.separator is not None and not self.separator.strip("\r"):
            raise UserError(
                "the separator is empty", try_="give what stands between the documents: separator: '<|endoftext|>'"
            )


def splittable(options: Options) -> bool:
    """Whether ranges of lines can be read by different tasks: not where a document, or what separates two, may have
    several lines.
    """
    return options.per == "line" and "\n" not in (options.separator or "")


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document per file, line or paragraph, or per part of it between separators. `path` is not used."""
    if options.separator is not None:
        for start, part in _parts(stream, options.separator):
            yield from _documents(part, start, options.per)
    elif options.per == "file":
        yield text_document(stream.read(), 0)
    else:
        yield from _blocks(stream, 0, options.per)


def _parts(stream: BinaryIO, separator: str) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what stands between separators, whose line ends may be LF or CRLF. Holds one part."""
    pattern = re.compile(rb"\r?\n".join(re.escape(line.encode()) for line in separator.split("\n")))
    longest = len(separator.encode()) + separator.count("\n")
    offset, rest = 0, bytearray()
    while chunk := stream.read(_READ_BYTES):
        looked = max(len(rest) - longest, 0)
        rest += chunk
        start = 0
        for begin, end in [match.span() for match in pattern.finditer(rest, looked)]:
            yield offset + start, bytes(rest[start:begin])
            start = end
        del rest[:start]
        offset += start
    yield offset, bytes(rest)


def _documents(part: bytes, start: int, per: str) -> Iterator[Document | Rejected]:
    """The documents of what stands between two separators; blank parts have none."""
    if per != "file":
        yield from _blocks(io.BytesIO(part), start, per)
    elif not part.isspace() and part:
        text = part.lstrip(b"\r\n")
        yield text_document(text.rstrip(b"\r\n"), start + len(part) - len(text))


def _blocks(stream: BinaryIO, start: int, per: str) -> Iterator[Document | Rejected]:
    for offset, block in _lines(stream) if per == "line" else _paragraphs(stream):
        yield text_document(block, start + offset)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for line in stream:
        if not line.isspace():
            yield offset, line.rstrip(b"\r\n")
        offset += len(line)


def _paragraphs(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    block: list[bytes] = []
    start = offset = 0
    for line in stream:
        if line.isspace():
            if block:
                yield start, b"".join(block).rstrip(b"\r\n")
            block = []
        else:
            start = start if block else offset
            block.append(line)
        offset += len(line)
    if block:
        yield start, b"".join(block).rstrip(b"\r\n")
