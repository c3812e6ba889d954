"""A cache of ranges of remote files on this machine's disk: the second epoch of a store on S3 reads nothing from S3.

Each range that a reader requests becomes a file, named by the remote file's URL and version and by its place:

    <folder>/<key of URL, version>/<first byte>-<bytes>

That suits Parquet files, whose row groups are read again and again. fsspec's own caches do not: their blocks of one
size fetch more than was requested, they have no limit, and each worker on a node fetches the same bytes.
"""

import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator

from infra import storage
from infra.errors import InfrastructureError, UserError
from infra.storage import local, remote

_CHECKS = 64  # of the folder's size, while a process writes as many bytes as the limit allows


class DiskCache:
    """A folder on this machine for ranges of remote files; any number of processes may share it.

    Beyond max_bytes the least recently used ranges are removed. A process checks the total whenever it has written a
    64th of the limit, so each process may exceed the limit by that much. Raises UserError for a folder on another
    machine, InfrastructureError for one that cannot be written.
    """

    def __init__(self, folder: str, *, max_bytes: int) -> None:
        if not storage.is_local(folder):
            raise UserError(f"the disk cache {folder} is on another machine", try_="choose a local folder")
        self.folder, self.max_bytes = storage.absolute(folder), max_bytes
        self._unchecked: int | None = None  # bytes written since the last check
        storage.ensure_writable(self.folder)

    def open_file(self, url: str) -> io.RawIOBase:
        """A remote file, each range of which is fetched once on this machine. Raises as `storage.open_file`."""
        fs, path = storage.filesystem(url)
        with remote.translate_errors("read", url, keep_absent=True):
            version = fs.checksum(path)
        source = remote.open_ranges(fs, path, url)
        size = source.seek(0, io.SEEK_END)
        return _CachedFile(source, size, self, self.folder_of(url, version, size))

    def folder_of(self, *identity: object) -> str:
        """The folder with the ranges of a remote file. identity: its URL, and what changes with its content."""
        return os.path.join(self.folder, hashlib.sha256(repr(identity).encode()).hexdigest()[:32])

    def put(self, path: str, data: bytes) -> None:
        """Publish a range. A full disk is not an error: the cache stops growing, and training goes on."""
        if len(data) > self.max_bytes:
            return
        with contextlib.suppress(InfrastructureError, OSError):
            if self._unchecked is None or self._unchecked + len(data) > self.max_bytes // _CHECKS:
                self._make_room(len(data))
                self._unchecked = 0
            local.write(path, data)
            self._unchecked += len(data)

    def _make_room(self, wanted: int) -> None:
        """Remove the least recently used files until there is room for `wanted` bytes; others may remove some too."""
        found = [(status.st_mtime_ns, status.st_size, path) for path, status in self._files() if status]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total + wanted <= self.max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _files(self) -> Iterator[tuple[str, os.stat_result | None]]:
        return local.walk(self.folder, hidden=True)  # a killed process leaves hidden files


class _CachedFile(io.RawIOBase):
    """A remote file of `size` bytes that reads its ranges through a cache."""

    def __init__(self, source: io.RawIOBase, size: int, cache: DiskCache, folder: str) -> None:
        self._source, self._size, self._cache, self._folder = source, size, cache, folder
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:
        count = max(min(len(buffer), self._size - self._place), 0)
        buffer[:count] = self._range(self._place, count) if count else b""
        self._place += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _range(self, start: int, count: int) -> bytes:
        path = os.path.join(self._folder, f"{start}-{count}")
        if (data := _read_range(path, count)) is not None:
            return data
        with _lock(self._folder):  # workers on a node want the same range at the same time: one of them fetches it
            if (data := _read_range(path, count)) is None:
                data = self._fetch(start, count)
                self._cache.put(path, data)
        return data

    def _fetch(self, start: int, count: int) -> bytes:
        self._source.seek(start)
        data = bytearray()
        while len(data) < count:  # read() raises if the file ends early
            data += self._source.read(count - len(data)) or b""
        return bytes(data)


def _read_range(path: str, count: int) -> bytes | None:
    """The range in this file, which becomes the most recently used; None if it is missing, torn or unreadable."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        data = file.read()
        if len(data) == count:
            os.utime(path)
            return data
    return None


@contextlib.contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Admit one process (and thread) at a time. A killed process releases its lock; on a full disk no lock can be made,
    and every process fetches.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            file = stack.enter_context(open(os.path.join(folder, ".lock"), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
