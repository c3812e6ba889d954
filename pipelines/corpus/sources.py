"""From the sources of a recipe to a stream of documents: list the files, open them, read them, never lose one silently.

Listing asks the file system once per source. Reading streams; a reader may hold one file's chunk in memory.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from infra import storage
from infra.errors import DataError, UserError
from pipelines import readers
from pipelines.corpus import line_ranges
from pipelines.corpus.decompress import CODECS, TextStream, codec_of, decompressed, without_codec
from pipelines.document import Document, Rejected, decode_utf8, without_surrogates

__all__ = [
    "InputFile",
    "Source",
    "decode_utf8",
    "group_inputs",
    "list_inputs",
    "local_places",
    "open_input",
    "read_documents",
]

_COMPRESSION_RATIO = 3  # of text under gzip -6, to estimate sizes before reading
_HEAD = 4096


@dataclass
class Source:
    """Where documents come from."""

    reader: str
    """How to read it: a module of pipelines/readers, or an importable module of your own with a dot in its name."""
    url: str = ""
    """File, folder or glob: a local path, file://, s3://, gs://, https://. Files may be .gz, .bz2, .zst or .xz."""
    name: str | None = None
    """Part of every document's identity. Default: the last component of the URL, else the reader's name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the reader."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source, or a range of a large one: the lines that begin at a byte in [start, stop).

    `path` is below the source's root and part of document ids; `size` in bytes as stored; stop None: to the end.
    """

    source_index: int
    source: str
    reader: str
    options: dict[str, Any]
    url: str
    path: str
    size: int
    version: str
    start: int = 0
    stop: int | None = None


def list_inputs(
    sources: list[Source], *, ignored: Callable[[Source, list[str]], None] = lambda source, paths: None
) -> list[InputFile]:
    """All files of all sources, in the order of the sources, then of paths.

    ignored(source, paths) hears of the files of a folder whose names its reader does not read.
    """
    names = [source_name(source) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two sources are named {twice[0]!r}",
            why="the name is part of every document's identity, so their documents could not be told apart",
            try_="give one of them another `name`",
        )
    files: list[InputFile] = []
    for index, (name, source) in enumerate(zip(names, sources, strict=True)):
        reader = readers.find(source.reader)
        readers.options(source.reader, source.options)  # wrong options are refused before anything runs
        own_listing = getattr(reader, "list_inputs", None)
        for found in own_listing(source) if own_listing else _list_files(source, reader, ignored):
            place = (found.url, found.path, found.size or 0, found.version)
            files.append(InputFile(index, name, source.reader, source.options, *place))
    return files


def local_places(sources: list[Source]) -> dict[int, list[str]]:
    """Index of a source -> a few of the files of this machine that it is read from: the first, the last, one between.

    Nothing of a source on another machine, which is not listed either. Raises as `list_inputs`.
    """
    found: dict[int, list[str]] = {}
    for index, source in enumerate(sources):
        if not source.url or _local_place(source.url):
            places = [_local_place(file.url) for file in list_inputs([source]) if file.version]
            if there := [place for place in places if place]:
                found[index] = sorted({there[0], there[len(there) // 2], there[-1]})
    return found


def source_name(source: Source) -> str:
    """The source's name: given, or the last component of its URL, or its reader."""
    return without_surrogates(source.name or source.url.rstrip("/").rsplit("/", 1)[-1] or source.reader)


def group_inputs(files: list[InputFile], unit_bytes: int) -> list[list[InputFile]]:
    """Cut the list into units of about `unit_bytes` of text, in order, never across sources; a function of the list.

    A large file of lines becomes several units, a range of it each, if its reader is `splittable`.
    """
    units: list[list[InputFile]] = []
    filled = 0
    for file in files:
        cut = _cut(file, unit_bytes)
        if len(cut) > 1:
            units += [[part] for part in cut]
            filled = unit_bytes
            continue
        estimate = estimated_bytes(file)
        if not units or units[-1][0].source_index != file.source_index or filled + estimate > unit_bytes:
            units.append([])
            filled = 0
        units[-1].append(file)
        filled += estimate
    return units


def estimated_bytes(file: InputFile) -> int:
    """Bytes of a file, or of its range, once decompressed: guessed from its size and its ending."""
    stored = (file.size if file.stop is None else file.stop) - file.start
    return stored * (_COMPRESSION_RATIO if codec_of(file.path) else 1)


def read_documents(file: InputFile) -> Iterator[Document | Rejected]:
    """Every document of a file, and a Rejected for everything in it that is none; a file never yields nothing.

    Only a range behind the first (`start` > 0) may own no line. Offsets are those in the whole file. Raises UserError
    where the recipe is wrong (unknown option, wrong field name), DataError where a local file is gone that was there
    when it was listed, InfrastructureError where a file of another machine cannot be had: what it holds is not known
    then.
    """
    reader = readers.find(file.reader)
    options = readers.cached_options(file.reader, file.options)
    seekable = getattr(reader, "SEEKABLE", False)
    if seekable and (codec := codec_of(file.path)):
        why = f"the reader {file.reader!r} goes to and fro in its file, which {codec} does not allow: decompress it"
        yield Rejected(0, "unreadable", why)
        return
    try:
        stream = storage.open_file(file.url) if seekable else open_input(file)
        with stream:
            yield from _records(reader, options, file, stream)
    except FileNotFoundError as error:
        if file.version and (place := _local_place(file.url)):  # a link that led nowhere has none
            raise _gone(file, place) from error
        yield Rejected(file.start, "vanished", f"listed, but gone when it was to be read: {error}")
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


# --- listing ----------------------------------------------------------------------------------------------------------


def _list_files(
    source: Source, reader: ModuleType, ignored: Callable[[Source, list[str]], None]
) -> list[storage.FileInfo]:
    if not source.url:
        raise UserError(
            f"the source with reader {source.reader!r} has no url", try_="set url to a file, folder or glob"
        )
    found = storage.list_files(source.url)
    suffixes: tuple[str, ...] | None = reader.SUFFIXES
    named_itself = len(found) == 1 and found[0].url == storage.absolute(source.url)
    if suffixes is None or named_itself:
        readable = found
    else:
        readable = [info for info in found if without_codec(info.path).lower().endswith(suffixes)]
    if not readable:
        kinds = "any file" if suffixes is None else f"files named {', '.join('*' + s for s in suffixes)}"
        raise DataError(
            f"{source.url} holds no file to read",
            why=f"the reader {source.reader!r} reads {kinds}, also compressed ({', '.join(CODECS)}); "
            f"{len(found)} other files are there",
        )
    if len(readable) < len(found):
        read = {info.path for info in readable}
        ignored(source, [info.path for info in found if info.path not in read])
    return readable


def _cut(file: InputFile, unit_bytes: int) -> list[InputFile]:
    """A large file of lines as ranges of about unit_bytes, any other as it is."""
    parts = line_ranges.bounds(file.size, unit_bytes)
    splittable = getattr(readers.find(file.reader), "splittable", None) if len(parts) > 1 else None
    if codec_of(file.path) or splittable is None or not splittable(readers.options(file.reader, file.options)):
        return [file]
    return [replace(file, start=start, stop=stop) for start, stop in parts]


def _is_range(file: InputFile) -> bool:
    return file.start > 0 or file.stop is not None


def _local_place(url: str) -> str | None:
    """The path of the file, or archive, of this machine that a URL is read from; None where it is on another."""
    outer = url.rpartition("::")[2]  # zip://<path>::/my/archive.zip
    return storage.absolute(outer) if storage.is_local(outer) else None


# --- reading ----------------------------------------------------------------------------------------------------------


def _gone(file: InputFile, place: str) -> DataError:
    folder = os.path.dirname(place)
    return DataError(
        f"{file.url} was listed, and is gone where it is to be read",
        why=f"there is no such file on {os.uname().nodename}"
        + ("" if os.path.isdir(folder) else f", nor is its folder {folder}")
        + ": it was removed since, or this machine does not share the folder; its documents would be missing",
        try_="the same command lists the files anew and goes on; on several machines, a folder that all of them share, "
        "or a URL",
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
    found = False
    for record in _unbroken(reader.read(stream, path=file.path, options=options), stream):
        found = True
        yield replace(record, offset=origin + record.offset) if origin else record
    if not found and file.start == 0:
        yield Rejected(0, "no_documents", f"the reader {file.reader!r} found nothing in it")


def _unbroken(records: Iterator[Document | Rejected], stream: io.BufferedReader) -> Iterator[Document | Rejected]:
    """The records of a reader; a Rejected in place of the last where the file breaks off, or where the reader fails."""
    # One record is held back: where an archive breaks off, its last record is cut and must not pass for a document.
    held: Document | Rejected | None = None
    error: tuple[str, str] | None = None
    try:
        for record in records:
            if held is not None:
                yield held
            held = record
    except (UserError, MemoryError):
        raise
    except Exception as exc:  # a user's reader may raise anything; one bad file must not end the job
        error = ("reader_error", f"{type(exc).__name__}: {exc}")
    offset = 0 if held is None else held.offset
    failure = _failure(stream)
    if held is not None and not failure:
        yield held
    if failure or error:
        yield Rejected(offset, *(failure or error or ("", "")))


def _failure(stream: io.BufferedReader) -> tuple[str, str] | None:
    return getattr(stream, "failure", None)


def _head(file: InputFile) -> bytes:
    """Of the whole file, whose encoding is judged once: its documents must not depend on where it was cut."""
    with storage.open_file(file.url, block_bytes=_HEAD) as stream:
        return stream.read(_HEAD)


def _binary(head: bytes) -> str | None:
    if b"\0" in head:
        utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        return "UTF-16 text: convert it to UTF-8" if utf16 else "it has NUL bytes in its first 4 KiB"
    text = head.decode(errors="replace")
    share = text.count("\ufffd") / len(text)
    return f"{share:.0%} of its first 4 KiB is not UTF-8" if share > 0.5 else None
