"""Readers: the bytes of one file to documents. A reader is a module found by its name, with

    read(stream, *, path, options) -> Iterator[Document | Rejected]
        stream: buffered binary, decompressed; path: below the source's root; options: an `Options`, or None
    SUFFIXES: tuple[str, ...] | None     endings of the files of a folder that it reads; None: all of them

and, where it needs them,

    Options                              a dataclass of its settings
    BINARY = True                        its files are not text
    SEEKABLE = True                      it seeks in its file, which must not be compressed
    splittable(options) -> bool          whether a large file may be cut at line ends and read as ranges
    in_one_piece(head) -> bool           whether a file with these first bytes may not, in spite of that
    VERSION                              an integer that grows when it makes other documents of the same file
    list_inputs(source)                  its own list of files, for a reader that needs no URL
    count(stream)                        the number of records, if a file says it, for estimates from a sample
"""

import functools
import json
import sys
from types import ModuleType
from typing import Any

from infra.config import dataclass_from
from infra.errors import UserError
from pipelines import plugins

_CONTRACT = {
    "read": "read(stream, *, path, options) -> Iterator[Document | Rejected]",
    "SUFFIXES": 'SUFFIXES = (".txt",), or None for all files',
}


def find(name: str) -> ModuleType:
    """The reader's module. Raises UserError, which names the nearest one, if there is none of this name."""
    return plugins.find_module("reader", name, sys.modules[__name__], required=_CONTRACT)


def options(name: str, given: dict[str, Any]) -> Any:
    """The reader's `Options` filled from a recipe's mapping; None for a reader without options. Raises UserError."""
    kind = getattr(find(name), "Options", None)
    if kind is not None:
        return dataclass_from(kind, given, where=f"in the options of the reader {name!r}")
    if given:
        raise UserError(f"the reader {name!r} has no options, got {', '.join(sorted(given))}")
    return None


def cached_options(name: str, given: dict[str, Any]) -> Any:
    """As `options`, checked once per process: that takes 0.2 ms, and a task may read thousands of small files."""
    return _cached(name, json.dumps(given, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _cached(name: str, given: str) -> Any:
    # As JSON, since a cache looks for its arguments by their hashes, which dictionaries do not have.
    return options(name, json.loads(given))
