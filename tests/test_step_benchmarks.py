"""The benchmarks of the step, of the feed and of whole runs compare like with like, and run."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import benchmark_modules, small_run
from helpers.faults import Trial
from helpers.patience import PATIENCE

from glm_model.config import sized
from glm_model.model import GLM
from glm_model.train import TrainStep

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def batches():
    return benchmark_modules.load("batches")


def test_the_batch_has_what_the_token_objective_makes_of_a_full_segment(batches):
    packed = batches.make_batch(3, vocab_size=1000, width=2000)
    alone = batches.make_batch(3, vocab_size=1000)
    assert packed["tokens"].shape == (1, 2000)
    assert alone["tokens"].shape == (3, 560)
    assert packed["segment_ids"][0].unique(return_counts=True)[1].tolist() == [2000 - 3 * 560, 560, 560, 560]
    assert packed["loss_mask"].sum() == alone["loss_mask"].sum() == 3 * 101
    assert torch.equal(packed["tokens"][0, :1680], alone["tokens"].flatten())
    assert (alone["context_end"] == 560 - 101).all()
    assert alone["block_position_ids"].eq(1).sum(1).tolist() == [24] * 3
    assert batches.useful_flops(sized("base")) == pytest.approx(585e6, rel=0.01)


def test_both_styles_have_equal_losses_and_gradients_without_dropout(batches):
    original_style = benchmark_modules.load("original_style")
    torch.manual_seed(0)
    model = GLM(sized("tiny", vocab_size=1024, dropout=0.0, attention_dropout=0.0))
    sums, counts = TrainStep(model, precision="fp32")(batches.make_batch(2, vocab_size=1024, width=1120))
    ours = (sums / counts).sum()
    ours.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    theirs = original_style.OriginalStyle(model)(batches.make_batch(2, vocab_size=1024))
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for mine, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-6)


def run(script: str, *arguments: str, limit_s: float = 55) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(benchmark_modules.FOLDER / script), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=limit_s * PATIENCE, check=False
    )


@pytest.mark.parametrize("step_rows", [1, 3])
def test_the_feed_benchmark_asks_for_steps_of_so_many_rows(tiny_store, step_rows):
    """And reads each row of an epoch once."""
    ingest = benchmark_modules.load("ingest")
    opened = ingest._Opened(tiny_store.url, micro_batches=step_rows)
    rows = tiny_store.train.rows
    with contextlib.closing(ingest._fed(opened)) as steps:
        taken = list(itertools.islice(steps, -(-rows // step_rows)))
    assert {len(step) for step in taken} == {step_rows}
    found = list(itertools.chain.from_iterable(taken))[:rows]
    assert sum(micro_batch.tokens for micro_batch in found) == tiny_store.train.tokens
    rate, first_s = ingest._rate(ingest._fed, tiny_store.url, rows, time.process_time, micro_batches=step_rows)
    assert rate > 0
    assert first_s > 0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(240)
def test_the_feed_benchmark_runs(tiny_store, tmp_path):
    pytest.importorskip("moto", reason="needs the extra dev")
    pytest.importorskip("s3fs", reason="needs the extra s3")
    report = tmp_path / "ingest.json"
    sizes = ["--batches", "32", "--step-rows", "2", "--rounds", "1", "--train-steps", "1", "--s3"]
    done = run("ingest.py", "--store", tiny_store.url, *sizes, "--json", str(report), limit_s=230)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    values = found["values"]
    assert set(found["ratios"]) == {"cpu", "cpu_drawn", "first_batch"}
    assert all(value > 0 for value in found["ratios"].values())
    assert values["first_batch_s"] < values["streaming_split_first_batch_s"], "which starts tasks of Ray first"
    assert 0 <= values["data_wait_share"] < 1
    assert 1 <= values["read_amplification"] < 2, "each epoch fetches all of it, and not much more"
    assert values["disk_cache_read_amplification"] < 0.1, "the second epoch fetches next to nothing"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(400)
def test_the_overhead_benchmark_runs(tiny_store, tmp_path):
    report = tmp_path / "overhead.json"
    sizes = ["--workers", "1", "--batch-tokens", "300", "--steps", "2", "--rounds", "2"]
    done = run("overhead.py", "--store", tiny_store.url, *sizes, "--json", str(report), limit_s=390)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    ratios = found["ratios"]
    assert done.stdout.count("round ") == 2
    assert ratios["overhead_low"] <= ratios["overhead"] <= ratios["overhead_high"]
    assert all(found["values"][f"{way}_{name}_s"] > 0 for way in ("ray", "plain") for name in ("step", "checkpoint"))
    assert 0 < found["values"]["watchdog_beat_s"] < 0.01


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(400)
def test_the_compression_benchmark_runs(tmp_path):
    corpus, report = small_run.write_corpus(tmp_path / "corpus"), tmp_path / "compression.json"
    trial = Trial(corpus, tmp_path, "run", "1", ("--train.steps=6", "--data.test_fraction=0")).run()
    done = run("compression.py", "--run", str(trial.folder), "--json", str(report), limit_s=100)
    assert done.returncode == 0, done.stderr
    values = json.loads(report.read_text())["values"]
    last, validated = trial._points()[-2:]
    assert values["step"] == 6
    assert (values["data_tokens"], values["data_epoch"]) == (
        last.values["data/tokens"],
        last.values["data/epoch"],
    )
    assert values["val_bits_per_byte"] == pytest.approx(validated.values["val/bits_per_byte"], rel=1e-4)
    assert values["xz_after_training"] < values["bz2"], "the documents repeat each other's words"
    texts = [json.loads(line)["text"] for line in (corpus / "texts.jsonl").read_text().splitlines()]
    sizes = re.search(r"([\d,]+) bytes of held-out text, ([\d,]+) of training text", done.stdout)
    assert sizes is not None, done.stdout
    held_out, training = (int(size.replace(",", "")) for size in sizes.groups())
    assert held_out + training == sum(len(text) for text in texts) + len(texts) - 2, "a line each, in one split"
    assert f"step, 6: {values['data_tokens']:,.0f} tokens, {values['data_epoch']:.3f} epochs" in done.stdout


@pytest.mark.slow
@pytest.mark.integration
def test_the_step_benchmark_runs(tmp_path):
    report = tmp_path / "step.json"
    done = run("step.py", "--size", "tiny", "--segments", "1", "--rounds", "1", "--json", str(report))
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["values"]["loss_difference"] < 1e-5
    assert found["ratios"]["fp32"] > 1


@pytest.mark.slow
@pytest.mark.integration
def test_the_gpu_benchmark_runs_on_a_cpu_and_survives_a_part_that_fails(tmp_path):
    report = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--size", "tiny", "none", "--positions", "600", "--json", str(report)]
    done = run("gpu.py", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    names = {"gemm_tflops", "tiny_600_eager_segments_mfu", "tiny_600_original_style_ms", "attention_600_dense_ms"}
    assert names <= set(found["values"])
    assert set(found["ratios"]) == {"tiny_vs_original_style"}
    assert found["failed"]["none_600_eager_segments"].startswith("ValueError: unknown model size 'none'")
    assert all(name.startswith("none_") for name in found["failed"])
