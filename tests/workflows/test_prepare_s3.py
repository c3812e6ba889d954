"""Raw text, cleaned text and store on S3: the whole preparation by Ray workers against a real server."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import small
from helpers.patience import PATIENCE

from infra import storage
from pipelines.store.format import TokenStore

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def prepare(sources: str, root: str) -> str:
    options = {
        "data.sources": sources,
        "data.root": root,
        "data.unit_bytes": 8_000,
        "data.validation_tokens": 500,
        "data.tokenizer.train": "{vocab_size: 512, sample_bytes: 10000}",
        "data.select.duplicates": "near",
        "cluster.local_cpus": 2,
        "tracking.enabled": "false",
    }
    command = [sys.executable, "workflows/prepare.py", *(f"--{name}={value}" for name, value in options.items())]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200 * PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_store_on_s3_is_the_one_on_disk(s3, tmp_path):
    (tmp_path / "raw").mkdir()
    for number in range(4):
        data = "".join(json.dumps({"text": text}) + "\n" for text in small.documents(60 * number + 60)[60 * number :])
        packed = gzip.compress(data.encode()) if number % 2 else data.encode()
        name = f"{number}.jsonl{'.gz' if number % 2 else ''}"
        (tmp_path / "raw" / name).write_bytes(packed)
        storage.write_bytes(f"{s3}/prepared/raw/{name}", packed)
    prepare(f"[{{reader: jsonl, url: {tmp_path}/raw}}]", str(tmp_path / "data"))
    told = prepare(f"[{{reader: jsonl, url: {s3}/prepared/raw}}]", f"{s3}/prepared/data")
    (local,) = (tmp_path / "data" / "stores").iterdir()
    (line,) = [line for line in told.splitlines() if line.startswith("token store")]
    there, here = TokenStore.open(line.split()[2]), TokenStore.open(str(local))
    assert there.url.startswith(s3)
    assert there.digest == here.digest
    assert there.train.read_group(0).tokens.tolist() == here.train.read_group(0).tokens.tolist()
    assert "nothing to prepare" in prepare(f"[{{reader: jsonl, url: {s3}/prepared/raw}}]", f"{s3}/prepared/data")
