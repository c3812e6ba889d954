"""Training for real: Ray Data, Ray Train workers over gloo, checkpoints, MLflow; the laws of world size and resume."""

import os
import re
import signal

import psutil
import pytest
import torch
from helpers import small_run
from helpers.faults import fingerprints, losses

from glm_model import GLM
from glm_model.tokenizer import Tokenizer
from infra import checkpoint, config, storage, tracking
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.console import Console, ConsoleConfig
from infra.errors import DivergedError, UserError
from pipelines.prepare import prepare
from pipelines.token_classes import TokenClasses
from workflows import pretrain
from workflows.runs import history
from workflows.runs import run as runs
from workflows.runs.progress import preparation
from workflows.runs.run import settle_model
from workflows.settings.budget import make_budget
from workflows.settings.recipe import Recipe, identity
from workflows.settings.shape import model_config
from workflows.training.loop import train_worker
from workflows.training.ranks import Ranks
from workflows.training.worker import Worker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
QUIET = Console(ConsoleConfig(quiet=True))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_run.write_corpus(tmp_path_factory.mktemp("training") / "corpus")


def recipe_for(corpus, root, *overrides) -> Recipe:
    settings = small_run.settings(corpus) | {
        "train.steps": 6,
        "train.batch_tokens": 1800,
        "train.eval_every": 3,
        "train.checkpoint_every": 2,
        "run.storage_path": root,
        "console.quiet": "true",
    }
    return config.parse(Recipe, description="", argv=[*small_run.flags(settings), *overrides])[0]


def trained(recipe: Recipe, name: str, *, kill_at: int | None = None) -> runs.Run:
    """Train a recipe; with kill_at one train worker gets SIGKILL once that step was logged."""
    run = runs.open_run(recipe, name)
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    tokenizer = Tokenizer.load(opened.url)
    shape = model_config(recipe, opened, tokenizer)
    budget = make_budget(recipe, opened, shape, TokenClasses.of(tokenizer))
    link = Link.create(f"link-{name}")
    job = runs.worker_job(recipe, run, opened, budget, shape, tracking.NOT_TRACKED, link=f"link-{name}")
    killed: list[int] = []

    def poll() -> None:
        for post in link.poll():
            if kill_at and post.get("step", 0) >= kill_at and not killed:
                killed.append(worker_pid())
                os.kill(killed[0], signal.SIGKILL)

    run_workers(
        train_worker,
        job,
        recipe.train,
        name=run.attempt_name(),
        storage_path=storage.join(run.url, "ray"),
        poll=poll,
        stop=link.request_stop,
    )
    assert bool(killed) == bool(kill_at), "the worker was killed when it was to be"
    return run


def worker_pid() -> int:
    below = psutil.Process().children(recursive=True)
    workers = [p for p in below if "RayTrainWorker" in " ".join([p.name(), *p.cmdline()])]
    assert workers, "Ray Train's workers are processes below this one"
    return workers[-1].pid


def weights(run: runs.Run) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(run.checkpoints_url)
    assert found is not None
    assert found.step == 6
    return checkpoint.load(found.url).model


@pytest.fixture(scope="module")
def two_workers(local_ray, corpus, tmp_path_factory):
    return trained(recipe_for(corpus, tmp_path_factory.mktemp("runs"), "--train.num_workers=2"), "two")


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_world_size_is_invisible(local_ray, corpus, tmp_path, two_workers, workers):
    """Law 6: the same examples and, within 1e-5, the same losses for any number of workers."""
    run = trained(recipe_for(corpus, tmp_path, f"--train.num_workers={workers}"), f"world-{workers}")
    assert fingerprints(run.url) == fingerprints(two_workers.url)
    assert len(fingerprints(run.url)) == 6
    assert losses(run.url) == pytest.approx(losses(two_workers.url), rel=1e-5)


def test_a_killed_worker_is_invisible(local_ray, corpus, tmp_path, two_workers):
    """Law 7: after SIGKILL of a worker the group restarts from the last checkpoint and ends bit-equal."""
    run = trained(recipe_for(corpus, tmp_path, "--train.num_workers=2"), "killed", kill_at=3)
    assert fingerprints(run.url) == fingerprints(two_workers.url)
    assert losses(run.url) == losses(two_workers.url)
    expected = weights(two_workers)
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())


def test_a_continued_run_computes_in_the_precision_it_began_with(local_ray, corpus, two_workers):
    """`train.precision=auto` may mean another one on the machine that continues it."""
    alone = Ranks(0, 1, torch.device("cpu"))
    assert [alone.precision(asked) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]
    recipe = recipe_for(corpus, os.path.dirname(two_workers.url), "--train.precision=bf16")
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    tokenizer = Tokenizer.load(opened.url)
    shape = model_config(recipe, opened, tokenizer)
    budget = make_budget(recipe, opened, shape, TokenClasses.of(tokenizer))
    job = runs.worker_job(recipe, two_workers, opened, budget, shape, tracking.NOT_TRACKED, link=None)
    worker = Worker(job, alone)
    worker.close()
    assert (worker.step, worker.place.precision, worker.training.step.precision) == (6, "fp32", "fp32")


@pytest.mark.slow
def test_checkpointed_activations_change_neither_identity_nor_weights(local_ray, corpus, tmp_path, two_workers):
    recipe = recipe_for(corpus, tmp_path, "--train.num_workers=2", "--train.checkpoint_activations=true")
    assert identity(recipe) == identity(recipe_for(corpus, tmp_path))
    run = trained(recipe, "checkpointed")
    assert losses(run.url) == losses(two_workers.url)
    ours, theirs = weights(run), weights(two_workers)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_pretrain_trains_tracks_exports_and_ends(local_ray, corpus, mlflow_root, capsys, monkeypatch):
    """The whole command with MLflow, then the same command again."""
    recipe = recipe_for(corpus, mlflow_root, "--train.num_workers=1", "--tracking.enabled=true")
    run = runs.open_run(recipe, "whole")
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    pretrain.train(recipe, run, opened, Console())
    shown = capsys.readouterr().out
    assert re.search(r"validation: \d\.\d+ -> \d\.\d+ bits per byte", shown)
    assert "workflows/generate.py --model" in shown

    from mlflow import MlflowClient

    record = storage.read_json(storage.join(run.url, "run.json"))
    client = MlflowClient(record["tracking_uri"])
    tracked = client.get_run(record["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["optim.lr"] == "0.01"
    assert tracked.inputs.dataset_inputs[0].dataset.digest == opened.digest[:32]
    for name in (
        "train/loss",
        "train/loss_token",
        "train/learning_rate",
        "perf/tokens_per_second",
        "val/bits_per_byte",
    ):
        assert tracked.data.metrics[name] > 0, name
    artifacts = {item.path for item in client.list_artifacts(record["mlflow_run_id"])}
    assert artifacts >= {"config.yaml", "examples.html", "model"}
    assert runs.open_run(recipe, "whole").finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record["tracking_uri"])
    past = history.open_past(record["mlflow_run_id"])
    logged = history.fingerprints(history.read_log(past.url))
    assert {step: history.batch_of(past, step).fingerprint for step in range(1, 7)} == logged
    with pytest.raises(UserError, match=r"optim\.lr was 0\.01, is 0\.02"):
        runs.open_run(recipe_for(corpus, mlflow_root, "--train.num_workers=1", "--optim.lr=0.02"), "whole")


@pytest.mark.slow
def test_a_run_that_diverges_says_so_once(local_ray, corpus, tmp_path, capsys):
    """Ray Train restarts workers after any error; one that is the settings' fault would come again after each."""
    recipe = recipe_for(corpus, tmp_path, "--train.num_workers=2", "--optim.lr=1e30")
    run = runs.open_run(recipe, "diverging")
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    with pytest.raises(DivergedError, match="the gradient is not finite at 4 steps in a row, 2 to 5"):
        pretrain.train(recipe, run, opened, Console())
    assert capsys.readouterr().out.count("step 0: validation") == 1


@pytest.mark.slow
def test_hours_become_steps_once(local_ray, corpus, tmp_path, capsys, monkeypatch):
    settings = ("--train.num_workers=2", "--train.steps=null", "--train.hours=0.001")
    recipe = recipe_for(corpus, tmp_path, *settings)
    run = runs.open_run(recipe, "timed")
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    pretrain.train(recipe, run, opened, Console())
    steps = storage.read_json(storage.join(run.url, "run.json"))["steps"]
    assert f"{steps:,} steps of " in capsys.readouterr().out
    reached = checkpoint.latest(run.checkpoints_url)
    assert reached is not None
    assert reached.step == steps
    assert sorted(os.listdir(tmp_path)) == ["timed"], "the calibration left nothing"
    monkeypatch.setattr(pretrain, "measure_pace", pytest.fail)
    again = runs.open_run(recipe, "timed")
    shape = settle_model(again, recipe, pytest.fail)
    token_classes = TokenClasses.of(Tokenizer.load(opened.url))
    assert pretrain._settled(recipe, again, opened, shape, token_classes, Console()).steps == steps


@pytest.mark.slow
def test_a_run_whose_validation_gets_no_better_ends_early(local_ray, corpus, tmp_path, capsys):
    settings = (
        "--train.num_workers=2",
        "--train.steps=50",
        "--train.eval_every=1",
        "--train.patience=2",
        "--optim.lr=1e-30",  # too small to change a weight
    )
    recipe = recipe_for(corpus, tmp_path, *settings)
    run = runs.open_run(recipe, "early")
    opened = prepare(recipe.data, recipe.blanks, progress=preparation(QUIET))
    pretrain.train(recipe, run, opened, Console())
    assert "ended at step 2 of 50: no better for 2 validations" in capsys.readouterr().out
    assert runs.open_run(recipe, "early").finished
    assert GLM.from_pretrained(run.model_url).config.layers == 2
