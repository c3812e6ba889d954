"""Places on S3, played by moto in a process of its own: everything works, and what does not is told.

Busy servers and broken connections are waited out; what they hold is not judged by them.
"""

import gzip
import json
import urllib.request
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import servers, small
from helpers.small import clean_unit

from infra import storage
from infra.checkpoint import CheckpointWriter, latest, load
from infra.errors import DataError, InfrastructureError
from infra.storage import parquet, remote
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.reading import read_documents
from pipelines.corpus.records import unit_record
from pipelines.corpus.sources import Source, group_inputs, list_inputs
from pipelines.document import Document, Rejected
from pipelines.store import format as stores

pytest.importorskip("s3fs", reason="needs the extra s3")
pytest.importorskip("moto", reason="needs the extra dev")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # busy servers are waited for

LINES = b"".join(b'{"text": "document number %d has some words"}\n' % i for i in range(4000))


@pytest.fixture
def place(s3) -> str:
    """A prefix of its own in the bucket."""
    return storage.join(s3, uuid.uuid4().hex)


@pytest.fixture
def endpoint(s3, monkeypatch):
    """endpoint(url): from now on S3 is there. Drivers made before have forgotten it afterwards."""
    import s3fs

    def change(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()

    yield change
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()


def address(s3: str) -> str:
    import os

    return os.environ["AWS_ENDPOINT_URL"]


def publish(url: str, data: bytes) -> None:
    """Write an object that https:// may read."""
    fs, path = storage.filesystem(url)
    fs.pipe_file(path, data, ACL="public-read")


def every_third(number: int, line: str) -> str | None:
    return "busy" if number % 3 == 0 else None


def test_reading_writing_listing_and_removing(place):
    for name in ["a/1.txt", "a/2.md", "b/c/größe 100%.txt", ".hidden"]:
        storage.write_bytes(storage.join(place, name), name.encode())
    listed = storage.list_files(place)
    assert [(i.path, i.size) for i in listed] == [("a/1.txt", 7), ("a/2.md", 6), ("b/c/größe 100%.txt", 20)]
    assert all(i.version for i in listed)
    assert [storage.read_bytes(i.url).decode() for i in listed] == [i.path for i in listed]
    for pattern, found in {"a/*.txt": ["1.txt"], "**/*.txt": ["a/1.txt", "b/c/größe 100%.txt"]}.items():
        assert [i.path for i in storage.list_files(storage.join(place, pattern))] == found
    value = {"name": "größe", "n": [1, 2.5, None]}
    storage.write_json(storage.join(place, "m.json"), value)
    storage.write_json(storage.join(place, "m.json"), {**value, "n": 2})
    assert storage.read_json(storage.join(place, "m.json")) == {**value, "n": 2}
    assert storage.exists(storage.join(place, "a"))
    storage.remove_tree(storage.join(place, "a"))
    storage.remove_tree(storage.join(place, "a"))
    assert not storage.exists(storage.join(place, "a"))
    storage.ensure_writable(place)
    assert [i.path for i in storage.list_files(place)] == ["b/c/größe 100%.txt", "m.json"]


def test_directories_travel_whole(place, tmp_path):
    names = ["x.txt", "deep/er/y z.txt", "br[ack]et.txt"]
    for name in names:
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_text(name)
    storage.upload_dir(str(tmp_path / "there"), place)
    assert sorted(i.path for i in storage.list_files(place)) == sorted(names)
    storage.download_dir(place, str(tmp_path / "back"))
    assert [(tmp_path / "back" / name).read_text() for name in names] == names


def test_documents_are_the_same_whole_in_ranges_and_compressed(place):
    storage.write_bytes(storage.join(place, "c", "plain.jsonl"), LINES)
    storage.write_bytes(storage.join(place, "c", "packed.jsonl.gz"), gzip.compress(LINES))
    packed, plain = list_inputs([Source("jsonl", storage.join(place, "c"))])
    whole = list(read_documents(plain))
    assert [d.text for d in whole[:2]] == ["document number 0 has some words", "document number 1 has some words"]
    assert len(whole) == 4000
    assert list(read_documents(packed)) == whole
    units = group_inputs([plain], len(LINES) // 7)
    assert len(units) == 7
    assert [record for (part,) in units for record in read_documents(part)] == whole


def test_a_token_store_is_made_and_opened(place, tmp_path, tiny_tokenizer, tiny_store):
    opened = small.store(tmp_path, tiny_tokenizer, root=place)
    assert opened.url == storage.join(place, "store")
    assert opened.digest == tiny_store.digest
    assert stores.is_whole(opened.url)
    there, here = opened.train.read_group(0), tiny_store.train.read_group(0)
    assert there.tokens.tolist() == here.tokens.tolist()
    assert there.ids.tolist() == here.ids.tolist()
    storage.remove_tree(storage.join(opened.url, opened.train.shards[0].path))
    assert not stores.is_whole(opened.url)
    with pytest.raises(DataError, match=r"cannot read s3://.*shard-00000"):
        stores.TokenStore.open(opened.url).train.read_group(0)


def test_checkpoints_are_saved_pruned_and_loaded(place):
    checkpoints = CheckpointWriter(place, keep=1)
    optimizer = {"state": {0: {"exp_avg": torch.arange(3.0), "step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1.0}]}
    for step in (1, 2):
        checkpoints.save(step, {"w": torch.full((3,), float(step))}, optimizer, {"run": "r"})
    checkpoints.wait()
    found = latest(place)
    assert found is not None
    assert (found.step, found.skipped) == (2, ())
    loaded = load(found.url)
    assert loaded.model["w"].tolist() == [2.0, 2.0, 2.0]
    assert loaded.optimizer["state"][0]["exp_avg"].tolist() == [0.0, 1.0, 2.0]
    assert loaded.state == {"run": "r", "step": 2}
    assert {i.path.split("/")[0] for i in storage.list_files(place)} == {"step-00000002"}


def test_a_bucket_that_is_not_there_is_told(s3):
    for url in ["s3://no-such-bucket", "s3://no-such-bucket/x", "s3://no-such-bucket/*.txt"]:
        with pytest.raises((DataError, InfrastructureError)) as caught:
            storage.list_files(url)
        assert url in caught.value.message
        assert "bucket" in f"{caught.value.why} {caught.value.try_}"
    with pytest.raises(InfrastructureError, match="bucket does not exist") as caught:
        storage.ensure_writable("s3://no-such-bucket/x")
    assert "it must exist" in caught.value.try_
    with pytest.raises(DataError, match="no/key does not exist"):
        storage.list_files(storage.join(s3, "no/key"))


def test_wrong_and_missing_credentials_are_told(place, endpoint, monkeypatch, tmp_path):
    url = storage.join(place, "f.jsonl")
    storage.write_bytes(url, LINES)
    (file,) = list_inputs([Source("jsonl", url)])
    actions = [storage.list_files, storage.read_bytes, storage.exists, storage.ensure_writable, storage.remove_tree]
    actions.append(lambda _: list(read_documents(file)))  # no verdict on the file: it may be as good as any
    _check_credentials(address(place), 0)
    try:
        for action in actions:
            with pytest.raises(InfrastructureError, match="PermissionError") as caught:
                action(url)
            assert url in caught.value.message
            assert "other credentials" in caught.value.try_
    finally:
        _check_credentials(address(place), 1 << 40)
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    endpoint(address(place))
    for action in actions:
        with pytest.raises(InfrastructureError, match="Unable to locate credentials") as caught:
            action(url)
        assert "export AWS_ACCESS_KEY_ID" in caught.value.try_


def test_a_busy_bucket_is_waited_for(place, endpoint, tmp_path):
    storage.write_bytes(storage.join(place, "c", "f.jsonl"), LINES)
    with servers.unreliable(address(place), every_third) as proxy:
        endpoint(proxy.url)
        (file,) = list_inputs([Source("jsonl", storage.join(place, "c"))])
        assert len(list(read_documents(file))) == 4000
        unit = clean_unit([file], CleanConfig(), storage.join(place, "text", "unit"))
        assert (unit.read, unit.kept) == (4000, 4000)
        assert storage.read_json(storage.join(place, "text", "unit.json")) == [unit_record(unit)]
        storage.download_dir(storage.join(place, "text"), str(tmp_path / "back"))
        storage.upload_dir(str(tmp_path / "back"), storage.join(place, "again"))
        storage.remove_tree(storage.join(place, "c"))
        assert not storage.exists(storage.join(place, "c"))
        assert len(storage.list_files(storage.join(place, "again"))) == 3
        assert proxy.told["busy"] > 5


def test_a_bucket_that_stays_busy_stops_the_run(place, endpoint, monkeypatch):
    import s3fs

    url = storage.join(place, "f.jsonl")
    storage.write_bytes(url, LINES)
    (file,) = list_inputs([Source("jsonl", url)])
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with servers.unreliable(address(place), lambda number, line: "busy") as proxy:
        endpoint(proxy.url)
        with pytest.raises(InfrastructureError, match="cannot read s3://"):
            list(read_documents(file))
        with pytest.raises(InfrastructureError, match="cannot read s3://"):
            clean_unit([file], CleanConfig(), storage.join("memory://none", uuid.uuid4().hex))


def test_https_is_read_through_busy_servers_and_broken_connections(place):
    data = b"".join(b"line number %d of a file that takes some requests\n" % i for i in range(200_000))
    publish(storage.join(place, "f.txt"), data)
    publish(storage.join(place, "f.txt.gz"), gzip.compress(data, 1))
    key = place.removeprefix("s3://")

    def trouble(number: int, line: str) -> str | None:
        return every_third(number, line) or ("cut" if number % 3 == 1 and line.startswith("GET") else None)

    with servers.unreliable(address(place), trouble) as proxy:
        for name in ("f.txt", "f.txt.gz"):
            url = f"{proxy.url}/{key}/{name}"
            (file,) = list_inputs([Source("text", url, options={"per": "line"})])
            records = list(read_documents(file))
            assert len(records) == 200_000
            assert records[-1] == Document(data[-54:-1].decode(), len(data) - 54)
        assert storage.read_bytes(f"{proxy.url}/{key}/f.txt") == data
        assert proxy.told["busy"] > 3
        assert proxy.told["cut"] > 1


def test_a_range_over_https_costs_little_more_than_its_size(place):
    data = b"".join(b"line number %d of a file that is larger than some requests\n" % i for i in range(600_000))
    publish(storage.join(place, "f.txt"), data)
    with servers.unreliable(address(place), lambda number, line: None) as proxy:
        url = f"{proxy.url}/{place.removeprefix('s3://')}/f.txt"
        (file,) = list_inputs([Source("text", url, options={"per": "line"})])
        units = group_inputs([file], len(data) // 4)
        proxy.sent = 0
        third = list(read_documents(units[2][0]))
        assert len(units) == 4
        assert third[0].offset >= len(data) // 2 > third[0].offset - 80
        assert proxy.sent < len(data) // 4 + 3 * (4 << 20)


def test_parquet_is_read_at_its_places_and_no_broken_connection_is_its_fault(place, monkeypatch):
    words = [f"row {i} " + "word " * 20 for i in range(150_000)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": words}), sink, row_group_size=5000, compression="none", use_dictionary=False)
    publish(storage.join(place, "f.parquet"), sink.getvalue().to_pybytes())
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    with servers.unreliable(address(place), lambda n, line: "busy" if n > last or n % 3 == 0 else None) as proxy:
        last = 1 << 40
        (file,) = list_inputs([Source("parquet", f"{proxy.url}/{place.removeprefix('s3://')}/f.parquet")])
        assert [d.text for d in read_documents(file)] == words
        records = read_documents(file)
        first = [next(records) for _ in range(10)]
        assert [d.text for d in first] == words[:10]
        last = proxy.requests
        with pytest.raises(InfrastructureError, match="503 Service Unavailable"):
            list(records)


def test_row_groups_in_any_order_cost_their_own_bytes(place):
    """Training reads them so: a permuted order, each once."""
    rng = np.random.default_rng(0)
    sink = pa.BufferOutputStream()
    rows = {name: [rng.bytes(1 << 14) for _ in range(320)] for name in ("tokens", "ids")}
    pq.write_table(pa.table(rows), sink, row_group_size=16, use_dictionary=False)
    data = sink.getvalue().to_pybytes()
    publish(storage.join(place, "f.parquet"), data)
    with servers.unreliable(address(place), lambda n, line: None) as proxy:
        file = parquet.open_file(f"{proxy.url}/{place.removeprefix('s3://')}/f.parquet")
        for group in rng.permutation(file.num_row_groups).tolist():
            table = file.read_row_group(group, columns=["tokens", "ids"])
            assert table["ids"].to_pylist() == rows["ids"][16 * group : 16 * group + 16]
        assert len(data) > 10_000_000
        assert proxy.sent < 1.02 * len(data)


def test_https_that_stays_busy_stops_the_run_and_a_missing_page_does_not(place, monkeypatch):
    publish(storage.join(place, "f.txt"), b"text")
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    with servers.unreliable(address(place), lambda n, line: "busy" if busy else None) as proxy:
        busy = False
        url = f"{proxy.url}/{place.removeprefix('s3://')}/f.txt"
        (file,) = list_inputs([Source("text", url)])
        assert list(read_documents(file)) == [Document("text", 0)]
        busy = True
        for action in (storage.list_files, storage.read_bytes, storage.exists, lambda _: list(read_documents(file))):
            with pytest.raises(InfrastructureError, match=r"503 Service Unavailable \(after 2 attempts\)") as caught:
                action(url)
            assert caught.value.exit_code == 5
        busy = False
        storage.remove_tree(storage.join(place, "f.txt"))
        (rejected,) = read_documents(file)
        assert isinstance(rejected, Rejected)
        assert rejected.reason == "vanished"
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(url)


def test_a_server_without_ranges_is_read_from_the_beginning(tmp_path):
    import functools
    import http.server
    import threading

    lines = [json.dumps({"text": f"line {i} " + "x" * 1000}).encode() + b"\n" for i in range(6000)]  # > one request
    (tmp_path / "f.jsonl").write_bytes(b"".join(lines))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (file,) = list_inputs([Source("jsonl", f"http://127.0.0.1:{server.server_address[1]}/f.jsonl")])
        whole = list(read_documents(file))
        assert len(whole) == 6000
        units = group_inputs([file], 2 << 20)
        assert [record for (part,) in units for record in read_documents(part)] == whole
        server.shutdown()


def _check_credentials(address: str, after: int) -> None:
    """moto looks at keys from the request with this number on; it knows none."""
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{address}/moto-api/reset-auth", str(after).encode(), headers, method="POST")
    with urllib.request.urlopen(request) as answer:
        answer.read()
