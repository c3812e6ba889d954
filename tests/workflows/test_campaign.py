"""A campaign as a user calls it: planned, run side by side and shown again, refused where its recipe changed; and what
is left of it when it is killed.
"""

import csv
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from helpers import asked
from helpers.patience import PATIENCE
from helpers.scripts import called

from glm_model import GLM, GLMConfig, save_pretrained
from infra import config
from infra.console import Console, ConsoleConfig
from infra.errors import Interrupted
from infra.tracking.mlflow_client import client_of
from workflows import finetune
from workflows.campaigns.campaign import how_to_go_on, open_campaign
from workflows.campaigns.planned import logged_step
from workflows.runs.record import RunRecord, read_record, write_record
from workflows.runs.run import Run, locked
from workflows.settings.campaign import CampaignRecipe
from workflows.settings.places import resolve_campaign_paths

ROOT = Path(__file__).resolve().parents[2]
SHAPE = GLMConfig(layers=1, width=16, heads=2, vocab_size=128, positions=64)
WORDS = {"bad": "cat", "good": "dog"}


@pytest.fixture
def place(tmp_path, tiny_tokenizer) -> Path:
    torch.manual_seed(0)
    save_pretrained(GLM(SHAPE), str(tmp_path / "begin"), tokenizer=tiny_tokenizer)
    for split in ("train", "dev"):
        asked.write(tmp_path / "data" / f"{split}.jsonl", asked.rows(48))
    return tmp_path


def settings(place: Path, *more: str) -> list[str]:
    own = [f"--task.data={place}/data", f"--task.words={json.dumps(WORDS)}", "--task.id=id", "--run.name=sweep"]
    kept = [f"--model.init_from={place}/begin", f"--run.storage_path={place}/runs", "--tracking.enabled=false"]
    return [*own, *kept, "--train.steps=4", "--train.select_on=none", *more]


@pytest.fixture
def run(monkeypatch, capsys):
    return functools.partial(called, monkeypatch, capsys, finetune)


def table(text: str) -> list[str]:
    """The lines of a printed table or header, with single blanks."""
    return [" ".join(line.split()) for line in text.splitlines() if not line.startswith("reading cells")]


def test_a_plan_lists_the_cells_what_exists_and_what_is_left(run, place):
    seeds = ["--campaign.seeds=[1, 2]", "--campaign.lr=[1e-3, 2e-3]"]
    code, told = run(*settings(place, "--plan", *seeds))
    assert code == 0, told
    (place / "runs" / "sweep-lr=0.001-seed=1").mkdir(parents=True)
    code, again = run(*settings(place, "--plan", *seeds))
    assert (code, table(again)) == (0, table(told))
    lines = table(told)
    assert "cells 4 cells: tasks classification; lr 0.001, 0.002; seeds 1, 2" in lines
    assert "exists 0 finished, 0 begun, 4 to do" in lines
    for lr in ("0.001", "0.002"):
        for seed in (1, 2):
            row = f"sweep-lr={lr}-seed={seed} classification {lr} {seed} 48 4 to do"
            assert row in lines, told
    assert any(line.startswith("time ") and "assumed rates, --calibrate measures" in line for line in lines), told


def finish_first(place: Path, *flags: str) -> None:
    """Make the run of the first cell one that is finished, without training it."""
    recipe = config.parse(CampaignRecipe, description="", argv=settings(place, *flags)).config
    screen = Console(ConsoleConfig(quiet=True))
    campaign = open_campaign(resolve_campaign_paths(recipe, in_job=False), "", screen)
    first = campaign.cells[0].run.with_record(finished=True)
    write_record(first.record, first.url)


def test_a_campaign_whose_recipe_changed_since_is_refused_by_name(run, place):
    seeds = "--campaign.seeds=[1, 2]"
    finish_first(place, seeds)
    code, told = run(*settings(place, "--plan", seeds))
    assert (code, "exists 1 finished, 0 begun, 1 to do" in table(told)) == (0, True), told
    code, told = run(*settings(place, "--plan", "--campaign.seeds=[1, 2, 3]"))
    assert (code, "exists 1 finished, 0 begun, 2 to do" in table(told)) == (0, True), told
    code, told = run(*settings(place, "--plan", seeds, "--optim.lr=0.5"))
    assert code == 2
    assert (
        "the cell sweep-seed=1: the run 'sweep-seed=1' exists with other settings: optim.lr was 0.0001, is 0.5" in told
    )
    rows = asked.rows(48)
    rows[0]["label"] = "good"
    asked.write(place / "data" / "train.jsonl", rows)
    code, told = run(*settings(place, "--plan", seeds))
    assert (code, "the cell sweep-seed=1" in told, "items was" in told) == (2, True, True), told


def test_cells_that_are_the_same_training_are_refused_by_name(run, place):
    code, told = run(*settings(place, "--plan", "--campaign.grid={train.log_every: [1, 2]}"))
    assert code == 2
    assert "the cells sweep-log_every=1 and sweep-log_every=2 are the same training" in told


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--campaign.grid={task.label: [label, mark]}"], 3, "the cell sweep-label=mark: the split train of"),
        (["--campaign.grid={model.init_from: [nowhere]}"], 3, "the cell sweep-init_from=nowhere: --model"),
        (
            ["--campaign.seeds=[1]", "--train.items=4", "--train.num_workers=2"],
            2,
            "the cell sweep-seed=1: 2 workers for",
        ),
        (
            ["--campaign.seeds=[1]", "--campaign.split=devv"],
            2,
            "--campaign.split=devv of the cell sweep-seed=1: unknown",
        ),
        (["--campaign.tasks", "cb", "--campaign.data=nowhere"], 3, "nowhere does not exist"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(run, place, flags, code, told):
    found, printed = run(*settings(place, "--plan", *flags))
    assert (found, told in printed) == (code, True), printed
    assert not (place / "runs").exists()


def test_finished_cells_are_not_run_but_asked_and_told_together(run, place, tiny_tokenizer, mlflow_root, monkeypatch):
    monkeypatch.setattr("infra.cluster.connect.connect", lambda *_, **__: pytest.fail("Ray starts"))
    seeds, uri = "--campaign.seeds=[1, 2]", f"sqlite:///{mlflow_root}/mlflow.db"
    recipe = config.parse(CampaignRecipe, description="", argv=settings(place, seeds)).config
    for planned in open_campaign(recipe, "", Console(ConsoleConfig(quiet=True))).cells:
        own, seed = planned.run.with_record(finished=True), planned.cell.seed
        write_record(own.record, own.url)
        asked.model_folder(Path(own.model_url), tiny_tokenizer, seed=seed)
        asked.teach(own.model_url, WORDS, seed=seed, group=planned.setup.group)
    for _ in range(2):
        code, told = run(*settings(place, seeds, "--tracking.enabled=true", f"--tracking.uri={uri}"))
        assert (code, "exists 2 finished, 0 begun, 0 to do" in table(told)) == (0, True), told
    assert "viewStateShareKey=glm-campaign" in told
    assert f"evaluate.py --models '{place}/runs/sweep-*'\n" in told  # by itself each is asked its own task
    cells = [*csv.DictReader((place / "runs/sweep/cells.csv").read_text().splitlines())]
    values = [float(one["score"]) for one in cells]
    (mean,) = csv.DictReader((place / "runs/sweep/means.csv").read_text().splitlines())
    assert float(mean["mean"]) == pytest.approx(statistics.fmean(values))
    assert float(mean["sd"]) == pytest.approx(statistics.stdev(values)) != 0
    assert (mean["task"], mean["metric"], mean["seeds"], mean["n"]) == ("classification", "accuracy", "2", "48")
    (parent,) = client_of(uri).search_runs(["1"])
    name = "eval/classification/accuracy"
    assert [parent.data.metrics[name], parent.data.metrics[f"{name}_sd"]] == [float(mean["mean"]), float(mean["sd"])]
    assert len(client_of(uri).get_metric_history(parent.info.run_id, name)) == 1
    assert parent.data.tags["glm.status"] == "finished"
    experiment = client_of(uri).get_experiment("1")
    assert {"mlflow.sharedViewState.glm-campaign", "mlflow.sharedViewState.glm-cells-sweep"} <= {*experiment.tags}
    assert "viewStateShareKey=glm-cells-sweep" in parent.data.tags["mlflow.note.content"]
    page = (place / "runs/sweep/campaign.html").read_text()
    assert f'<td class="n">{float(mean["mean"]):.1f}</td><td class="n">{float(mean["sd"]):.1f}</td>' in page


@pytest.mark.parametrize(("flags", "words"), [((), ""), (("--run.fresh=true",), " without --run.fresh")])
def test_a_campaign_from_scratch_goes_on_by_another_command(place, flags, words):
    recipe = config.parse(CampaignRecipe, description="", argv=settings(place, *flags)).config
    assert how_to_go_on(recipe) == f"run the same command{words}: it goes on with what is not finished"


def test_a_campaign_from_scratch_that_is_stopped_has_nothing_of_what_was_finished_before(run, place, monkeypatch):
    def stop(*_, **__):
        raise Interrupted("stopped")

    monkeypatch.setattr("workflows.campaigns.campaign._run_cells", stop)
    seeds = "--campaign.seeds=[1, 2]"
    finish_first(place, seeds)
    code, told = run(*settings(place, "--plan", seeds, "--run.fresh=true"))
    assert (code, "exists 0 finished, 0 begun, 2 to do" in table(told)) == (0, True), told
    assert (place / "runs" / "sweep-seed=1" / "run.json").exists()  # a plan removes nothing
    assert run(*settings(place, seeds, "--run.fresh=true"))[0] == 130
    code, told = run(*settings(place, "--plan", seeds))
    assert (code, "exists 0 finished, 0 begun, 2 to do" in table(told)) == (0, True), told


def test_a_campaign_from_scratch_removes_nothing_where_a_cell_is_being_trained(run, place):
    seeds = "--campaign.seeds=[1, 2]"
    finish_first(place, seeds)
    url = str(place / "runs" / "sweep-seed=2")
    with locked(Run(url, RunRecord(name="sweep-seed=2", identity="", settings={}))):
        code, told = run(*settings(place, seeds, "--run.fresh=true"))
    assert (code, "the run 'sweep-seed=2' is being trained by another process" in told) == (2, True), told
    assert (place / "runs" / "sweep-seed=1" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(180)
def test_cells_run_side_by_side_and_what_they_come_to_is_in_files_and_in_mlflow(run, place, local_ray, mlflow_root):
    uri = f"sqlite:///{mlflow_root}/mlflow.db"
    words = settings(place, "--campaign.seeds=[1, 2]", "--tracking.enabled=true", f"--tracking.uri={uri}")
    code, told = run(*words)
    assert code == 0, told
    assert "2 of 2 cells done" in told
    (mean,) = csv.DictReader((place / "runs/sweep/means.csv").read_text().splitlines())
    cells = [*csv.DictReader((place / "runs/sweep/cells.csv").read_text().splitlines())]
    assert [(one["cell"], one["seed"], one["is"]) for one in cells] == [
        ("sweep-seed=1", "1", "finished"),
        ("sweep-seed=2", "2", "finished"),
    ]
    client = client_of(uri)
    runs = {one.info.run_name: one for one in client.search_runs(["1"])}
    assert {*runs} == {"sweep", "sweep-seed=1", "sweep-seed=2"}
    parent, name = runs["sweep"], "eval/classification/accuracy"
    of_cells = [runs[f"sweep-seed={seed}"] for seed in (1, 2)]
    values = [one.data.metrics[name] for one in of_cells]
    metrics = parent.data.metrics
    assert metrics[name] == pytest.approx(statistics.fmean(values)) == float(mean["mean"])
    assert metrics[f"{name}_sd"] == pytest.approx(statistics.stdev(values)) == float(mean["sd"])
    assert (metrics[f"{name}_seeds"], metrics[f"{name}_n"]) == (2.0, 48.0)
    assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert {one.data.tags["mlflow.parentRunId"] for one in of_cells} == {parent.info.run_id}
    found = client.search_runs(["1"], "tags.`glm.campaign` = 'sweep' AND tags.`glm.phase` = 'finetune'")
    assert len(found) == 2
    assert {one.info.status for one in runs.values()} == {"FINISHED"}
    assert {one.path for one in client.list_artifacts(parent.info.run_id)} == {
        *("campaign.html", "cells.csv", "means.csv", "config.yaml"),
    }
    assert parent.data.params["train.seed"] == '["1", "2"]'

    before = [client.get_metric_history(parent.info.run_id, name), *((place / "runs").glob("*/ray/*"))]
    code, again = run(*words)  # nothing is left to do: it is shown again
    assert (code, "exists 2 finished, 0 begun, 0 to do" in table(again)) == (0, True), again
    assert [client.get_metric_history(parent.info.run_id, name), *((place / "runs").glob("*/ray/*"))] == before


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_cell_that_fails_costs_no_other_and_its_cause_is_the_exit_code(run, place, local_ray):
    rates = "--campaign.lr=[1e-3, 1e30, 2e-3]"
    code, told = run(*settings(place, rates, "--train.steps=12", "--campaign.at_once=2"))
    assert code == 4, told
    assert "1 of 3 cells failed" in told
    assert "sweep-lr=1e+30 failed with exit 4 (diverged): " in told
    cells = [*csv.DictReader((place / "runs/sweep/cells.csv").read_text().splitlines())]
    assert [(one["lr"], one["is"], one["score"] == "") for one in cells] == [
        ("0.001", "finished", False),
        ("1e+30", "failed with exit 4 (diverged)", True),
        ("0.002", "finished", False),
    ]
    means = [*csv.DictReader((place / "runs/sweep/means.csv").read_text().splitlines())]
    assert [one["lr"] for one in means] == ["0.001", "0.002"]


def start(place: Path, *more: str) -> subprocess.Popen[bytes]:
    """The command as a shell starts it, with a Ray of its own."""
    words = [sys.executable, str(ROOT / "workflows" / "finetune.py"), *settings(place, *more)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"NO_COLOR": "1"}
    with open(place / "printed", "ab") as printed:
        return subprocess.Popen(words, cwd=ROOT, stdout=printed, stderr=printed, env=environment)


def wait_until(happened, process: subprocess.Popen[bytes], place: Path) -> None:
    until = time.monotonic() + 120 * PATIENCE
    while not happened():
        assert process.poll() is None, (place / "printed").read_text()
        assert time.monotonic() < until, (place / "printed").read_text()
        time.sleep(0.05)  # nothing tells of a step but the run's files


def step_of(place: Path, seed: int) -> int:
    return logged_step(str(place / "runs" / f"sweep-seed={seed}"))


def is_finished(place: Path, seed: int) -> bool:
    folder = place / "runs" / f"sweep-seed={seed}"
    return (folder / "run.json").exists() and read_record(str(folder)).finished


LONG = ("--train.steps=60", "--train.log_every=1", "--train.eval_every=5", "--train.batch=8")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_campaign_that_is_killed_goes_on_with_what_is_not_finished(place):
    flags = ("--campaign.seeds=[1, 2, 3]", "--campaign.at_once=1", "--cluster.local_cpus=2", *LONG)
    first = start(place, *flags)
    wait_until(lambda: is_finished(place, 1) and step_of(place, 2) > 10, first, place)
    (cell,) = [one for one in psutil.Process(first.pid).children() if "children.py" in " ".join(one.cmdline())]
    first.kill()
    first.wait()
    assert psutil.wait_procs([cell], timeout=60)[1] == []
    made_at = (place / "runs/sweep-seed=1/model/model.safetensors").stat().st_mtime_ns
    assert start(place, *flags).wait(timeout=400) == 0, (place / "printed").read_text()
    assert [is_finished(place, seed) for seed in (1, 2, 3)] == [True, True, True]
    assert (place / "runs/sweep-seed=1/model/model.safetensors").stat().st_mtime_ns == made_at
    lines = [json.loads(line) for line in (place / "runs/sweep-seed=2/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "train/loss" in line["values"]]
    assert steps == sorted({*steps})  # none twice: it went on from a checkpoint
    assert len([*csv.DictReader((place / "runs/sweep/cells.csv").read_text().splitlines())]) == 3


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_ctrl_c_leaves_cells_that_go_on(place):
    flags = ("--campaign.seeds=[1, 2]", "--cluster.local_cpus=2", *LONG)
    first = start(place, *flags)
    wait_until(lambda: step_of(place, 1) > 2 or step_of(place, 2) > 2, first, place)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=120) == 130, (place / "printed").read_text()
    printed = (place / "printed").read_text()
    assert "SIGINT: stopping" in printed
    assert "error: stopped: 0 finished" in printed
    assert start(place, *flags).wait(timeout=300) == 0, (place / "printed").read_text()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [1, 2])
def test_more_cells_than_two_cpus_hold_do_not_wait_for_each_other(place, workers):
    flags = ["--campaign.seeds=[1, 2, 3, 4]", "--cluster.local_cpus=2", f"--train.num_workers={workers}"]
    assert start(place, *flags).wait(timeout=360) == 0, (place / "printed").read_text()
    side_by_side = {1: "2 side by side", 2: "1 side by side"}
    assert side_by_side[workers] in (place / "printed").read_text()
