"""Rows of a table with named fields: CSV, TSV, JSON lines, Parquet or pair files, at any URL, compressed or not.

Reading streams; a damaged row is one `BadRow` and costs no other.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec
from pipelines.csv_records import read_records
from pipelines.document import without_surrogates
from pipelines.questions.pair_files import SOURCE, read_pairs

KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    SOURCE: "pairs",
}
SHOWN = 5  # rows that a message names
_NO_FIELD = re.compile(r": no field '([^']+)'")
_OTHER_LABEL = re.compile("the label '.*' is not one of the task's")
_NAMED = ("text", "second", "source")  # columns for which there is a setting of the same name


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file."""

    url: str
    line: int
    """Counted from 1: the line on which it begins; of Parquet, the number of the row."""
    fields: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.url}:{self.line}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, or is not an item of its task, and why."""

    url: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        return f"{self.url}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def check_bad(
    bad: Sequence[str], total: int, *, limit: float, of: str, setting: str = "task.max_bad", count: int | None = None
) -> None:
    """Raises DataError where more than this share of the rows cannot be asked, with the first of them.

    bad: place and reason of each, or of the first more than `SHOWN` of `count`; of: what the rows are of, in words;
    setting: the one that limits them.
    """
    count = len(bad) if count is None else count
    if count <= limit * total:
        return
    raise DataError(
        f"{count:,} of {total:,} rows of {of} cannot be asked",
        why="\n".join(bad[:SHOWN]) + ("\n..." if len(bad) > SHOWN else ""),
        try_=_remedy(bad[0], count / total, setting),
    )


def _remedy(reason: str, share: float, setting: str) -> str:
    """What to try about rows that cannot be asked. reason: why the first one cannot be; share: how many they are."""
    if share < 1:
        word = ", give this label a word in task.words" if _OTHER_LABEL.search(reason) else ""
        return f"mend them{word}, or allow more: --{setting}={min(1.0, share + 0.005):.2f}"
    lacking = _NO_FIELD.search(reason)
    if lacking is None:
        return "mend them, or give another file"
    if lacking[1] in _NAMED:
        return f"--{setting.removesuffix('max_bad')}{lacking[1]}=<the column that holds it>"
    return "give a table with this column, or change the setting or the pattern that names it"


def kind_of(url: str) -> str | None:
    """csv, tsv, jsonl, parquet or pairs by the name of a file; None for others."""
    name = without_codec(url).lower()
    return next((kind for suffix, kind in KINDS.items() if name.endswith(suffix)), None)


def read_rows(url: str, *, columns: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """The rows of a file. columns: their names, of a CSV or TSV file without a header.

    Fields of TSV are not quoted; those of CSV may be. Values that are not text become it: true, 3, 0.5; what is missing
    or null is "". Raises DataError for a file of another kind and for one that breaks off.
    """
    kind = kind_of(url)
    if kind is None:
        raise DataError(
            f"{url} is not a table that can be read",
            why=f"its name ends in none of {', '.join(KINDS)}, with or without .gz, .bz2, .xz or .zst",
            try_="rename or convert it",
        )
    if kind == "parquet":
        yield from _parquet(url)
        return
    if kind == "pairs":
        yield from (Row(url, line, fields) for line, fields in read_pairs(url))
        return
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        yield from _jsonl(url, stream) if kind == "jsonl" else _csv(url, stream, kind == "tsv", columns)
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")


def _csv(url: str, stream: BinaryIO, is_tsv: bool, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    # Tab-separated files of the field (GLUE's among them) hold bare quotes, which quoting would join lines over.
    how = {"delimiter": "\t" if is_tsv else ",", "is_quoted": not is_tsv}
    names = list(columns)
    for _, line, values, error, _ in read_records(stream, errors="replace", ends_at_cr=True, **how):
        if error:
            yield BadRow(url, line, f"malformed CSV: {error}")
        elif not names:
            names = values
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{url} has two columns named {repeated[0]!r}", try_="rename one of them")
        elif len(values) != len(names):
            yield BadRow(url, line, f"{len(values)} fields instead of {len(names)} ({', '.join(names)})")
        else:
            yield Row(url, line, dict(zip(names, values, strict=True)))


def _jsonl(url: str, stream: BinaryIO) -> Iterator[Row | BadRow]:
    for line, data in enumerate(stream, start=1):
        if data.isspace():
            continue
        try:
            value = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            yield BadRow(url, line, f"malformed JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(url, line, {name: as_text(field) for name, field in value.items()})
        else:
            yield BadRow(url, line, f"expected a JSON object, got {type(value).__name__}")


def parquet_batches(url: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, at most so many at a time. Raises DataError for a damaged file."""
    try:
        with storage.open_file(url) as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            yield from file.iter_batches(rows, use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:  # a damaged page is an OSError
        raise DataError(f"cannot read {url}: {error}", try_="write or copy it again") from error


def rows_of_batch(url: str, batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    """first: the number of the first row in its file."""
    for number, fields in enumerate(batch.to_pylist(), start=first):
        yield Row(url, number, {name: as_text(field) for name, field in fields.items()})


def _parquet(url: str) -> Iterator[Row]:
    first = 1
    for batch in parquet_batches(url, 1024):
        yield from rows_of_batch(url, batch, first)
        first += len(batch)


def as_text(value: Any) -> str:
    """A value of JSON or Parquet as the text of a field; null and NaN are empty."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with nulls, as pandas writes it
        return str(int(value))
    if isinstance(value, dict | list):
        return without_surrogates(json.dumps(value, ensure_ascii=False, default=str))
    return str(value)
