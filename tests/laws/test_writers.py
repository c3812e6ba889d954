"""A file appears under its name when it is whole (law 12): where writing it fails, nothing is published.

Drivers do otherwise: those of local files, S3 and pyarrow publish what was written when `with open(url, "wb")` raises.
"""

import ast
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import small

from glm_model import urls
from infra import storage
from infra.storage import parquet
from pipelines.views.export import export

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("glm_model", "infra", "pipelines", "workflows")
SCHEMA = pa.schema([("text", pa.string())])
# What may open a file for writing, besides the two modules that publish: locks, logs, and files of a temporary folder.
PUBLISHERS = {"infra/storage/local.py", "glm_model/urls.py"}
OTHERS = {
    "glm_model/saved/authors_checkpoint.py": 1,  # within urls.written
    "infra/checkpoint.py": 1,  # a checkpoint exists once its manifest does
    "infra/children.py": 1,  # a log
    "infra/storage/disk_cache.py": 1,  # a lock
    "infra/storage/parquet.py": 2,  # in memory, and within storage.written
    "infra/tracking/metric_log.py": 1,  # a log, to which lines are added
    "infra/tracking/mlflow_runs.py": 1,  # a lock
    "pipelines/views/export.py": 1,  # within storage.written
    "workflows/runs/run.py": 1,  # a lock
    "workflows/training/telemetry.py": 1,  # a copy in a temporary folder
}


def opens_for_writing(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, or writes one by itself."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("write_bytes", "write_text"):
        return ast.unparse(call.func) not in ("storage.write_bytes", "write_bytes")
    if name in ("ParquetWriter", "CompressedOutputStream", "OSFile", "open_output_stream"):
        return True
    if name == "write_table":
        return ast.unparse(call.func).startswith("pq.")
    modes = [*call.args[1:2], *call.args[:1], *(key.value for key in call.keywords if key.arg == "mode")]
    known = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return name == "open" and any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in known)


def test_files_are_opened_for_writing_where_they_are_published_and_nowhere_else():
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if count := sum(map(opens_for_writing, calls)):
            found[path.relative_to(ROOT).as_posix()] = count
    assert {name: count for name, count in found.items() if name not in PUBLISHERS} == OTHERS
    assert found.keys() >= PUBLISHERS


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('open(path, "wb")', True),
        ('open(path, mode="a")', True),
        ('fs.open(path, "xb")', True),
        ('path.open("w")', True),
        ('open(path, "rb")', False),
        ("open(path)", False),
        ("Path(path).write_text(page)", True),
        ("storage.write_bytes(url, page)", False),
        ("pq.write_table(table, path)", True),
    ],
)
def test_the_reading_of_calls_is_right(code, expected):
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert opens_for_writing(call) == expected


def write_written(url: str) -> None:
    with storage.written(url) as path:
        Path(path).write_bytes(b"half")
        raise RuntimeError


def write_model_file(url: str) -> None:
    with urls.written(url) as path:
        Path(path).write_bytes(b"half")
        raise RuntimeError


def write_parquet(url: str) -> None:
    with parquet.writer(url, SCHEMA, compression="zstd") as writer:
        writer.write_table(pa.table({"text": ["half"]}, schema=SCHEMA))
        raise RuntimeError


def write_export(url: str) -> None:
    class Split:
        rows, group_rows = 8, (4, 4)

        def read_group(self, group: int):
            raise RuntimeError

    export(Split(), type("Settings", (), {"width": 8}), url, epoch=0)  # type: ignore[arg-type]


WRITERS: list[Callable[[str], None]] = [write_written, write_model_file, write_parquet, write_export]


def check(write: Callable[[str], None], folder: str) -> None:
    """A new file does not appear, one that was there stays, and nothing is left beside it."""
    url = storage.join(folder, "file")
    with pytest.raises(RuntimeError):
        write(url)
    assert not storage.exists(url)
    storage.write_bytes(url, b"before")
    with pytest.raises(RuntimeError):
        write(url)
    assert storage.read_bytes(url) == b"before"
    fs, path = storage.filesystem(folder)
    assert len(fs.find(path)) == 1


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_fails_publishes_nothing(write, place, tmp_path):
    check(write, str(tmp_path / "out") if place == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.mark.integration
@pytest.mark.parametrize("write", WRITERS)
def test_what_fails_publishes_nothing_on_s3(write, s3):
    check(write, storage.join(s3, uuid.uuid4().hex))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_succeeds_is_published_whole_with_its_folders(place, tmp_path):
    url = storage.join(str(tmp_path) if place == "local" else f"memory://{uuid.uuid4().hex}", "a/b/file.parquet")
    with storage.written(url) as path:
        pq.write_table(pa.table({"text": ["whole"]}), path)
    assert parquet.read_table(url).to_pylist() == [{"text": "whole"}]
    with storage.written(url) as path:
        Path(path).write_bytes(b"replaced")
    assert storage.read_bytes(url) == b"replaced"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_an_exported_store_is_whole(place, tiny_store, tiny_tokenizer, tmp_path):
    url = storage.join(str(tmp_path) if place == "local" else f"memory://{uuid.uuid4().hex}", "rows.parquet")
    assert export(tiny_store.train, small.settings_of(tiny_store, tiny_tokenizer), url, epoch=0, rows=3) == 3
    assert len(parquet.read_table(url)) == 3
