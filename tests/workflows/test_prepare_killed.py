"""Law 10 with real processes: `prepare.py` is killed (SIGKILL) at several points, and ends with the same store."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import small
from helpers.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
KILL_AFTER = (2, 14, 40, 70)  # files that preparation has written by then

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    texts = small.documents(400)
    for number in range(8):
        part = [*texts[50 * number :][:50], texts[number], texts[number + 9] + " And more."]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return folder


def prepare(corpus: Path, root: Path, *, cpus: int) -> subprocess.Popen:
    options = {
        "data.sources": f"[{{reader: jsonl, url: {corpus}}}]",
        "data.root": root,
        "data.unit_bytes": 8_000,
        "data.shard_bytes": 16_000,
        "data.validation_tokens": 500,
        "data.test_fraction": 0.05,
        "data.tokenizer.train": "{vocab_size: 512, sample_bytes: 10000}",
        "data.select.duplicates": "near",
        "cluster.local_cpus": cpus,
        "tracking.enabled": "false",
    }
    command = [sys.executable, "workflows/prepare.py", *(f"--{name}={value}" for name, value in options.items())]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen, root: Path) -> dict[str, str]:
    """Digests of the files of the store that it made, plans of blanks included, by their paths."""
    told, _ = process.communicate(timeout=200 * PATIENCE)
    assert process.returncode == 0, told[-3000:]
    (store,) = (root / "stores").iterdir()
    found = {path: path.relative_to(store).as_posix() for path in store.rglob("*.parquet")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for path, name in found.items()}


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("expected")
    made = finished(prepare(corpus, root, cpus=1), root)
    assert {name.partition("/")[0] for name in made} == {
        *("train", "validation", "test", "documents", "plans", "ledger.parquet")
    }
    return made


def files(root: Path) -> int:
    return sum(path.is_file() for path in root.rglob("*"))


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_a_killed_preparation_ends_with_the_same_store(cpus, corpus, expected, tmp_path):
    killed = 0
    for count in KILL_AFTER:
        process = prepare(corpus, tmp_path, cpus=cpus)
        deadline = time.monotonic() + 120
        while process.poll() is None and files(tmp_path) < count:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(0.02)  # between looks at the folder
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate(timeout=60)
    assert killed >= 3
    assert finished(prepare(corpus, tmp_path, cpus=cpus), tmp_path) == expected
