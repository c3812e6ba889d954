"""From the sources of a recipe to a stream of documents: list the files, open them, read them, never lose one silently.

Listing asks the file system once per source. Reading streams; a reader may hold one file's chunk in memory.
"""

from __future__ import annotations

import bz2
import functools
import importlib
import io
import json
import lzma
import pkgutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, BinaryIO, cast

from infra import storage
from infra.config import dataclass_from
from infra.errors import DataError, UserError, nearest
from pipelines import readers
from pipelines.document import Document, Rejected, decode_utf8

__all__ = ["InputFile", "Source", "decode_utf8", "group_inputs", "list_inputs", "open_input", "read_documents"]

_COMPRESSION_RATIO = 3  # of text under gzip -6, to estimate sizes before reading
_CHUNK = 1 << 18
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
    """One file of a source. `path` is below the source's root and part of document ids; `size` in bytes as stored."""

    source_index: int
    source: str
    reader: str
    options: dict[str, Any]
    url: str
    path: str
    size: int
    version: str


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
        reader = reader_module(source.reader)
        reader_options(source.reader, source.options)  # wrong options are refused before anything runs
        own_listing = getattr(reader, "list_inputs", None)
        for found in own_listing(source) if own_listing else _list_files(source, reader, ignored):
            place = (found.url, found.path, found.size or 0, found.version)
            files.append(InputFile(index, name, source.reader, source.options, *place))
    return files


def source_name(source: Source) -> str:
    """The source's name: given, or the last component of its URL, or its reader."""
    return source.name or source.url.rstrip("/").rsplit("/", 1)[-1] or source.reader


def reader_module(name: str) -> ModuleType:
    """The reader of that name: pipelines/readers/<name>.py, or any importable module when the name has a dot."""
    known = sorted(module.name for module in pkgutil.iter_modules(readers.__path__))
    if "." not in name and name not in known:
        raise UserError(
            f"unknown reader {name!r}{nearest(name, known)}",
            why="a reader is a module of pipelines/readers, or a module of your own such as my_package.my_reader",
        )
    try:
        reader = importlib.import_module(name if "." in name else f"pipelines.readers.{name}")
    except ImportError as error:
        raise UserError(f"cannot import the reader {name!r}", why=str(error)) from error
    if not callable(getattr(reader, "read", None)):
        raise UserError(
            f"the reader {name!r} has no function `read`",
            try_="define read(stream, *, path, options) -> Iterator[Document | Rejected] and SUFFIXES",
        )
    return reader


def reader_options(name: str, options: dict[str, Any]) -> Any:
    """The reader's `Options` filled from a recipe's mapping; None for a reader without options."""
    kind = getattr(reader_module(name), "Options", None)
    if kind is not None:
        return dataclass_from(kind, options, where=f"in the options of the reader {name!r}")
    if options:
        raise UserError(f"the reader {name!r} has no options, got {', '.join(sorted(options))}")
    return None


def group_inputs(files: list[InputFile], unit_bytes: int) -> list[list[InputFile]]:
    """Cut the list into units of about `unit_bytes` of text, in order, never across sources; a function of the list."""
    units: list[list[InputFile]] = []
    filled = 0
    for file in files:
        estimate = estimated_bytes(file)
        if not units or units[-1][0].source_index != file.source_index or filled + estimate > unit_bytes:
            units.append([])
            filled = 0
        units[-1].append(file)
        filled += estimate
    return units


def estimated_bytes(file: InputFile) -> int:
    """Bytes of a file once decompressed, guessed from its size and its ending."""
    return file.size * (_COMPRESSION_RATIO if _codec(file.path) else 1)


def read_documents(file: InputFile) -> Iterator[Document | Rejected]:
    """Every document of a file, and a Rejected for everything in it that is none; a file never yields nothing.

    Raises UserError only where the recipe is wrong (unknown option, wrong field name).
    """
    reader = reader_module(file.reader)
    options = _cached_options(file.reader, json.dumps(file.options, sort_keys=True))
    try:
        stream = open_input(file)
    except FileNotFoundError as error:
        yield Rejected(0, "vanished", f"listed, but gone when it was to be read: {error}")
        return
    except OSError as error:
        yield Rejected(0, "unreadable", f"{type(error).__name__}: {error}")
        return
    with stream:
        yield from _records(reader, options, file, stream)


def open_input(file: InputFile) -> _TextBytes:
    """The decompressed bytes of a file as a buffered binary stream."""
    fs, path = storage.filesystem(file.url)
    raw = cast(BinaryIO, fs.open(path, "rb"))
    return _TextBytes(_ChunkStream(_decompressed(raw, _codec(file.path)), raw.close))


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
        readable = [info for info in found if _without_codec(info.path).lower().endswith(suffixes)]
    if not readable:
        kinds = "any file" if suffixes is None else f"files named {', '.join('*' + s for s in suffixes)}"
        raise DataError(
            f"{source.url} holds no file to read",
            why=f"the reader {source.reader!r} reads {kinds}, also compressed ({', '.join(_CODECS)}); "
            f"{len(found)} other files are there",
        )
    if len(readable) < len(found):
        read = {info.path for info in readable}
        ignored(source, [info.path for info in found if info.path not in read])
    return readable


# --- decompression ----------------------------------------------------------------------------------------------------

_CODECS: dict[str, Callable[[], Any] | None] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": None,  # by pyarrow
}


def _codec(path: str) -> str | None:
    return next((suffix for suffix in _CODECS if path.lower().endswith(suffix)), None)


def _without_codec(path: str) -> str:
    suffix = _codec(path)
    return path[: -len(suffix)] if suffix else path


def _decompressed(raw: BinaryIO, codec: str | None) -> Iterator[bytes]:
    if codec is None:
        while chunk := raw.read(_CHUNK):
            yield chunk
    elif codec == ".zst":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    else:
        make = _CODECS[codec]
        assert make is not None
        yield from _members(raw, make)


def _members(raw: BinaryIO, make: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress one member after another (pigz, bgzip and `cat a.gz b.gz` write several)."""
    decompressor = None
    while data := raw.read(_CHUNK):
        while data:
            if decompressor is None or decompressor.eof:
                data = data.lstrip(b"\0")  # padding between and after members
                if not data:
                    break
                decompressor = make()
            yield decompressor.decompress(data)
            data = decompressor.unused_data if decompressor.eof else b""
    if decompressor is not None and not decompressor.eof:
        raise EOFError("the compressed data ends before its end mark")


class _ChunkStream(io.RawIOBase):
    """An iterator of chunks as a raw stream that ends, instead of raising, where the data breaks off.

    What came before the break stays readable; `failure` then holds (reason, detail).
    """

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]):
        self.failure: tuple[str, str] | None = None
        self._chunks, self._close, self._rest = chunks, close, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def readall(self) -> bytes:
        first, self._rest = bytes(self._rest), memoryview(b"")
        return b"".join([first, *iter(self._next, b"")])

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()

    def _next(self) -> bytes:
        try:
            return next((chunk for chunk in self._chunks if chunk), b"")
        except EOFError as error:
            self.failure = ("truncated_archive", str(error))
        except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
            cut_off = "truncated" in str(error).lower()  # pyarrow has no exception type of its own for this
            self.failure = ("truncated_archive" if cut_off else "unreadable", f"{type(error).__name__}: {error}")
        return b""


class _TextBytes(io.BufferedReader):
    def __init__(self, raw: _ChunkStream):
        super().__init__(raw, buffer_size=_CHUNK)

    @property
    def failure(self) -> tuple[str, str] | None:
        return cast(_ChunkStream, self.raw).failure


@functools.lru_cache(maxsize=64)
def _cached_options(reader: str, options: str) -> Any:
    """Strict construction costs 5 ms: too much to repeat for each of 10,000 small files."""
    return reader_options(reader, json.loads(options))


# --- reading ----------------------------------------------------------------------------------------------------------


def _records(reader: ModuleType, options: Any, file: InputFile, stream: _TextBytes) -> Iterator[Document | Rejected]:
    head = stream.peek(_HEAD)[:_HEAD]
    if not head:
        yield Rejected(0, *(stream.failure or ("empty_file", "0 bytes")))
        return
    if not getattr(reader, "BINARY", False) and (why := _binary(head)):
        yield Rejected(0, "binary_file", why)
        return
    # One record is held back: where an archive breaks off, its last record is cut and must not pass for a document.
    held: Document | Rejected | None = None
    error: tuple[str, str] | None = None
    try:
        for record in reader.read(stream, path=file.path, options=options):
            if held is not None:
                yield held
            held = record
    except (UserError, MemoryError):
        raise
    except Exception as exc:  # a user's reader may raise anything; one bad file must not end the job
        error = ("reader_error", f"{type(exc).__name__}: {exc}")
    offset = 0 if held is None else held.offset
    if stream.failure:
        yield Rejected(offset, *stream.failure)
        return
    if held is not None:
        yield held
    if error:
        yield Rejected(offset, *error)
    elif held is None:
        yield Rejected(0, "no_documents", f"the reader {file.reader!r} found nothing in it")


def _binary(head: bytes) -> str | None:
    if b"\0" in head:
        utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        return "UTF-16 text: convert it to UTF-8" if utf16 else "it has NUL bytes in its first 4 KiB"
    text = head.decode(errors="replace")
    share = text.count("\ufffd") / len(text)
    return f"{share:.0%} of its first 4 KiB is not UTF-8" if share > 0.5 else None
