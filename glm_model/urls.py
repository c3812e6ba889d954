"""Files of a model folder, by local path or fsspec URL: each is written whole or not at all.

Libraries that map files into memory need a path, so remote files are copied to a temporary folder, one at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


def join(url: str, name: str) -> str:
    """The URL of a file in a folder. Raises ValueError where the folder's name is empty, which would mean the root."""
    _check_named(url)
    return f"{str(url).rstrip('/')}/{name}"


def model_folder(url: str) -> str:
    """The folder of a model: the folder itself, or `model` in the folder of a run. What is a file, or cannot be read,
    stays as it is: whoever reads it says what is wrong.
    """
    if not str(url).strip() or str(url).endswith((".json", ".txt", ".model", ".pt", ".bin")):
        return url
    inside = join(url, "model")
    try:
        return inside if not is_file(join(url, "config.json")) and is_file(join(inside, "config.json")) else url
    except (OSError, ValueError):
        return url


def is_file(url: str) -> bool:
    fs, path = _filesystem(url)
    return fs.isfile(path)


def names(url: str) -> list[str]:
    """The names in a folder, sorted. There are none where there is no folder, or the server lists nothing."""
    fs, path = _filesystem(url)
    try:
        entries = fs.ls(path, detail=False, refresh=True)
    except (OSError, NotImplementedError):
        return []
    return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)


def read(url: str) -> bytes:
    """The content of a file. Raises ValueError where there is none."""
    with local_file(url) as path:
        return Path(path).read_bytes()


def read_json(url: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError where there is no such file, or it holds something else."""
    try:
        value = json.loads(read(url))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{url} is not valid JSON ({error}). Copy it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{url}: expected a JSON object, got a {type(value).__name__}. Copy it again")
    return value


@contextlib.contextmanager
def local_file(url: str) -> Iterator[str]:
    """The path of a file on this machine: the file itself, or a copy that is removed at the end of the block. Raises
    ValueError where there is no such file.
    """
    fs, path = _filesystem(url)
    if not fs.isfile(path):
        raise ValueError(f"{url} does not exist. Give a folder written by save_pretrained, or its URL")
    if isinstance(fs, LocalFileSystem):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="glm-model-") as folder:
        copy = os.path.join(folder, "file")
        fs.get_file(path, copy)
        yield copy


@contextlib.contextmanager
def written(url: str) -> Iterator[str]:
    """A path to write to. What is there when the block ends becomes `url`; folders are made as needed."""
    fs, path = _filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        with tempfile.TemporaryDirectory(prefix="glm-model-") as folder:
            copy = os.path.join(folder, "file")
            yield copy
            fs.put_file(copy, path)
        return
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".tmp-{uuid.uuid4().hex}")
    try:
        open(temporary, "xb").close()
        mode = os.stat(temporary).st_mode  # that of the umask: some writers make files that nobody else may read
        yield temporary
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write(url: str, data: bytes) -> None:
    with written(url) as path:
        Path(path).write_bytes(data)


def write_json(url: str, value: dict[str, Any]) -> None:
    write(url, (json.dumps(value, indent=2) + "\n").encode())


def remove(url: str) -> None:
    """Remove a file, if it is there."""
    fs, path = _filesystem(url)
    if fs.isfile(path):
        fs.rm_file(path)


def _check_named(url: str) -> None:
    if not str(url).strip():
        raise ValueError(
            "the place of the model is an empty string. Give a folder, or a URL such as s3://bucket/folder"
        )


def _filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it. Raises ValueError when there is no such file system."""
    _check_named(url)
    if "://" not in str(url):  # fsspec would take a name with "::" for a chain of file systems
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(url))
    try:
        return fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise ValueError(
            f"cannot read or write {url} ({error}). Give a path, or a URL such as file:///folder or s3://bucket/folder"
        ) from error
