"""The rows that are predicted, in the order of the input's files, a shard at a time, with their columns."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from infra import storage
from infra.errors import DataError
from pipelines.questions.rows import BadRow, Row, kind_of, parquet_batches, read_rows, rows_of_batch


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a file, which become one file of the output."""

    rows: list[Row | BadRow]
    values: pa.RecordBatch | None = None
    """The same rows as Parquet has them, with their types."""
    types: dict[str, pa.DataType] = field(default_factory=dict)
    """Column -> type. Fields of CSV, TSV and JSON lines are text."""

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """The values of a column, null where a row does not have it. kind: its type in the output."""
        own = self.types.get(name, pa.null())
        if pa.types.is_null(own):
            return nulls(len(self.rows), kind)
        if self.values is not None and own == kind:
            return self.values.column(name)
        texts = [row.fields.get(name) if isinstance(row, Row) else None for row in self.rows]
        return pa.array(texts, kind)

    @property
    def digest(self) -> str:
        """Hex sha256 of the content."""
        told = (row.fields if isinstance(row, Row) else [row.place, row.reason] for row in self.rows)
        content = self.values.to_pylist() if self.values is not None else list(told)
        return hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()


def nulls(count: int, kind: pa.DataType) -> pa.Array:
    """What stands for nothing. pyarrow 25 writes a null that is a list of fixed size, but cannot read it: such a list
    has null elements instead.
    """
    if not pa.types.is_fixed_size_list(kind):
        return pa.nulls(count, kind)
    return pa.FixedSizeListArray.from_arrays(nulls(count * kind.list_size, kind.value_type), kind.list_size)


def find_tables(url: str) -> list[str]:
    """The files that are read, in the order of their names. Raises DataError where there are none."""
    files = storage.list_files(url)
    found = [info.url for info in files if kind_of(info.url)]
    if not found:
        have = ", ".join(info.path for info in files[:5]) or "nothing"
        raise DataError(
            f"{url} holds no table",
            why=f"it has {have}; a table is .csv, .tsv, .jsonl or .parquet, also compressed",
            try_="rename or convert the files",
        )
    return found


def read_shards(url: str, rows: int, *, columns: Sequence[str] = ()) -> Iterator[Shard]:
    """The rows of a file, at most so many at a time. columns: as for `read_rows`, which says what is raised."""
    if kind_of(url) != "parquet":
        source = read_rows(url, columns=columns)
        while part := list(itertools.islice(source, rows)):
            names = dict.fromkeys(name for row in part if isinstance(row, Row) for name in row.fields)
            yield Shard(part, types=dict.fromkeys(names, pa.string()))
        return
    first = 1
    for batch in parquet_batches(url, rows):
        types = {column.name: column.type for column in batch.schema}
        if len(types) < len(batch.schema):
            raise DataError(f"{url} has two columns of one name", try_="rename one of them")
        yield Shard(list(rows_of_batch(url, batch, first)), batch, types)
        first += len(batch)


def merge_types(one: Mapping[str, pa.DataType], other: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Column -> type for both, in the order in which they come; text where their types differ."""
    merged = dict(one)
    for name, kind in other.items():
        before = merged.get(name, pa.null())
        if pa.types.is_null(before):
            merged[name] = kind
        elif kind != before and not pa.types.is_null(kind):
            merged[name] = pa.string()
    return merged
