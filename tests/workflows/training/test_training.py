"""Training for real: Ray Data, Ray Train workers over gloo, checkpoints, MLflow; the laws of world size and resume."""

import os
import re
import shutil
import signal
from dataclasses import replace

import psutil
import pytest
import torch
from helpers import asked, small_run
from helpers.faults import fingerprints, losses

from glm_model import GLM, Tokenizer, from_pretrained
from glm_model.config import OptimConfig
from infra import checkpoint, config, storage, tracking
from infra.console import Console, ConsoleConfig
from infra.errors import DivergedError, UserError
from pipelines.store.format import TokenStore
from workflows.runs import history, pace
from workflows.runs.launch import job_of, launch
from workflows.runs.moved import check_finished, own_store
from workflows.runs.preparation import store_maker
from workflows.runs.pretraining import pretrain
from workflows.runs.run import Run, open_run, start
from workflows.runs.setup import resolve_setup
from workflows.runs.workers import Messages
from workflows.settings.identity import identity
from workflows.settings.recipe import Recipe
from workflows.training.messages import Point
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


def store_of(recipe: Recipe) -> TokenStore:
    return store_maker(recipe, QUIET)()


def trained(recipe: Recipe, name: str, *, kill_at: int | None = None) -> Run:
    """Train a recipe; with kill_at one train worker gets SIGKILL once that step was logged."""
    run, setup = open_run(recipe, name), resolve_setup(recipe, store_of(recipe), QUIET)
    killed: list[int] = []

    def kill(messages: Messages) -> None:
        if kill_at and not killed and any(isinstance(one, Point) and one.step >= kill_at for one in messages):
            killed.append(worker_pid())
            os.kill(killed[0], signal.SIGKILL)

    launch(setup, run, tracking.NOT_TRACKED, on_messages=kill)
    assert bool(killed) == bool(kill_at), "the worker was killed when it was to be"
    return run


def worker_pid() -> int:
    below = psutil.Process().children(recursive=True)
    workers = [p for p in below if "RayTrainWorker" in " ".join([p.name(), *p.cmdline()])]
    assert workers, "Ray Train's workers are processes below this one"
    return workers[-1].pid


def weights(run: Run) -> dict[str, torch.Tensor]:
    found = checkpoint.latest(run.checkpoints_url)
    assert found is not None
    assert found.step == 6
    return checkpoint.load(found.url).model


def asking(corpus) -> list[str]:
    """Settings that ask tasks at each validation, one of them at the first step, whose checkpoint stays."""
    folder, rows = corpus.parent / "tasks", asked.rows(30)
    pairs = [
        {"UID": "one", "pairID": str(n), "sentence_good": f"golden {row['text']}", "sentence_bad": row["text"]}
        for n, row in enumerate(rows)
    ]
    asked.write(folder / "pairs" / "dev.jsonl", pairs)
    asked.write(folder / "words" / "dev.jsonl", [{"text": f"the evening {row['text']} june"} for row in rows])
    several = f"[{{name: blimp, data: {folder}/pairs}}, {{name: lambada, data: {folder}/words}}]"
    return [f"--train.eval_tasks={several}", "--train.eval_items=20", "--train.keep_at_tokens=[1]"]


def of_tasks(run: Run) -> dict[tuple[int, str], float]:
    """(step, metric) -> value."""
    values = ((point.step, name, value) for point in history.read_log(run.url) for name, value in point.values.items())
    return {(step, name): value for step, name, value in values if name.startswith("eval/")}


@pytest.fixture(scope="module")
def two_workers(local_ray, corpus, tmp_path_factory):
    return trained(recipe_for(corpus, tmp_path_factory.mktemp("runs"), "--train.num_workers=2", *asking(corpus)), "two")


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_world_size_is_invisible(local_ray, corpus, tmp_path, two_workers, workers):
    """Law 6: the same examples and, within 1e-5, the same losses for any number of workers."""
    run = trained(recipe_for(corpus, tmp_path, f"--train.num_workers={workers}", *asking(corpus)), f"world-{workers}")
    assert fingerprints(run.url) == fingerprints(two_workers.url)
    assert len(fingerprints(run.url)) == 6
    assert losses(run.url) == pytest.approx(losses(two_workers.url), rel=1e-5)
    assert of_tasks(run) == pytest.approx(of_tasks(two_workers), rel=1e-5)
    names = ("eval/blimp/accuracy", "eval/lambada/accuracy", "eval/lambada/bits")
    assert {*of_tasks(run)} == {(step, name) for step in (0, 1, 3, 6) for name in names}


def test_a_checkpoint_stays_at_the_tokens_that_are_named(two_workers):
    """Step 1; besides, the newest two, and the one that validation found best."""
    assert [one.step for one in checkpoint.complete(two_workers.checkpoints_url)] == [1, 4, 6]
    values = [point.values for point in history.read_log(two_workers.url) if point.step == 1]
    assert {"val/bits_per_byte", "eval/blimp/accuracy", "data/tokens"} < {name for point in values for name in point}


def test_a_killed_worker_is_invisible(local_ray, corpus, tmp_path, two_workers):
    """Law 7: after SIGKILL of a worker the group restarts from the last checkpoint and ends bit-equal."""
    run = trained(recipe_for(corpus, tmp_path, "--train.num_workers=2", *asking(corpus)), "killed", kill_at=3)
    assert fingerprints(run.url) == fingerprints(two_workers.url)
    assert losses(run.url) == losses(two_workers.url)
    assert of_tasks(run) == of_tasks(two_workers)
    expected = weights(two_workers)
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())


def test_a_run_that_moved_with_all_that_it_needs_goes_on(local_ray, corpus, tmp_path, two_workers):
    """It was stopped at step 4; the folder with its text, its store and itself is moved, twice."""
    a, b, c = (tmp_path / name for name in "abc")
    shutil.copytree(corpus, a / "corpus")
    shutil.copytree(f"{corpus}-data", a / "corpus-data")
    before, moved = (recipe_for(at / "corpus", at / "runs", "--train.num_workers=1") for at in (a, b))
    begun, _ = start(resolve_setup(before, store_of(before), QUIET), open_run(before, "m"))
    for name in ("checkpoints/step-00000004", "metrics.jsonl"):
        copy = shutil.copytree if name.startswith("checkpoints") else shutil.copy
        copy(os.path.join(two_workers.url, name), os.path.join(begun.url, name))
    a.rename(b)
    run = pretrain(moved, open_run(moved, "m"), own_store(open_run(moved, "m"), moved) or store_of(moved), QUIET)
    assert not a.exists()
    assert fingerprints(run.url) == fingerprints(two_workers.url)
    assert losses(run.url) == pytest.approx(losses(two_workers.url), rel=1e-5)
    b.rename(c)
    past = history.open_past(f"{c}/runs/m")
    assert past.setup.store.url.startswith(f"{c}/corpus-data/stores/")
    assert history.batch_of(past, 6).fingerprint == fingerprints(two_workers.url)[6]
    assert torch.equal(
        from_pretrained(f"{c}/runs/m").token_embedding.weight,
        weights(Run(f"{c}/runs/m", run.record))["token_embedding.weight"],
    )
    assert Tokenizer.load(f"{c}/runs/m").digest == past.setup.tokenizer.digest
    finished = recipe_for(c / "corpus", c / "runs", "--train.num_workers=1")
    check_finished(open_run(finished, "m"), finished)


def test_a_continued_run_computes_in_the_precision_it_began_with(local_ray, corpus, two_workers):
    """`train.precision=auto` may mean another one on the machine that continues it."""
    alone = Ranks(0, 1, torch.device("cpu"))
    assert [alone.precision(asked) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]
    recipe = recipe_for(corpus, os.path.dirname(two_workers.url), "--train.precision=bf16")
    setup = resolve_setup(recipe, store_of(recipe), QUIET)
    worker = Worker(job_of(setup, two_workers, tracking.NOT_TRACKED, link=None), alone)
    worker.close()
    assert (worker.step, worker.place.precision, worker.training.step.precision) == (6, "fp32", "fp32")


def test_a_checkpoint_of_another_optimizer_is_refused_by_name(local_ray, corpus, two_workers):
    recipe = recipe_for(corpus, os.path.dirname(two_workers.url))
    job = job_of(resolve_setup(recipe, store_of(recipe), QUIET), two_workers, tracking.NOT_TRACKED, link=None)
    with pytest.raises(UserError, match=r"the checkpoint is one of optim\.name=muon, and this run has .*=adamw"):
        Worker(replace(job, optim=OptimConfig()), Ranks(0, 1, torch.device("cpu")))


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
    store = store_of(recipe)
    run = pretrain(recipe, open_run(recipe, "whole"), store, Console())
    shown = capsys.readouterr().out
    assert re.search(r"validation: \d\.\d+ \S+ \d\.\d+ bits per byte", shown)  # a curve between first and last
    assert "workflows/generate.py --model" in shown

    from mlflow import MlflowClient

    record = storage.read_json(storage.join(run.url, "run.json"))
    client = MlflowClient(record["tracking_uri"])
    tracked = client.get_run(record["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["optim.lr"] == "0.01"
    assert tracked.inputs.dataset_inputs[0].dataset.digest == store.digest[:8]
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
    assert open_run(recipe, "whole").record.finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record["tracking_uri"])
    past = history.open_past(record["mlflow_run_id"])
    logged = history.fingerprints(history.read_log(past.url))
    assert {step: history.batch_of(past, step).fingerprint for step in range(1, 7)} == logged
    with pytest.raises(UserError, match=r"optim\.lr was 0\.01, is 0\.02"):
        open_run(recipe_for(corpus, mlflow_root, "--train.num_workers=1", "--optim.lr=0.02"), "whole")
    with pytest.raises(UserError, match=r"other settings: optim\.name was muon, is adamw"):
        open_run(recipe_for(corpus, mlflow_root, "--train.num_workers=1", "--optim.name=adamw"), "whole")


@pytest.mark.slow
def test_a_run_that_diverges_says_so_once(local_ray, corpus, tmp_path, capsys):
    """Ray Train restarts workers after any error; one that is the settings' fault would come again after each."""
    recipe = recipe_for(corpus, tmp_path, "--train.num_workers=2", "--optim.lr=1e30")
    run, store = open_run(recipe, "diverging"), store_of(recipe)
    with pytest.raises(DivergedError, match="the gradient is not finite at 4 steps in a row, 2 to 5"):
        pretrain(recipe, run, store, Console())
    assert capsys.readouterr().out.count("step 0: validation") == 1


@pytest.mark.slow
def test_hours_become_steps_once(local_ray, corpus, tmp_path, capsys, monkeypatch):
    settings = ("--train.num_workers=2", "--train.steps=null", "--train.hours=0.001")
    recipe = recipe_for(corpus, tmp_path, *settings)
    store = store_of(recipe)
    run = pretrain(recipe, open_run(recipe, "timed"), store, Console())
    steps = storage.read_json(storage.join(run.url, "run.json"))["steps"]
    assert f"{steps:,} steps of " in capsys.readouterr().out
    reached = checkpoint.latest(run.checkpoints_url)
    assert reached is not None
    assert reached.step == steps
    assert sorted(os.listdir(tmp_path)) == ["timed"], "the calibration left nothing"
    monkeypatch.setattr(pace, "measure_pace", pytest.fail)
    again = open_run(recipe, "timed")
    assert again.record.steps == steps
    setup = resolve_setup(recipe, store, QUIET, shape=again.record.model, steps=again.record.steps)
    assert pace.resolve_length(setup, again).budget.steps == steps


@pytest.mark.slow
def test_a_run_whose_validation_gets_no_better_ends_early(local_ray, corpus, tmp_path, capsys):
    settings = (
        "--train.num_workers=2",
        "--train.steps=50",
        "--train.eval_every=1",
        "--train.patience=2",
        "--optim.lr=1e-30",  # both too small to change a weight
        "--optim.matrix_lr=1e-30",
    )
    recipe = recipe_for(corpus, tmp_path, *settings)
    run = pretrain(recipe, open_run(recipe, "early"), store_of(recipe), Console())
    assert "ended at step 2 of 50: no better for 2 validations" in capsys.readouterr().out
    assert open_run(recipe, "early").record.finished
    assert GLM.from_pretrained(run.model_url).config.layers == 2
