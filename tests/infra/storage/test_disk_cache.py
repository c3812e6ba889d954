"""Ranges of remote files on this machine's disk: exact, fetched once, bounded, and shared by processes."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import servers, small

from infra import storage
from infra.errors import InfrastructureError, UserError
from infra.storage import parquet
from infra.storage.disk_cache import DiskCache
from pipelines.feed.micro_batches import RowReader, steps
from pipelines.feed.order import BatchPlan
from pipelines.store.format import TokenStore

ROOT = Path(__file__).resolve().parents[3]
GROUP = 4096  # rows of 8 bytes


def table(groups: int, *, seed: int = 0) -> pa.Table:
    """Random bytes in row groups of 32 KiB, which do not compress."""
    return pa.table({"x": np.random.default_rng(seed).integers(0, 2**62, groups * GROUP)})


def write(url: str, content: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, row_group_size=GROUP, use_dictionary=False, compression="none")
    storage.write_bytes(url, sink.getvalue())


def read_all(url: str, cache: DiskCache | None) -> pa.Table:
    file = parquet.open_file(url, cache)
    return pa.concat_tables([file.read_row_group(group) for group in range(file.num_row_groups)])


def ranges(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


@pytest.fixture
def url() -> str:
    """A file of fsspec's memory, which is as remote as S3 to the cache."""
    url = f"memory://{uuid.uuid4().hex}/a.parquet"
    write(url, table(10))
    return url


@pytest.fixture
def fetched(monkeypatch) -> list[int]:
    """Bytes of each range that is read from fsspec's memory."""
    from fsspec.implementations.memory import MemoryFile

    sizes, read = [], MemoryFile.read

    def counted(self, size=-1):
        data = read(self, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(MemoryFile, "read", counted)
    return sizes


def test_what_is_read_again_comes_from_the_disk_and_is_the_same(tmp_path, url, fetched):
    cache = DiskCache(str(tmp_path / "cache"), max_bytes=1 << 30)
    assert read_all(url, cache).equals(table(10))
    once = sum(fetched)
    assert once >= 10 * GROUP * 8
    fetched.clear()
    for again in (cache, DiskCache(str(tmp_path / "cache"), max_bytes=1 << 30)):
        assert read_all(url, again).equals(table(10))
    assert fetched == []
    assert sum(path.stat().st_size for path in ranges(tmp_path / "cache")) == once


def test_a_file_that_changed_is_fetched_again(tmp_path, url):
    cache = DiskCache(str(tmp_path), max_bytes=1 << 30)
    assert read_all(url, cache).equals(table(10))
    write(url, table(10, seed=1))  # of the same size
    assert read_all(url, cache).equals(table(10, seed=1))


def test_a_range_that_is_cut_is_fetched_again(tmp_path, url, fetched):
    cache = DiskCache(str(tmp_path), max_bytes=1 << 30)
    read_all(url, cache)
    damaged = max(ranges(tmp_path), key=lambda path: path.stat().st_size)
    size = damaged.stat().st_size
    os.truncate(damaged, size - 1)
    fetched.clear()
    assert read_all(url, cache).equals(table(10))
    assert fetched == [size]
    assert damaged.stat().st_size == size


def test_the_limit_is_kept_and_the_oldest_go(tmp_path, url, fetched):
    limit = 4 * GROUP * 8
    cache = DiskCache(str(tmp_path), max_bytes=limit)
    file = parquet.open_file(url, cache)
    for group in (0, 1, 0, 2, 0, 3, 0, 4, 0, 5):
        assert file.read_row_group(group).equals(table(10).slice(group * GROUP, GROUP))
        for age, path in enumerate(sorted(ranges(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (age, age))  # clocks of file systems are coarse: what is in order stays so, all of it past
        assert sum(path.stat().st_size for path in ranges(tmp_path)) <= limit * (1 + 1 / 64)
    fetched.clear()
    file.read_row_group(0)
    assert fetched == [], "used all the time, so it stayed"
    file.read_row_group(1)
    assert len(fetched) == 1, "used longest ago, so it went"


def test_what_is_larger_than_the_limit_is_read_and_not_kept(tmp_path, url):
    cache = DiskCache(str(tmp_path), max_bytes=100)
    assert read_all(url, cache).equals(table(10))
    assert sum(path.stat().st_size for path in ranges(tmp_path)) <= 100


def test_a_full_disk_ends_no_training(tmp_path, url, monkeypatch):
    cache = DiskCache(str(tmp_path), max_bytes=1 << 30)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("infra.storage.local.write", full)
    monkeypatch.setattr("infra.storage.disk_cache.os.makedirs", full)
    assert read_all(url, cache).equals(table(10))


def test_folders_that_cannot_serve_are_told(tmp_path):
    with pytest.raises(UserError, match="on another machine"):
        DiskCache("s3://bucket/cache", max_bytes=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot write"):
        DiskCache(str(tmp_path / "file" / "cache"), max_bytes=1)


def test_files_of_this_machine_are_not_copied(tmp_path):
    path = str(tmp_path / "here.parquet")
    write(path, table(1))
    assert read_all(path, DiskCache(str(tmp_path / "cache"), max_bytes=1 << 30)).equals(table(1))
    assert ranges(tmp_path / "cache") == []


@pytest.fixture
def watched_s3(s3, monkeypatch):
    """(a prefix of its own, the files of which S3 was asked for the content, one entry a request)."""
    import s3fs

    read: list[str] = []

    def watch(number: int, line: str) -> None:
        method, path, _ = line.split()
        if method == "GET" and path.partition("?")[0].endswith(".parquet"):
            read.append(path)

    with servers.unreliable(os.environ["AWS_ENDPOINT_URL"], watch) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield storage.join(s3, uuid.uuid4().hex), read
        monkeypatch.undo()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.integration
def test_the_second_epoch_of_a_store_on_s3_reads_nothing_from_s3(watched_s3, tmp_path, tiny_tokenizer):
    place, read = watched_s3
    made = small.store(tmp_path, tiny_tokenizer, root=place)
    settings = small.settings_of(made, tiny_tokenizer)
    settings = small.store_blanks(made, settings)
    cache = DiskCache(str(tmp_path / "cache"), max_bytes=1 << 30)
    opened = TokenStore.open(made.url, cache=cache)
    plan = BatchPlan(tuple(opened.train.group_rows.tolist()), seed=5, micro_rows=1, micro_batches=1, window=3)

    def prints(store: TokenStore, start: int, stop: int) -> list[int]:
        reader = RowReader(store.train, settings, cached_groups=2)
        fed = steps(reader, plan, start=start, stop=stop, rank=0, world=1)
        return [micro.fingerprint for item in fed for _, micro in item.micro_batches]

    rows = plan.epoch_rows
    uncached = prints(TokenStore.open(made.url), 0, 2 * rows)
    read.clear()
    first = prints(opened, 0, rows)
    assert read
    read.clear()
    assert first + prints(opened, rows, 2 * rows) == uncached
    assert prints(TokenStore.open(made.url, cache=cache), 0, 2 * rows) == uncached
    assert read == [], "nor does a run that is continued on the same node"


@pytest.mark.integration
def test_workers_of_a_node_fetch_a_range_once(watched_s3, tmp_path):
    place, read = watched_s3
    url = storage.join(place, "a.parquet")
    write(url, table(30))
    read_all(url, None)
    once = len(read)
    assert once > 30
    read.clear()
    code = f"""
import hashlib, sys
from infra.storage import parquet
from infra.storage.disk_cache import DiskCache
file = parquet.open_file({url!r}, DiskCache({str(tmp_path)!r}, max_bytes=1 << 30))
print(sum(file.read_row_group(group)["x"].to_numpy().sum() for group in range(file.num_row_groups)))
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = {worker.communicate(timeout=50)[0].strip() for worker in workers}
    assert told == {str(table(30)["x"].to_numpy().sum())}
    assert len(read) == once
