"""Plain text: one document per file, line, or paragraph (paragraphs are separated by blank lines)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pipelines.document import Document, Rejected, text_document

SUFFIXES = (".txt", ".text", ".md")


@dataclass
class Options:
    per: Literal["file", "line", "paragraph"] = "file"
    """What makes one document. Blank lines are not documents."""


def splittable(options: Options) -> bool:
    """Whether ranges of lines can be read by different tasks: not where a document may have several lines."""
    return options.per == "line"


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document per file, line or paragraph. `path` is not used."""
    if options.per == "file":
        yield text_document(stream.read(), 0)
        return
    blocks = _lines(stream) if options.per == "line" else _paragraphs(stream)
    for offset, block in blocks:
        yield text_document(block, offset)


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
