"""The benchmarks of the step compare like with like, and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark_modules
import pytest
import torch

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


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(benchmark_modules.FOLDER / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=55, check=False)


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
    assert found["failed"]["none_600_eager_segments"].startswith("ValueError: there is no model size 'none'")
    assert all(name.startswith("none_") for name in found["failed"])
