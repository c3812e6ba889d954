"""CSV or TSV with a header row, the text in one column. 60 MB/s per core with quotes, ten times that without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from infra.errors import UserError
from pipelines.csv_records import Record, read_records
from pipelines.document import Document, Rejected, text_document

SUFFIXES = (".csv", ".tsv")

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
    """
    rows = read_records(stream, delimiter=options.delimiter or _delimiter(path), escape=options.escape)
    header = next(rows, None)
    if header is None:
        return
    if rejected := _rejected(header, options):
        yield rejected
        return
    names = header.fields
    if options.field not in names:
        yield Rejected(header.offset, "missing_field", f"no {options.field!r}, but {', '.join(names)}"[:200])
        return
    column = names.index(options.field)
    for row in rows:
        if rejected := _rejected(row, options):
            yield rejected
        elif len(row.fields) != len(names):
            yield Rejected(row.offset, "ragged_row", f"{len(row.fields)} fields, the header has {len(names)}")
        else:
            yield text_document(row.fields[column].encode(errors="surrogateescape"), row.offset)


def _rejected(row: Record, options: Options) -> Rejected | None:
    if row.error:
        hint = _HINT if row.has_escaped_quote and not options.escape else ""
        return Rejected(row.offset, "malformed_csv", f"{row.error}{hint}")
    if any("\0" in field for field in row.fields):
        return Rejected(row.offset, "malformed_csv", "it has NUL characters")
    return None


def _delimiter(path: str) -> str:
    name = path.lower().rpartition("/")[2]
    return "\t" if name.endswith(".tsv") or ".tsv." in name else ","  # .tsv.gz
