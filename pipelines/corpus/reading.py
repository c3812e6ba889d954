"""Open a file, or a range of it, and yield its documents: none is lost without a reason.

Reading streams; a reader may hold one chunk of its file in memory.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from infra import storage
from infra.errors import DataError, UserError
from pipelines import readers
from pipelines.corpus import line_ranges
from pipelines.corpus.decompress import TextStream, codec_of, decompressed
from pipelines.corpus.sources import InputFile, local_place
from pipelines.document import Document, Rejected

_HEAD = 4096


def read_documents(file: InputFile) -> Iterator[Document | Rejected]:
    """Every document of a file, and a Rejected for everything else in it; a whole file yields at least one of them.

    A range behind the first (`start` > 0) may own no line and yield nothing. Offsets are those in the whole file.
    Raises UserError if the recipe is wrong (unknown option, wrong field name), DataError if a local file disappeared
    after it was listed, InfrastructureError if a remote file cannot be read: what it holds is unknown.
    """
    reader = readers.find(file.reader)
    options = readers.cached_options(file.reader, file.options)
    seekable = getattr(reader, "SEEKABLE", False)
    if seekable and (codec := codec_of(file.path)):
        why = f"the reader {file.reader!r} seeks in its file, which {codec} does not allow: decompress it"
        yield Rejected(0, "unreadable", why)
        return
    try:
        stream = storage.open_file(file.url) if seekable else open_input(file)
        with stream:
            yield from _records(reader, options, file, stream)
    except FileNotFoundError as error:
        if file.version and (place := local_place(file.url)):  # a link that leads nowhere has no version
            raise _gone(file, place) from error
        yield Rejected(file.start, "vanished", f"it disappeared after it was listed: {error}")
    except OSError as error:
        yield Rejected(file.start, "unreadable", f"{type(error).__name__}: {error}")


def open_input(file: InputFile) -> TextStream:
    """The decompressed bytes of a file, or of the lines of its range, as a buffered binary stream."""
    raw = storage.open_file(file.url)
    try:
        if _is_range(file):
            origin, chunks = line_ranges.owned_lines(raw, file.start, file.stop)
            return TextStream(chunks, raw.close, origin=origin)
        return TextStream(decompressed(raw, codec_of(file.path)), raw.close)
    except BaseException:
        raw.close()
        raise


def _is_range(file: InputFile) -> bool:
    return file.start > 0 or file.stop is not None


def _gone(file: InputFile, place: str) -> DataError:
    folder = os.path.dirname(place)
    return DataError(
        f"{file.url} disappeared after it was listed",
        why=f"{os.uname().nodename} does not have this file"
        + ("" if os.path.isdir(folder) else f", nor its folder {folder}")
        + ": it was removed, or this machine does not share the folder; its documents would be missing",
        try_="run the same command again, which lists the files again and continues; on several machines, use a folder "
        "that all of them share, or a URL",
    )


def _records(
    reader: ModuleType, options: Any, file: InputFile, stream: io.BufferedReader
) -> Iterator[Document | Rejected]:
    head = _head(file) if _is_range(file) else stream.peek(_HEAD)[:_HEAD]
    if not head:
        if file.start == 0:
            yield Rejected(0, *(_failure(stream) or ("empty_file", "0 bytes")))
        return
    binary = getattr(reader, "BINARY", False) or getattr(reader, "SEEKABLE", False)
    if not binary and (why := _binary(head)):
        if file.start == 0:
            yield Rejected(0, "binary_file", why)
        return
    origin = getattr(stream, "origin", 0)
    empty = True
    for record in _unbroken(reader.read(stream, path=file.path, options=options), stream):
        empty = False
        yield replace(record, offset=origin + record.offset) if origin else record
    if empty and file.start == 0:
        yield Rejected(0, "no_documents", f"the reader {file.reader!r} found nothing in it")


def _unbroken(records: Iterator[Document | Rejected], stream: io.BufferedReader) -> Iterator[Document | Rejected]:
    """The records of a reader; where the file breaks off, a Rejected takes the place of the last one. If the reader
    fails, one follows.
    """
    # One record waits: where an archive breaks off, its last record is cut and must not pass for a document.
    last: Document | Rejected | None = None
    error: tuple[str, str] | None = None
    try:
        for record in records:
            if last is not None:
                yield last
            last = record
    except (UserError, MemoryError):
        raise
    except Exception as exc:  # a user's reader may raise anything; one bad file must not end the job
        error = ("reader_error", f"{type(exc).__name__}: {exc}")
    offset = 0 if last is None else last.offset
    failure = _failure(stream)
    if last is not None and not failure:
        yield last
    if failure or error:
        yield Rejected(offset, *(failure or error or ("", "")))


def _failure(stream: io.BufferedReader) -> tuple[str, str] | None:
    return getattr(stream, "failure", None)


def _head(file: InputFile) -> bytes:
    """The beginning of the whole file, for a range of it: whether it is text is judged by the file's first bytes for
    all of its ranges alike, or its documents would depend on where it was cut. That costs each range a second open.
    """
    with storage.open_file(file.url, block_bytes=_HEAD) as stream:
        return stream.read(_HEAD)


def _binary(head: bytes) -> str | None:
    """Why a file that begins so is not text, or None."""
    if b"\0" in head:
        utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        return "UTF-16 text: convert it to UTF-8" if utf16 else "it has NUL bytes in its first 4 KiB"
    text = head.decode(errors="replace")
    share = text.count("\ufffd") / len(text)
    return f"{share:.0%} of its first 4 KiB is not UTF-8" if share > 0.5 else None
