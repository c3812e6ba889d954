"""Open a file, or a range of it, and yield its documents: none is lost without a reason.

Reading streams; a reader may hold one chunk of its file in memory.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from infra import storage
from infra.errors import DataError, UserError
from pipelines import readers
from pipelines.corpus import line_ranges
from pipelines.corpus.decompress import MAX_WINDOW, StoredFile, TextStream, codec_of, text_stream
from pipelines.corpus.sources import HEAD, InputFile, local_place, read_head
from pipelines.document import CUT_OFF, NOT_MALFORMED, Document, Rejected


def read_documents(file: InputFile, *, max_window: int = MAX_WINDOW) -> Iterator[Document | Rejected]:
    """Every document of a file, and a Rejected for everything else in it; a whole file yields at least one of them.

    A range behind the first (`start` > 0) may own no line and yield nothing. Offsets are those in the whole file. What
    is lost is counted in bytes of the file as stored, over all ranges at most its size; a file that breaks off counts
    whole, since nobody knows how much of it is missing. max_window: bytes, as `data.max_window`.
    Raises UserError if the recipe is wrong (unknown option, wrong field name), DataError if a local file disappeared
    after it was listed, InfrastructureError if a remote file cannot be read: what it holds is unknown.
    """
    reader = readers.find(file.reader)
    options = readers.cached_options(file.reader, file.options)
    seekable = getattr(reader, "SEEKABLE", False)
    if seekable and (codec := codec_of(file.path)):
        why = f"the reader {file.reader!r} seeks in its file, which {codec} does not allow: decompress it"
        yield Rejected(0, "unreadable", why, file.size)
        return
    try:
        stream = storage.open_file(file.url) if seekable else open_input(file, max_window=max_window)
        with stream:
            yield from _with_losses(_records(reader, options, file, stream), file, stream)
    except FileNotFoundError as error:
        if file.version and (place := local_place(file.url)):  # a link that leads nowhere has no version
            raise _gone(file, place) from error
        yield Rejected(file.start, "vanished", f"it disappeared after it was listed: {error}", _end(file) - file.start)
    except OSError as error:
        yield Rejected(file.start, "unreadable", f"{type(error).__name__}: {error}", _end(file) - file.start)


def open_input(file: InputFile, *, max_window: int = MAX_WINDOW) -> TextStream:
    """The decompressed bytes of a file, or of the lines of its range, as a buffered binary stream."""
    raw = storage.open_file(file.url)
    try:
        if _is_range(file):
            origin, chunks = line_ranges.owned_lines(raw, file.start, file.stop)
            return TextStream(chunks, StoredFile(raw), origin=origin)
        return text_stream(raw, codec_of(file.path), max_window=max_window)
    except BaseException:
        raw.close()
        raise


def _is_range(file: InputFile) -> bool:
    return file.start > 0 or file.stop is not None


def _end(file: InputFile) -> int:
    """The offset behind the range."""
    return file.size if file.stop is None else min(file.stop, file.size)


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
    # Whether a file is text is judged by its first bytes for all of its ranges alike, or its documents would depend on
    # where it was cut. That costs each range a second open.
    head = read_head(file) if _is_range(file) else stream.peek(HEAD)[:HEAD]
    if not head:
        if file.start == 0:
            failure = _failure(stream)
            yield Rejected(0, *failure, None) if failure else Rejected(0, "empty_file", "0 bytes")
        return
    binary = getattr(reader, "BINARY", False) or getattr(reader, "SEEKABLE", False)
    if not binary and (why := _binary(head)):
        if file.start == 0:
            yield Rejected(0, "binary_file", why, file.size)
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
    is_whole = failure is None or failure[0] == "trailing_bytes"
    if last is not None and is_whole:
        yield last
    if failure and is_whole and isinstance(stream, TextStream):
        offset = stream.stop
    if failure or error:
        yield Rejected(offset, *(failure or error or ("", "")), None)


def _with_losses(
    records: Iterator[Document | Rejected], file: InputFile, stream: io.BufferedReader
) -> Iterator[Document | Rejected]:
    """The records, each malformed one with the bytes that are lost with it: those up to the next record, or all that
    follow where reading ended. In all at most the size of the file.
    """
    left = file.size or sys.maxsize  # some servers do not tell the size
    waiting: Rejected | None = None
    for record in records:
        if waiting is not None:
            lost = min(_stored_bytes(file, stream, record.offset - waiting.offset), left)
            yield replace(waiting, lost=lost)
            waiting, left = None, left - lost
        if isinstance(record, Rejected):
            if record.lost == 0 and record.reason not in NOT_MALFORMED and isinstance(stream, TextStream):
                waiting = record
                continue
            if record.lost is None:
                record = replace(record, lost=min(_rest(file, stream, record), left))
            left -= record.lost or 0
        yield record
    if waiting is not None:
        yield replace(waiting, lost=min(_rest(file, stream, waiting), left))


def _stored_bytes(file: InputFile, stream: io.BufferedReader, num_bytes: int) -> int:
    """Bytes of the file, as stored, that hold so many bytes of its text; of a compressed file by the ratio so far."""
    num_bytes = max(num_bytes, 0)  # a reader may yield its records in another order
    if isinstance(stream, TextStream) and codec_of(file.path):
        return num_bytes * stream.stored.stop // max(stream.stop, 1)
    return num_bytes


def _rest(file: InputFile, stream: io.BufferedReader, record: Rejected) -> int:
    """Bytes of the file, as stored, behind a record with which reading ended."""
    if not isinstance(stream, TextStream):
        return file.size
    size = file.size or stream.stored.stop
    if record.reason in CUT_OFF:
        return size
    if codec_of(file.path):
        return max(size - stream.stored_bytes(record.offset), 0)
    return max(_end(file), stream.stop) - record.offset


def _failure(stream: io.BufferedReader) -> tuple[str, str] | None:
    return getattr(stream, "failure", None)


def _binary(head: bytes) -> str | None:
    """Why a file that begins so is not text, or None."""
    if head.startswith(b"PK\3\4"):
        return "a zip archive: name it by itself, as the url of a source, with a name that ends in .zip"
    if b"\0" in head:
        utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        if head[257:262] == b"ustar":
            return "a tar archive: name it by itself, as the url of a source, with a name that ends in .tar"
        return "UTF-16 text: convert it to UTF-8" if utf16 else "it has NUL bytes in its first 4 KiB"
    text = head.decode(errors="replace")
    share = text.count("\ufffd") / len(text)
    return f"{share:.0%} of its first 4 KiB is not UTF-8" if share > 0.5 else None
