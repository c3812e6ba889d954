"""Records of CSV and TSV files, each with its place; a damaged one costs no other.

A stray quote costs its own line: the lines behind it, which it would make part of a field, are read again. So are the
lines of a damaged field of several lines, which may pass for records.

    id,text              read as
    1,good               a record
    2,"stray             this line is lost, the next ones are given back
    3,good               a record
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

_MAX_FIELD = 1 << 28  # characters. Python's default, 131,072, is less than a book; a stray quote must end somewhere
_MAX_REPEATED = 8  # times the bytes of a file


class Record(NamedTuple):
    """A record that is not a blank line."""

    offset: int
    """In bytes."""
    line: int
    """On which it begins, counted from 1."""
    fields: list[str]
    error: str = ""
    """Why its lines are none; "" where they are one."""
    has_escaped_quote: bool = False
    """Whether a backslash stands before a quote in a damaged one."""


def read_records(
    stream: BinaryIO,
    *,
    delimiter: str,
    escape: str | None = None,
    is_quoted: bool = True,
    errors: str = "surrogateescape",
    ends_at_cr: bool = False,
) -> Iterator[Record]:
    """The records of a stream. is_quoted: whether quotes mean anything; errors: what becomes of bytes that are not
    UTF-8, as `bytes.decode` takes it; ends_at_cr: whether a carriage return by itself ends a line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    lines = _Lines(stream, errors, ends_at_cr=ends_at_cr)
    text = _with_plain_escapes(lines, escape, delimiter) if escape else lines
    quoting = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    # strict: without it, an open quote turns the rest of the file into one field.
    reader = csv.reader(text, delimiter=delimiter, escapechar=escape, quoting=quoting, strict=is_quoted)
    while True:
        offset, line = lines.begin_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            has_escaped_quote, lost = lines.has_escaped_quote(), lines.give_back()
            told = f"{error}, {lost} lines" if lost > 1 else str(error)
            yield Record(offset, line, [], told, has_escaped_quote)
            continue
        if fields:
            yield Record(offset, line, fields)


def _with_plain_escapes(lines: Iterable[str], escape: str, delimiter: str) -> Iterator[str]:
    """The lines, in which an escape before anything else stands for itself: Python would drop it, and the new folder
    of C:\\new would be gone.
    """
    escaped = re.compile(rf'{re.escape(escape)}([{re.escape(escape + delimiter)}"\r\n]?)')
    for line in lines:
        yield escaped.sub(lambda match: match[0] if match[1] else escape * 2, line) if escape in line else line


class _Lines:
    """The lines of a stream as text; those of a record can be read again."""

    def __init__(self, stream: BinaryIO, errors: str, *, ends_at_cr: bool):
        self._stream, self._errors, self._ends_at_cr = stream, errors, ends_at_cr
        self._offset = self._repeated = 0
        self._line = 1
        self._record: list[bytes] = []
        self._waiting: deque[bytes] = deque()

    def begin_record(self) -> tuple[int, int]:
        """Where the next line begins, in bytes, and its number."""
        self._record = []
        return self._offset, self._line

    def has_escaped_quote(self) -> bool:
        """Whether a backslash stands before a quote in the record."""
        return any(b'\\"' in line for line in self._record)

    def give_back(self) -> int:
        """Give the record's lines once more, except its first one; returns how many lines are lost."""
        size = sum(map(len, self._record[1:]))
        if self._repeated > _MAX_REPEATED * (self._offset + sum(map(len, self._waiting))):
            return len(self._record)  # every line opens a quote: each would be read with all that follow it
        self._waiting.extendleft(reversed(self._record[1:]))
        self._offset -= size
        self._line -= len(self._record) - 1
        self._repeated += size
        return 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._stream.readline()
        if not line:
            raise StopIteration
        if self._ends_at_cr and b"\r" in line:
            line, *rest = line.splitlines(keepends=True)
            self._waiting.extendleft(reversed(rest))
        self._record.append(line)
        start, self._offset, self._line = self._offset, self._offset + len(line), self._line + 1
        return (line.removeprefix(b"\xef\xbb\xbf") if start == 0 else line).decode(errors=self._errors)
