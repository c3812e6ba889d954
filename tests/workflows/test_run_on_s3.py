"""A run whose data, checkpoints, logs and model lie on S3, with a cache on disk: it is the run that lies on disk."""

import os
import subprocess
import sys
from pathlib import Path

import faults
import psutil
import pytest
import small_run
import torch

from glm_model import GLM
from infra import storage
from infra.metrics import read_points

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.integration, pytest.mark.timeout(400)]


def start(corpus: Path, root: str, output: Path, *more: str) -> subprocess.Popen:
    settings = small_run.settings(corpus) | {
        "data.root": storage.join(root, "data"),
        "run.storage_path": storage.join(root, "runs"),
        "run.name": "run",
        "train.num_workers": 2,
        "train.steps": 12,
        "train.batch_tokens": 1800,
        "train.eval_every": 6,
        "train.checkpoint_every": 4,
    }
    command = [sys.executable, "workflows/pretrain.py", *small_run.flags(settings), *more]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(faults.ROOT), "OMP_NUM_THREADS": "1"}
    with output.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=faults.ROOT)


def losses(run: str) -> dict[int, float]:
    points = read_points(storage.join(run, "metrics.jsonl"))
    return {point["step"]: point["values"]["train/loss"] for point in points if "train/loss" in point["values"]}


def test_a_run_on_s3_that_is_killed_is_the_one_on_disk(s3, tmp_path):
    corpus, output, place = small_run.write_corpus(tmp_path / "corpus"), tmp_path / "output", storage.join(s3, "here")
    assert start(corpus, str(tmp_path), output).wait(180) == 0, output.read_text()
    cache = ("--data.cache=" + str(tmp_path / "cache"),)

    driver = start(corpus, place, output, *cache)
    saved = storage.join(place, "runs/run/checkpoints/step-00000004/manifest.json")
    faults.until(lambda: storage.exists(saved) or driver.poll() is not None, output.read_text)
    family = faults.below(driver.pid)
    driver.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)
    assert start(corpus, place, output, *cache).wait(180) == 0, output.read_text()

    ours, theirs = storage.join(place, "runs/run"), str(tmp_path / "runs" / "run")
    assert losses(ours) == losses(theirs)
    assert sorted(losses(ours)) == list(range(1, 13))
    one, two = (GLM.from_pretrained(storage.join(run, "model")).state_dict() for run in (ours, theirs))
    assert [name for name in two if not torch.equal(one[name], two[name])] == []
    assert list((tmp_path / "cache").rglob("*-*")), "what was read of the store is kept on disk"
