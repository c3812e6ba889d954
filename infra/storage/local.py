"""Files of this machine, for `infra.storage`: atomic writes, and listings that survive loops and dangling links."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

from infra.errors import DataError


class FileInfo(NamedTuple):
    """A file in a listing: `url` is as `absolute` gives it, `path` is relative to the listed root, `version` changes
    whenever the content may have changed.
    """

    url: str
    path: str
    size: int
    version: str


def absolute(url: str) -> str:
    """The path of a local URL."""
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))


@contextlib.contextmanager
def written(path: str) -> Iterator[str]:
    """A path to write to. What is there when the block ends becomes `path`, whole and durable; nothing if it raises.
    Folders are made as needed.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".tmp-{uuid.uuid4().hex}")
    try:
        open(temporary, "xb").close()
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync(folder)  # the rename itself must survive a power cut: a manifest says that what it names is complete


def write(path: str, data: bytes) -> None:
    """Write the whole file or nothing, durable when this returns; folders are made as needed."""
    with written(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def sync(path: str) -> None:
    """Wait until a file's bytes, or a folder's names, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_files(path: str) -> list[FileInfo] | None:
    """The file itself, the visible files below a folder, or the matches of a glob; None if there is nothing."""
    if os.path.isdir(path):
        return [_info(file, os.path.relpath(file, path), status) for file, status in walk(path, hidden=False)]
    if os.path.lexists(path):
        return [_info(path, os.path.basename(path), _status(path))]
    root, pattern = split_glob(path, os.path.lexists)
    files = [(file, _status(file)) for file in expand(path)] if pattern else []
    return [_info(file, below(file, root), status) for file, status in files if _is_listed(status)] or None


def expand(path: str) -> list[str]:
    """What a path means: itself if it is there, else the matches of the glob that it is, ascending."""
    import glob

    if os.path.lexists(path):
        return [path]
    root, pattern = split_glob(path, os.path.lexists)
    return sorted(glob.glob(glob.escape(root) + pattern, recursive=True)) if pattern else []


def split_glob(path: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """(folder, the pattern below it with its slash) of a glob; no pattern if it is none. A name that is there as it is
    written is that name, whatever wildcards are in it: /texts [v2]/*.txt are the files of the folder `texts [v2]`.
    """
    parts = path.split("/")
    for number, part in enumerate(parts):
        if is_glob(part) and not exists("/".join(parts[: number + 1])):
            root = "/".join(parts[:number])
            return root, path.removeprefix(root)
    return path, ""


def walk(root: str, *, hidden: bool, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, os.stat_result | None]]:
    """Regular files below `root` with their status (None for dangling links); links to a parent are not followed."""
    real = os.path.realpath(root)
    if real in inside:
        return
    try:
        names = sorted(os.listdir(root))
    except OSError as exc:
        raise DataError(f"cannot list {root}", why=exc.strerror, try_="check its permissions") from None
    for name in names:
        path = os.path.join(root, name)
        status = _status(path)
        if name.startswith(".") and not hidden:
            continue
        if status and stat.S_ISDIR(status.st_mode):
            yield from walk(path, hidden=hidden, inside=(*inside, real))
        elif _is_listed(status):
            yield path, status


def is_glob(path: str) -> bool:
    return any(character in path for character in "*?[")


def below(path: str, root: str) -> str:
    """The path relative to the root."""
    return path.removeprefix(root.rstrip("/")).lstrip("/")


def _info(path: str, below: str, status: os.stat_result | None) -> FileInfo:
    size, version = (status.st_size, str(status.st_mtime_ns)) if status else (0, "")
    return FileInfo(path, below.replace(os.sep, "/"), size, version)


def _is_listed(status: os.stat_result | None) -> bool:
    return status is None or stat.S_ISREG(status.st_mode)  # a pipe or socket would block its reader


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
