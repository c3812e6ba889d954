"""`ray job submit` of finetune.py, evaluate.py and predict.py, on two workers, in the order in which a user calls them.

That of pretrain.py is a command of the README, which tests/test_readme.py runs as written.
"""

import subprocess
from pathlib import Path

import pytest
import torch
from helpers import asked, jobs

from glm_model import GLM, GLMConfig, save_pretrained
from infra import storage
from infra.storage import parquet

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
SHAPE = GLMConfig(layers=1, width=16, heads=2, vocab_size=128, positions=64)
WORDS = "--task.words={bad: cat, good: dog}"


@pytest.fixture(scope="module")
def submit(tmp_path_factory):
    """submit(script, arguments): what `ray job submit` returned and printed."""
    checkout, home = jobs.checkout(tmp_path_factory.mktemp("jobs") / "glm"), tmp_path_factory.mktemp("home")
    environment = jobs.environment(checkout, home) | {"RAY_AUTH_MODE": "token"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)

    def submit(script: str, *arguments: str) -> tuple[int, str]:
        job = ("ray", "job", "submit", "--working-dir=.", "--runtime-env=infra/deploy/runtime_env.yaml", "--")
        done = call(*job, "python", f"workflows/{script}.py", *arguments)
        return done.returncode, done.stdout + done.stderr

    with jobs.ray_folder("jobs") as folder:
        assert call("ray", "get-auth-token", "--generate").returncode == 0
        started = call("ray", "start", "--head", *jobs.start_options(folder).split())
        assert started.returncode == 0, started.stdout + started.stderr
        yield submit


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    save_pretrained(GLM(SHAPE), str(folder / "begin"), tokenizer=tiny_tokenizer)
    for split in ("train", "dev"):
        asked.write(folder / "data" / f"{split}.jsonl", asked.rows(48))
    return folder


def test_jobs_fine_tune_evaluate_and_predict_on_two_workers(submit, place):
    data = f"--task.data={place}/data"
    own = [f"--model.init_from={place}/begin", data, WORDS, f"--run.storage_path={place}/runs", "--run.name=a"]
    code, told = submit("finetune", *own, "--train.num_workers=2", "--train.epochs=1")
    assert code == 0, told
    assert "glm finetune · classification · 2 workers · run a" in told
    code, told = submit("evaluate", "--models", f"{place}/runs/a", data, f"--to={place}/scores", "--num_workers=2")
    assert code == 0, told
    assert len(storage.read_json(f"{place}/scores/scores.json")["scores"]) == 1
    answers = ["--model", f"{place}/runs/a", f"--input={place}/data/dev.jsonl", f"--to={place}/answers"]
    code, told = submit("predict", *answers, "--num_workers=2")
    assert code == 0, told
    (shard,) = (place / "answers").glob("*.parquet")
    assert parquet.read_table(str(shard))["label"].null_count == 0


def test_a_campaign_is_a_job_whose_cells_run_side_by_side(submit, place):
    own = [f"--model.init_from={place}/begin", f"--task.data={place}/data", WORDS, f"--run.storage_path={place}/runs"]
    code, told = submit("finetune", *own, "--run.name=sweep", "--train.epochs=1", "--campaign.seeds=[1, 2, 3]")
    assert code == 0, told
    assert "3 of 3 cells done" in told
    assert len((place / "runs/sweep/cells.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        (
            "finetune",
            ("--run.storage_path=/runs", "--model.init_from=/m", "--task.data=data"),
            "task.data=data is a relative",
        ),
        ("evaluate", ("--models", "runs/a", "--task.data=/data", "--to=/to"), "models[0]=runs/a is a relative"),
        ("predict", ("--model=/m", "--input=/a.csv", "--to=out"), "to=out is a relative"),
    ],
)
def test_relative_paths_are_refused_inside_a_job(submit, script, arguments, told):
    code, printed = submit(script, *arguments)
    assert (code, told in printed, "exit 2 (usage)" in printed) == (1, True, True), printed
