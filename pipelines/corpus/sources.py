"""From the sources of a recipe to the list of files, and to the groups of them that one task reads.

Listing asks the file system once per source.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from infra import storage
from infra.errors import DataError, UserError
from pipelines import readers
from pipelines.corpus import line_ranges
from pipelines.corpus.decompress import CODECS, codec_of, without_codec
from pipelines.document import without_surrogates

HEAD = 4096
"""Bytes by which it is judged what kind of file one is."""

_COMPRESSION_RATIO = 3  # of text under gzip -6, to estimate sizes before reading


@dataclass
class Source:
    """Where documents come from."""

    reader: str
    """How to read it: a module of pipelines/readers, or an importable module of your own with a dot in its name."""
    url: str = ""
    """File, folder or glob: a local path, file://, s3://, gs://, https://. Files may be .gz, .bz2, .zst or .xz; a zip
    or tar, or a glob that ends as their names do, means the files inside.
    """
    name: str | None = None
    """Part of every document's identity. Default: the last component of the URL, else the reader's name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the reader, such as {field: body}."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source, or a range of a large one: the lines that begin at a byte in [start, stop)."""

    source_index: int
    source: str
    """The source's name."""
    reader: str
    options: dict[str, Any]
    url: str
    path: str
    """Below the source's root; part of document ids."""
    size: int
    """Bytes as stored; of a link that leads nowhere, the mean of its source's files."""
    version: str
    """Changes when the file does; empty for a link that leads nowhere."""
    start: int = 0
    stop: int | None = None
    """None: to the end."""


@dataclass(frozen=True)
class Inputs:
    """What the sources of a recipe hold, listed once for all that follows."""

    files: list[InputFile]
    """In the order of the sources, then of paths."""
    ignored: list[tuple[Source, list[str]]]
    """Sources that are folders, with the paths that their readers do not read because of the names."""


def list_inputs(sources: list[Source]) -> list[InputFile]:
    """The files of all sources, in the order of the sources, then of paths. Raises as `list_sources`."""
    return list_sources(sources).files


def list_sources(sources: list[Source]) -> Inputs:
    """List all sources. Raises UserError for names, readers and options that are wrong, DataError for a source without
    a file to read.
    """
    names = [source_name(source) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two sources are named {twice[0]!r}",
            why="the name is part of every document's identity, so their documents could not be told apart",
            try_="give one of them another `name`",
        )
    inputs = Inputs([], [])
    for index, (name, source) in enumerate(zip(names, sources, strict=True)):
        reader = readers.find(source.reader)
        readers.options(source.reader, source.options)  # wrong options are refused before anything runs
        own_listing = getattr(reader, "list_inputs", None)
        found, ignored = (own_listing(source), []) if own_listing else _list_files(source, reader)
        if ignored:
            inputs.ignored.append((source, ignored))
        sizes = [info.size for info in found if info.size]
        for info in found:
            # The size of what a link that leads nowhere stood for is not known: taken to be that of the other files.
            size = info.size or (0 if info.version else sum(sizes) // max(len(sizes), 1))
            place = (info.url, info.path, size, info.version)
            inputs.files.append(InputFile(index, name, source.reader, source.options, *place))
    return inputs


def read_head(file: InputFile) -> bytes:
    """The first 4 KiB of a file, or of the whole file that a range is cut from. Raises OSError."""
    with storage.open_file(file.url, block_bytes=HEAD) as stream:
        return stream.read(HEAD)


def local_places(files: list[InputFile]) -> dict[int, list[str]]:
    """Index of a source -> a few of the files of this machine that it is read from: the first, the last, one between.

    Nothing of a source on another machine.
    """
    by_source: dict[int, list[str]] = {}
    for file in files:
        if file.version and (place := local_place(file.url)):  # a link that leads nowhere has no version
            by_source.setdefault(file.source_index, []).append(place)
    return {index: sorted({places[0], places[len(places) // 2], places[-1]}) for index, places in by_source.items()}


def local_place(url: str) -> str | None:
    """The path of the file, or archive, of this machine that a URL is read from; None where it is on another."""
    outer = url if storage.is_local(url) else url.rpartition("::")[2]  # zip://<path>::/my/archive.zip
    return storage.absolute(outer) if storage.is_local(outer) else None


def source_name(source: Source) -> str:
    """The source's name: given, or the last component of its URL, or its reader."""
    return without_surrogates(source.name or source.url.rstrip("/").rsplit("/", 1)[-1] or source.reader)


def group_inputs(files: list[InputFile], unit_bytes: int) -> list[list[InputFile]]:
    """Cut the list into groups of about `unit_bytes` of text, in order, never across sources; a function of the list.

    A large file of lines becomes several groups, a range of it each, if its reader is `splittable`.
    """
    groups: list[list[InputFile]] = []
    filled = 0
    for file in files:
        cut = _cut(file, unit_bytes)
        if len(cut) > 1:
            groups += [[part] for part in cut]
            filled = unit_bytes
            continue
        estimate = estimated_bytes(file)
        if not groups or groups[-1][0].source_index != file.source_index or filled + estimate > unit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += estimate
    return groups


def estimated_bytes(file: InputFile) -> int:
    """Bytes of a file, or of its range, once decompressed: guessed from its size and its ending."""
    stored = (file.size if file.stop is None else file.stop) - file.start
    return stored * (_COMPRESSION_RATIO if codec_of(file.path) else 1)


# --- listing ----------------------------------------------------------------------------------------------------------


def _list_files(source: Source, reader: ModuleType) -> tuple[list[storage.FileInfo], list[str]]:
    """The files of a source that its reader reads, and the paths of the others."""
    if not source.url:
        raise UserError(
            f"the source with reader {source.reader!r} has no url", try_="set url to a file, folder or glob"
        )
    found = _unpacked(storage.list_files(source.url), source, reader)
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
    read = {info.path for info in readable}
    return readable, [info.path for info in found if info.path not in read]


def _unpacked(found: list[storage.FileInfo], source: Source, reader: ModuleType) -> list[storage.FileInfo]:
    """The files inside an archive that the source names, or inside those that its glob names. One that only lies in the
    source's folder stays a file: what is in it may lie beside it.
    """
    if not storage.is_archive(source.url) or source.url.lower().endswith(reader.SUFFIXES or ("\0",)):
        return found
    (root, *more) = found
    if not more and root.url == storage.absolute(source.url):
        return storage.list_archive(root.url)
    members = [(info, storage.list_archive(info.url)) for info in found if storage.is_archive(info.url)]
    return [file._replace(path=f"{info.path}/{file.path}") for info, files in members for file in files]


def _cut(file: InputFile, unit_bytes: int) -> list[InputFile]:
    """A large file of lines as ranges of about unit_bytes, any other file as it is."""
    parts = line_ranges.bounds(file.size, unit_bytes)
    if len(parts) > 1 and not codec_of(file.path) and _is_splittable(file):
        return [replace(file, start=start, stop=stop) for start, stop in parts]
    return [file]


def _is_splittable(file: InputFile) -> bool:
    reader = readers.find(file.reader)
    splittable, in_one_piece = getattr(reader, "splittable", None), getattr(reader, "in_one_piece", None)
    if splittable is None or not splittable(readers.options(file.reader, file.options)):
        return False
    try:
        return in_one_piece is None or not in_one_piece(read_head(file))
    except OSError:  # it is reported when it is read
        return True
