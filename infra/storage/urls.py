"""Files under one notion of URL: a local path, file://, s3://, gs://, https:// or memory://, by way of fsspec.

Writes are atomic: a local file is replaced by rename after fsync, a remote one is a single put. Reading a local file
raises Python's own errors (FileNotFoundError, ...), for callers to judge; reading any other is retried, and then raises
InfrastructureError (`infra.storage.remote`).
"""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from infra.errors import DataError, InfrastructureError, UserError, nearest, nearest_path
from infra.storage import archives, remote
from infra.storage import local as local_files
from infra.storage.local import FileInfo as FileInfo

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_READERS = 16  # threads
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "http", "https", "abfs", "az"}


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of `url` and the path in it. Cheap to repeat: fsspec keeps one instance per protocol."""
    import fsspec

    if is_local(url):
        return fsspec.filesystem("file"), local_files.absolute(url)
    protocol = url.split("://")[0]
    inner, chain, outer = url.partition("::")
    if chain:
        return _archive(protocol, outer, _version_of(outer)), inner.partition("://")[2]
    try:
        return fsspec.url_to_fs(url, **remote.driver_options(protocol))
    except ImportError as exc:
        extra = _EXTRAS.get(protocol)
        try_ = (
            f"pip install -c constraints.txt -e '.[{extra}]'   # in the checkout"
            if extra
            else "install the package that the reason names"
        )
        raise InfrastructureError(f"no driver for {protocol}:// ({url})", why=str(exc), try_=try_) from None
    except ValueError as exc:
        if protocol in fsspec.available_protocols():
            raise UserError(f"{url} is not a valid {protocol}:// URL", why=str(exc)) from None
        known = nearest(protocol, ["file", "s3", "gs", "https", "memory"])
        raise UserError(f"unknown protocol {protocol!r} in the URL {url}{known}") from None


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def absolute(url: str) -> str:
    """A local path made absolute, `~` expanded, without `file://`; other URLs unchanged."""
    return local_files.absolute(url) if is_local(url) else url


def join(url: str, *parts: str) -> str:
    base = url if url.endswith("://") else url.rstrip("/") + "/"
    return base + "/".join(part.strip("/") for part in parts) if parts else url


def base_name(url: str) -> str:
    """The last part of a path or URL."""
    return url.rstrip("/").rpartition("/")[2]


def exists(url: str) -> bool:
    if is_local(url):
        return os.path.exists(local_files.absolute(url))
    fs, path = filesystem(url)
    try:
        with remote.translate_errors("read", url, keep_absent=True):
            fs.info(path)  # fs.exists takes every error to mean no
    except FileNotFoundError:
        return False
    return True


def matches(url: str) -> list[str]:
    """The local paths that match a glob, ascending; `url` itself if it is there, or if there is no match."""
    if not is_local(url) or os.path.lexists(path := local_files.absolute(url)):
        return [url]
    return local_files.expand(path) or [url]


def newest(url: str) -> str:
    """The local path matching a glob that changed last; `url` itself if it is there, or if there is no match."""
    found = matches(url)
    return found[0] if len(found) == 1 else max(found, key=os.path.getmtime)


def open_file(url: str, *, block_bytes: int | None = None) -> io.BufferedReader:
    """The file as a seekable stream of bytes; one that is not local is fetched block_bytes at a time.

    Raises OSError for a local file; for others FileNotFoundError, and InfrastructureError for everything else.
    """
    if is_local(url):
        return open(local_files.absolute(url), "rb")
    fs, path = filesystem(url)
    return remote.open_remote(fs, path, url, block_bytes=block_bytes)


def read_bytes(url: str) -> bytes:
    if is_local(url):
        with open(local_files.absolute(url), "rb") as file:
            return file.read()
    fs, path = filesystem(url)
    with remote.translate_errors("read", url, keep_absent=True):
        return remote.retry(lambda: cast(bytes, fs.cat_file(path)))


def read_json(url: str) -> Any:
    try:
        return json.loads(read_bytes(url))
    except ValueError as exc:
        raise DataError(f"{url} is not valid JSON", why=str(exc)) from None


def read_jsons(urls: list[str]) -> list[Any]:
    """The values in many small files, read several at a time: each may take a round trip."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_json, urls))


def write_bytes(url: str, data: bytes) -> None:
    """Whole or not at all; folders are made as needed."""
    with remote.translate_errors("write", url):
        if is_local(url):
            local_files.write(local_files.absolute(url), data)
            return
        fs, path = filesystem(url)
        _make_parent(fs, url, path)
        fs.pipe_file(path, bytes(data))  # some drivers do not take pyarrow's buffers


@contextlib.contextmanager
def written(url: str) -> Iterator[str]:
    """The path of a file to write to. What it holds when the block ends becomes `url`, whole; nothing if the block
    raises. For what is too large for `write_bytes`. A driver's own `open(url, "wb")` publishes what was written before
    an error, as if it were all: no other place in the project opens files for writing.
    """
    if is_local(url):
        with local_files.written(local_files.absolute(url)) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="glm-write-") as folder:
        copy = os.path.join(folder, "file")
        yield copy
        with remote.translate_errors("write", url):
            fs, path = filesystem(url)
            _make_parent(fs, url, path)
            fs.put_file(copy, path)


def write_json(url: str, value: Any) -> None:
    write_bytes(url, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def list_files(url: str) -> list[FileInfo]:
    """Files at `url`, sorted by path, or as they stand in a tar: the file itself, all files below a directory, or the
    matches of a glob.

    Paths are relative to the directory, or to the part of a glob before its first wildcard. Hidden files and folders
    are left out. Symbolic links are followed, but not in circles; a dangling link is listed with size 0, so that a
    reader can report it. Raises DataError if there is nothing at `url`, InfrastructureError if that cannot be known.
    """
    if is_local(url):
        found = local_files.list_files(local_files.absolute(url))
    else:
        try:
            with remote.translate_errors("read", url):
                found = _list_remote(url)
        except remote.Damaged as exc:
            raise DataError(
                f"the files of {url.rpartition('::')[2]} cannot be listed", why=str(exc), try_="replace this archive"
            ) from exc
    if found is None:
        is_glob = local_files.is_glob(url)
        raise DataError(
            f"no file matches {url}" if is_glob else f"{url} does not exist", try_=None if is_glob else spelling(url)
        )
    return found if url.startswith("tar://") else sorted(found, key=lambda info: info.path)


def spelling(url: str) -> str:
    """What to try where there is nothing at `url`: the name beside it that is most like its own."""
    if not is_local(url):
        return "check the spelling"
    close = nearest_path(local_files.absolute(url))
    return f"give {close}" if close else "check the spelling; relative paths start at the current directory"


def is_archive(url: str) -> bool:
    """Whether the name is that of a zip or tar, and not of a file in one."""
    return (is_local(url) or "::" not in url) and archives.protocol_of(url) is not None


def list_archive(url: str) -> list[FileInfo]:
    """The files in the zip or tar at `url`. Raises as `list_files`."""
    return list_files(f"{archives.protocol_of(url)}://::{absolute(url)}")


def remove_tree(url: str) -> None:
    """Remove a file, or a directory with everything in it; it may be missing."""
    fs, path = filesystem(url)
    with remote.translate_errors("remove", url), contextlib.suppress(FileNotFoundError):
        # Most drivers take a path with wildcards for a glob here, whatever is there.
        fs.rm(path if is_local(url) else glob.escape(path), recursive=True)


def upload_dir(local: str, url: str) -> None:
    """Copy the files below `local` to `url`, several at a time. Not atomic: publish a manifest afterwards."""
    names = [os.path.relpath(path, local) for path, _ in local_files.walk(local, hidden=True)]
    with remote.translate_errors("write", url):
        fs, root = filesystem(url)
        targets = [join(root, *name.split(os.sep)) for name in names]
        if is_local(url):
            for parent in {os.path.dirname(path) for path in targets}:
                os.makedirs(parent, exist_ok=True)
        else:
            for path in targets:
                _make_parent(fs, url, path)
        # With lists on both sides fsspec takes names literally, wildcard characters included.
        fs.put([os.path.join(local, name) for name in names], targets)


def download_dir(url: str, local: str) -> None:
    """Copy the files below `url` to the directory `local`."""
    fs, root = filesystem(url)
    with remote.translate_errors("read", url):
        paths = [path for path, _ in local_files.walk(root, hidden=True)] if is_local(url) else sorted(fs.find(root))
    if not paths:
        raise DataError(f"{url} holds no files")
    targets = [os.path.join(local, *local_files.below(path, root).split("/")) for path in paths]
    for parent in {os.path.dirname(path) for path in targets}:
        os.makedirs(parent, exist_ok=True)
    with remote.translate_errors("read", url):
        remote.retry(lambda: fs.get(paths, targets))


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """A folder on this machine with the files below `url`: the folder itself if it is local, else a temporary copy."""
    if is_local(url):
        yield local_files.absolute(url)
        return
    with tempfile.TemporaryDirectory(prefix="glm-copy-") as folder:
        download_dir(url, folder)
        yield folder


def ensure_writable(url: str) -> None:
    """Write and remove a small file below `url`. Raises InfrastructureError if that fails."""
    probe = join(url, f".write-test-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    with remote.translate_errors("write", url):
        fs, path = filesystem(probe)
        fs.rm_file(path)


def _make_parent(fs: AbstractFileSystem, url: str, path: str) -> None:
    if url.split("://")[0] not in _WITHOUT_FOLDERS:
        fs.makedirs(fs._parent(path), exist_ok=True)


def _list_remote(url: str) -> list[FileInfo] | None:
    fs, path = filesystem(url)
    entries: Any
    if fs.isfile(path):
        entries, root = {path: fs.info(path)}, fs._parent(path)
    elif found := fs.find(path, detail=True):
        entries, root = found, path
    elif (split := local_files.split_glob(path, fs.exists))[1]:
        entries, root = fs.glob(glob.escape(split[0]) + split[1], detail=True), split[0]
        if not entries and "::" in url:  # the names in a tar that was made of `.` begin with it
            entries = fs.glob(f"./{path}", detail=True)
    else:
        return [] if fs.isdir(path) else None
    # Files in fsspec's chained URLs (zip://*.txt::s3://bucket/texts.zip) have the version of the archive.
    _, chain, outer = url.partition("::")
    archive_version = _version_of(outer) if chain else ""
    infos = [
        FileInfo(
            fs.unstrip_protocol(name) + chain + outer,
            local_files.below(name.removeprefix("./"), root),
            int(entries[name].get("size") or 0),
            _version(entries[name]) or archive_version,
        )
        for name in archives.in_order(fs, list(entries))
        if entries[name].get("type") != "directory"
    ]
    return [i for i in infos if not any(part.startswith(".") for part in i.path.split("/"))] or None


def _version_of(url: str) -> str:
    fs, path = filesystem(url)
    return _version(fs.info(path))


@functools.lru_cache(maxsize=2)
def _archive(protocol: str, outer: str, version: str) -> AbstractFileSystem:
    """The files in an archive. Reading its directory again for each of them takes 25 ms in one of 2,000 files.
    version: part of the key, so that a changed archive is read again.
    """
    return archives.open_archive(protocol, open_file(outer), outer)


def _version(info: dict[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "crc32c", "generation", "mtime", "LastModified", "updated", "created")
    return next((str(info[name]).strip('"') for name in names if info.get(name)), "")
