"""The token store: fixed-width rows of whole segments in Parquet shards; a manifest, published last, describes them.

A row's tokens are one binary value of little-endian uint16 (uint32 past 65,536 tokens), so a row group decodes without
a copy: about ten times the rate of `list<int32>` at the same size. A store without its manifest does not exist.

    <store>/manifest.json               what it holds, how it was made, digests; readers trust nothing else
            tokenizer.json
            train/shard-00000.parquet        rows: tokens, starts, ids, num_bytes
            validation/..., test/...
            documents/train-shard-00000.parquet   every document: id, source, path, offset, characters, num_bytes,
                                             tokens, pieces (how many segments it was cut into)
            work/train-shard-00000.json      record of a finished shard, from which preparation continues
            ledger.parquet                   every dropped document: id, source, uri, offset, reason
            plans/<key>/...                  blanks drawn in advance (`pipelines.feed.stored_blanks`)
            used_by/<key>.json               a note of each run that reads it (`pipelines.store.usage`)
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import commands, storage
from infra.errors import DataError
from infra.storage import parquet
from infra.storage.disk_cache import DiskCache
from pipelines.ragged import RowBatch, Segments, take
from pipelines.store.manifest import Manifest

FORMAT = 2
SPLITS = ("train", "validation", "test")
_SHOWN_SOURCES = 3  # in the name of a store
_ROW_SCHEMA = pa.schema(
    [
        ("tokens", pa.large_binary()),
        ("starts", pa.large_binary()),  # int32: first token of each segment in the row
        ("ids", pa.large_binary()),  # uint64: identity of each segment
        ("num_bytes", pa.large_binary()),  # int32: UTF-8 bytes of each segment's text
    ]
)


class Part(NamedTuple):
    """A store of a mix: its row groups, which are consecutive, and its share of the rows of a run."""

    groups: int
    weight: float


@dataclass(frozen=True)
class Shard:
    """A shard of a split. The fields are those of the manifest."""

    path: str
    """Below the store."""
    groups: tuple[int, ...]
    """Rows of each row group."""
    segments: int
    tokens: int
    num_bytes: int
    """Bytes of the segments' text in UTF-8."""
    expected_fill: float
    """Share of the rows' positions that is used once they are laid out, as packing expects it."""
    digest: str
    """Covers the decoded content, not the file's bytes."""
    store: str | None = None
    """URL of the store that has it, in a mix of stores."""

    @property
    def rows(self) -> int:
        return sum(self.groups)


def token_dtype(vocab_size: int) -> np.dtype:
    """The type of stored ids: two bytes where that suffices, else four."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def write_shard(
    url: str,
    segments: Segments,
    rows: list[np.ndarray],
    *,
    dtype: np.dtype,
    rows_per_group: int,
    expected_fill: float,
    path: str,
) -> Shard:
    """Write rows (arrays of segment indices) as one shard, atomically; returns its entry for the manifest.

    segments    [0: a b c] [1: d] [2: e f]      offsets  0 3 4 6
    row [2, 0]  tokens  e f a b c   starts  0 2         ids  id2 id0
    row [1]     tokens  d           starts  0           ids  id1
    """
    tokens = segments.tokens.astype(dtype, copy=False)
    columns: dict[str, list[bytes]] = {name: [] for name in _ROW_SCHEMA.names}
    for row in rows:
        of_row, offsets = take(tokens, segments.offsets, row)
        starts, num_bytes = offsets[:-1].astype("<i4"), segments.num_bytes[row].astype("<i4")
        values = (of_row, starts, segments.ids[row].astype("<u8"), num_bytes)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value.tobytes())
    table = pa.table(columns, schema=_ROW_SCHEMA)
    parquet.write_table(url, table, rows_per_group=rows_per_group, compression="lz4")
    groups = tuple(min(rows_per_group, len(rows) - first) for first in range(0, len(rows), rows_per_group))
    return Shard(
        path=path,
        groups=groups,
        segments=len(segments.ids),
        tokens=len(tokens),
        num_bytes=int(segments.num_bytes.sum()),
        expected_fill=expected_fill,
        digest=_digest(columns.values()),
    )


def verify_shard(url: str, digest: str) -> str | None:
    """Compare the content of a shard with its digest in the manifest: what is wrong with it, or None."""
    content = hashlib.blake2b(digest_size=16)
    try:
        with storage.open_file(url) as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=_ROW_SCHEMA.names)
                _update(content, (column.to_pylist() for column in table.columns))
    except (OSError, pa.ArrowException) as error:
        return f"{type(error).__name__}: {error}"
    return None if content.hexdigest() == digest else f"its content has digest {content.hexdigest()}, not {digest}"


def _digest(columns: Iterable[list[bytes]]) -> str:
    content = hashlib.blake2b(digest_size=16)
    _update(content, columns)
    return content.hexdigest()


def _update(content: "hashlib.blake2b", columns: Iterable[list[bytes]]) -> None:
    """Add the columns' values row by row, so that row groups do not matter."""
    for row in zip(*columns, strict=True):
        for data in row:
            content.update(len(data).to_bytes(8, "little"))
            content.update(data)


def read_rows(table: pa.Table, dtype: np.dtype) -> RowBatch:
    """Decode a table of rows: no copy of the tokens."""
    tokens, token_ends = parquet.decode_binary(table["tokens"], dtype)
    starts, segment_ends = parquet.decode_binary(table["starts"], np.dtype("<i4"))
    ids, _ = parquet.decode_binary(table["ids"], np.dtype("<u8"))
    num_bytes, _ = parquet.decode_binary(table["num_bytes"], np.dtype("<i4"))
    per_row = np.diff(segment_ends)
    offsets = np.append(starts + np.repeat(token_ends[:-1], per_row), token_ends[-1])
    return RowBatch(tokens, offsets.astype(np.int64), ids, num_bytes.astype(np.int64), segment_ends)


class Split:
    """The rows of one split, addressed by row group; opens files lazily and keeps them open."""

    def __init__(self, url: str, shards: list[Shard], dtype: np.dtype, *, cache: DiskCache | None = None) -> None:
        self.url, self.shards, self.dtype, self.cache = url, shards, dtype, cache
        # By thread and shard: two threads that read one file at a time end the process (pyarrow 25).
        self._files: dict[tuple[int, int], pq.ParquetFile] = {}

    @cached_property
    def group_rows(self) -> np.ndarray:
        """Rows of every row group of the split, in order [G]."""
        return np.array([rows for shard in self.shards for rows in shard.groups], dtype=np.int64)

    @cached_property
    def group_places(self) -> list[tuple[int, int]]:
        """(shard, row group within it) of every row group [G]."""
        return [(s, g) for s, shard in enumerate(self.shards) for g in range(len(shard.groups))]

    @property
    def rows(self) -> int:
        return int(self.group_rows.sum())

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def segments(self) -> int:
        return sum(shard.segments for shard in self.shards)

    @property
    def expected_fill(self) -> float:
        """Share of the positions of all rows that is used once they are laid out, as packing expects it."""
        return sum(shard.expected_fill * shard.rows for shard in self.shards) / max(self.rows, 1)

    def base(self, shard: int) -> str:
        """URL of the store that has this shard and the plans of its blanks."""
        return self.shards[shard].store or self.url

    def read_group(self, group: int) -> RowBatch:
        """Rows of one row group. Raises DataError when the file is gone or damaged."""
        shard, index = self.group_places[group]
        url = storage.join(self.base(shard), self.shards[shard].path)
        try:
            key = (threading.get_ident(), shard)
            if key not in self._files:
                self._files[key] = parquet.open_file(url, self.cache)
            table = self._files[key].read_row_group(index, columns=_ROW_SCHEMA.names)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"cannot read {url}: {error}",
                why="a shard that the manifest names is missing or damaged",
                try_="remove that file if it is there, and run workflows/prepare.py again with the recipe of this "
                "store: it makes missing shards again; or copy the shard again where the store is a copy",
            ) from error
        return read_rows(table, self.dtype)


@dataclass(frozen=True)
class TokenStore:
    """A finished store: its URL, its manifest, and its splits."""

    url: str
    digest: str
    """Covers all that decides what a run reads: see `publish`."""
    manifest: Manifest
    train: Split
    validation: Split
    test: Split

    @property
    def name(self) -> str:
        """For people: its sources, and the beginning of its folder's name, such as wiki+books-a58e73c1."""
        names = [source.name for source in self.manifest.sources] or ["store"]
        more = f"+{len(names) - _SHOWN_SOURCES}" if len(names) > _SHOWN_SOURCES else ""
        return f"{'+'.join(names[:_SHOWN_SOURCES])}{more}-{storage.base_name(self.url)[:8]}"

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.validation, self.test

    @property
    def parts(self) -> tuple[Part, ...]:
        """The stores that a mix trains on; empty for an ordinary store."""
        groups = Counter(shard.store for shard in self.train.shards for _ in shard.groups)
        return tuple(Part(groups[member.url], member.weight) for member in self.manifest.members)

    @property
    def row_tokens(self) -> float:
        """Source tokens of a training row, on average over a run."""
        tokens, rows = Counter(), Counter()
        for shard in self.train.shards:
            tokens[shard.store] += shard.tokens
            rows[shard.store] += shard.rows
        shares = {member.url: member.weight for member in self.manifest.members} or {None: 1.0}
        return sum(share * tokens[url] / rows[url] for url, share in shares.items())

    @staticmethod
    def open(url: str, *, cache: DiskCache | None = None) -> "TokenStore":
        """Open a finished store. cache: keeps what is read of one that is not on this machine.

        Raises DataError when there is no manifest, or one of another format.
        """
        url = storage.absolute(url)
        if not storage.exists(storage.join(url, "manifest.json")):
            raise DataError(
                f"{url} is not a finished token store: it has no manifest.json",
                why="its preparation was interrupted, or is still running, or the path is another one",
                try_=f"{commands.workflow('prepare')} --config <recipe>   # continues where it stopped",
            )
        entry = read_manifest(url)
        if entry.get("format") != FORMAT:
            raise DataError(
                f"{url} has store format {entry.get('format')}, and this version reads format {FORMAT}",
                try_=f"prepare it again with this version: {commands.workflow('prepare')} --config <recipe>",
            )
        manifest = Manifest.of_json(entry)
        dtype = np.dtype(manifest.dtype)
        splits = (
            Split(url, [shard_of(shard) for shard in entry["splits"][name]], dtype, cache=cache) for name in SPLITS
        )
        return TokenStore(url, entry["digest"], manifest, *splits)


def read_manifest(url: str) -> dict[str, Any]:
    """What stands in the manifest of a store: its fields, the format, the digest and the shards."""
    return storage.read_json(storage.join(url, "manifest.json"))


class ShardFiles(NamedTuple):
    """Paths, below the store, of what the task of one shard writes, in this order."""

    rows: str
    documents: str
    record: str


def shard_files(split: str, name: str) -> ShardFiles:
    """The files of a shard. name: such as shard-00000."""
    return ShardFiles(f"{split}/{name}.parquet", f"documents/{split}-{name}.parquet", f"work/{split}-{name}.json")


def is_whole(url: str) -> bool:
    """Whether the store is published and none of its shards has gone since. Lists the folder, opens no shard."""
    if not storage.exists(storage.join(url, "manifest.json")):
        return False
    there = {info.path for info in storage.list_files(url)}
    return all(shard.path in there for split in TokenStore.open(url).splits for shard in split.shards)


def publish(url: str, manifest: Manifest, splits: dict[str, list[Shard]]) -> str:
    """Write the manifest with the shards and the digest, which is returned: from now on the store exists.

    The digest covers the format, the tokenizer, the settings that decide content and the shards' content; never time,
    host, absolute path or parallelism.
    """
    entries = {name: [asdict(shard) for shard in splits[name]] for name in SPLITS}
    content = {
        "format": FORMAT,
        "tokenizer": manifest.tokenizer_digest,
        "settings": manifest.settings,
        "shards": {name: [entry["digest"] for entry in entries[name]] for name in SPLITS},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    utilisation = Split(url, splits["train"], np.dtype(np.uint16)).expected_fill
    entry = {"format": FORMAT, "digest": digest, "utilisation": utilisation, **manifest.to_json(), "splits": entries}
    storage.write_json(storage.join(url, "manifest.json"), entry)
    return digest


def shard_of(entry: dict[str, Any]) -> Shard:
    """The shard of an entry of the manifest."""
    return Shard(**{**entry, "groups": tuple(entry["groups"])})
