"""Ranges of remote files kept on this machine's disk, so that the second epoch of a store on S3 reads nothing from S3.

A range that a reader asks for becomes a file, named by the remote file's URL and version and by its place:

    <folder>/<key of URL, version>/<first byte>-<bytes>

That suits Parquet files, of which the same row groups are asked for again. fsspec's own caches do not: their blocks of
one size fetch more than is asked for, they know no limit, and each worker of a node fetches the same bytes.
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

_LOOKS = 64  # at the folder's size, while a process writes as much as the limit allows


class DiskCache:
    """A folder of this machine for ranges of remote files; any number of processes may share it.

    Beyond max_bytes the ranges go that were used least recently. A process looks at the sum after each 64th of the
    limit that it writes, so it may be passed by that much per process. Raises UserError for a folder that cannot be
    used, InfrastructureError for one that cannot be written.
    """

    def __init__(self, folder: str, *, max_bytes: int) -> None:
        if not storage.is_local(folder):
            raise UserError(f"the disk cache {folder} is on another machine", try_="a folder on a disk of this one")
        self.folder, self.max_bytes = storage.absolute(folder), max_bytes
        self._unseen: int | None = None  # bytes written since the last look
        storage.ensure_writable(self.folder)

    def open_file(self, url: str) -> io.RawIOBase:
        """A remote file, of which each range is fetched once on this machine. Raises as `storage.open_file`."""
        fs, path = storage.filesystem(url)
        with remote.told_as("read", url, absent_is_told=False):
            version = fs.checksum(path)
        source = remote.open_ranges(fs, path, url)
        size = source.seek(0, io.SEEK_END)
        return _KeptFile(source, size, self, self.folder_of(url, version, size))

    def folder_of(self, *identity: object) -> str:
        """Where the ranges of a remote file lie. identity: its URL, and what changes with its content."""
        return os.path.join(self.folder, hashlib.sha256(repr(identity).encode()).hexdigest()[:32])

    def keep(self, path: str, data: bytes) -> None:
        """Publish a range. A disk that is full keeps no more of them, which is no reason to end a training."""
        if len(data) > self.max_bytes:
            return
        with contextlib.suppress(InfrastructureError, OSError):
            if self._unseen is None or self._unseen + len(data) > self.max_bytes // _LOOKS:
                self._make_room(len(data))
                self._unseen = 0
            local.write(path, data)
            self._unseen += len(data)

    def _make_room(self, wanted: int) -> None:
        """Remove files, the oldest first, until `wanted` bytes have room; those that other processes removed too."""
        found = [(status.st_mtime_ns, status.st_size, path) for path, status in self._files() if status]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total + wanted <= self.max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _files(self) -> Iterator[tuple[str, os.stat_result | None]]:
        return local.walk(self.folder, hidden=True)  # what a killed process left is hidden


class _KeptFile(io.RawIOBase):
    """A remote file of `size` bytes, of which each range is fetched once on this machine."""

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
        if (data := _kept(path, count)) is not None:
            return data
        with _alone(self._folder):  # workers of a node want the same range at the same time: one fetches it
            if (data := _kept(path, count)) is None:
                data = self._fetch(start, count)
                self._cache.keep(path, data)
        return data

    def _fetch(self, start: int, count: int) -> bytes:
        self._source.seek(start)
        data = bytearray()
        while len(data) < count:  # it raises when the file ends before
            data += self._source.read(count - len(data)) or b""
        return bytes(data)


def _kept(path: str, count: int) -> bytes | None:
    """The range in this file, now the one used last; None where it is not there, not whole, or not readable."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        data = file.read()
        if len(data) == count:
            os.utime(path)
            return data
    return None


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """One process (and thread) at a time; the lock of one that is killed is free. Where the disk is full there is no
    lock, and each of them fetches.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            file = stack.enter_context(open(os.path.join(folder, ".lock"), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
