"""CSV or TSV with a header row, the text in one column. 60 MB/s per core with quotes, ten times that without."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from infra.errors import UserError
from pipelines.document import Document, Rejected, text_document

SUFFIXES = (".csv", ".tsv")

_MAX_FIELD = 1 << 28  # characters. Python's default, 131,072, is less than a book; a stray quote must end somewhere
_MAX_REPEATED = 8  # times the bytes of a file
_HINT = "; quotes have a backslash before them: options: {escape: '\\'} reads such files"
_NOT_DELIMITERS = '"\r\n\0'


@dataclass
class Options:
    field: str = "text"
    """The column that holds the text."""
    delimiter: str | None = None
    """The character between fields. Default: a tab in files named *.tsv, a comma in others."""
    escape: str | None = None
    """The character that makes a quote, a delimiter, a line end or itself part of a field, such as a backslash in files
    of Spark, Hive and MySQL. Default: none; a quote in a quoted field is written twice.
    """

    def __post_init__(self) -> None:
        if self.escape is not None and (len(self.escape) != 1 or self.escape in _NOT_DELIMITERS):
            raise UserError(
                f"the escape {self.escape!r} cannot escape quotes",
                why="it must be one character, neither a quote nor a line end",
                try_="give one, such as escape: '\\'",
            )
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in _NOT_DELIMITERS):
            raise UserError(
                f"the delimiter {self.delimiter!r} cannot separate fields",
                why="it must be one character, neither a quote nor a line end",
                try_="give one, such as delimiter: ';', or '\\t' in double quotes for a tab",
            )


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document a row; quoted fields may hold line ends.

    A row with more or fewer fields than the header is a Rejected; a header without the field is one for the whole file.
    A stray quote costs its own line: the lines behind it, which it would make part of a field, are read again as rows.
    So are the lines of a damaged field of several lines, which may pass for rows.

        id,text              read as
        1,good               a row
        2,"stray             malformed_csv: this line is lost, the next ones are given back
        3,good               a row
    """
    rows = _rows(stream, options.delimiter or _delimiter(path), options.escape)
    header = next(rows, None)
    if header is None:
        return
    offset, names = header
    if isinstance(names, Rejected):
        yield names
        return
    if options.field not in names:
        yield Rejected(offset, "missing_field", f"no {options.field!r}, but {', '.join(names)}"[:200])
        return
    column = names.index(options.field)
    for offset, row in rows:
        if isinstance(row, Rejected):
            yield row
        elif len(row) != len(names):
            yield Rejected(offset, "ragged_row", f"{len(row)} fields, the header has {len(names)}")
        else:
            yield text_document(row[column].encode(errors="surrogateescape"), offset)


def _delimiter(path: str) -> str:
    name = path.lower().rpartition("/")[2]
    return "\t" if name.endswith(".tsv") or ".tsv." in name else ","  # .tsv.gz


def _rows(stream: BinaryIO, delimiter: str, escape: str | None) -> Iterator[tuple[int, list[str] | Rejected]]:
    """(offset, fields) for each record that is not a blank line."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    lines = _Lines(stream)
    text = _with_plain_escapes(lines, escape, delimiter) if escape else lines
    # strict: without it, an open quote turns the rest of the file into one field.
    reader = csv.reader(text, delimiter=delimiter, escapechar=escape, strict=True)
    while True:
        offset = lines.begin_record()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "" if escape or not lines.has_escaped_quote() else _HINT
            lost = lines.give_back()
            yield offset, Rejected(offset, "malformed_csv", f"{error}{f', {lost} lines' if lost > 1 else ''}{hint}")
            continue
        if any("\0" in field for field in row):
            yield offset, Rejected(offset, "malformed_csv", "it has NUL characters")
        elif row:
            yield offset, row


def _with_plain_escapes(lines: Iterable[str], escape: str, delimiter: str) -> Iterator[str]:
    """The lines, in which an escape before anything else stands for itself: Python would drop it, and the new folder
    of C:\\new would be gone.
    """
    escaped = re.compile(rf'{re.escape(escape)}([{re.escape(escape + delimiter)}"\r\n]?)')
    for line in lines:
        yield escaped.sub(lambda match: match[0] if match[1] else escape * 2, line) if escape in line else line


class _Lines:
    """The lines of a stream as text; those of a record can be read again. Bytes that are not UTF-8 remain visible."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._offset = self._repeated = 0
        self._record: list[bytes] = []
        self._waiting: deque[bytes] = deque()

    def begin_record(self) -> int:
        """Where the next line begins, in bytes."""
        self._record = []
        return self._offset

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
        self._repeated += size
        return 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._stream.readline()
        if not line:
            raise StopIteration
        self._record.append(line)
        start, self._offset = self._offset, self._offset + len(line)
        return (line.removeprefix(b"\xef\xbb\xbf") if start == 0 else line).decode(errors="surrogateescape")
