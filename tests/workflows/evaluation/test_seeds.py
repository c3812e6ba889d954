"""Models that differ in their seed alone: mean and spread on the screen, in the files and in MLflow."""

import json
import statistics
import sys
from pathlib import Path

import pytest
from helpers import asked

from infra.errors import run_main
from infra.tracking.mlflow_client import client_of
from workflows import evaluate
from workflows.evaluation.models import find_models
from workflows.runs.record import RunRecord, write_record
from workflows.settings.identity import seed_group

WORDS = {"bad": "cat", "good": "dog"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_tokenizer) -> Path:
    """Three fine-tunings that differ in their seed, and one with other settings."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, group in (("sst-1", 1, "ab"), ("sst-2", 2, "ab"), ("sst-3", 3, "ab"), ("other", 1, "cd")):
        model = asked.model_folder(folder / name / "model", tiny_tokenizer, seed=seed)
        asked.teach(model, WORDS, seed=seed, group=group * 32)
    return folder


@pytest.fixture
def evaluated(monkeypatch, capsys, tmp_path, runs, mlflow_root):
    """What the command printed, in a folder of its own, for these models."""
    data = asked.write(tmp_path / "data" / "dev.jsonl", asked.rows(30))
    monkeypatch.chdir(tmp_path)

    def evaluated(*models: str) -> str:
        argv = [
            "--models",
            *models,
            f"--task.data={data}",
            "--task.id=id",
            "--to=out",
            "--task.metrics=[accuracy, mcc]",
        ]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *argv, f"--tracking.uri=sqlite:///{mlflow_root}/mlflow.db"])
        with pytest.raises(SystemExit) as stopped:
            run_main(evaluate.main)
        captured = capsys.readouterr()
        assert (stopped.value.code, captured.err) == (0, "")
        return captured.out

    return evaluated


def test_mean_and_spread_over_seeds_stand_apart_from_the_interval_over_items(evaluated, runs, tmp_path, mlflow_root):
    for _ in range(2):  # the second time it is shown again
        out = evaluated(f"{runs}/sst-*", f"{runs}/sst-2", f"{runs}/other")
    told = json.loads((tmp_path / "out/scores.json").read_text())
    first, second = told["seeds"]
    values = {one["model"]: one["value"] for one in told["scores"] if one["metric"] == "accuracy"}
    of_seeds = [values[name] for name in ("sst-1", "sst-2", "sst-3")]
    assert len({*of_seeds}) == 3
    assert first["mean"] == pytest.approx(statistics.fmean(of_seeds))
    assert first["sd"] == pytest.approx(statistics.stdev(of_seeds))
    assert (first["models"], first["seeds"], first["n"], second["metric"]) == ("sst-*", [1, 2, 3], 30, "mcc")
    assert first["low"] < first["mean"] < first["high"]
    assert "models that differ in their seed alone" in out
    page = (tmp_path / "out/evaluation.html").read_text()
    assert f'<td class="n">{first["mean"]:.1f}</td><td class="n">{first["sd"]:.1f}</td>' in page

    client = client_of(f"sqlite:///{mlflow_root}/mlflow.db")
    experiment = client.get_experiment_by_name("glm")
    assert experiment is not None
    entries = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {*entries} == {"eval-sst-*", "eval-sst-1", "eval-sst-2", "eval-sst-3", "eval-other"}
    parent, name = entries["eval-sst-*"], "eval/classification/accuracy"
    shown = {key: value for key, value in parent.data.metrics.items() if key.startswith(name)}
    assert shown == {
        name: first["mean"],
        f"{name}_sd": first["sd"],
        f"{name}_seeds": 3.0,
        f"{name}_n": 30.0,
        f"{name}_low": first["low"],
        f"{name}_high": first["high"],
    }
    parents = {key: run.data.tags.get("mlflow.parentRunId") for key, run in entries.items()}
    assert parents.pop("eval-sst-2") == parents.pop("eval-sst-1") == parents.pop("eval-sst-3") == parent.info.run_id
    assert {*parents.values()} == {None}
    inputs = client.get_run(parent.info.run_id).inputs
    assert inputs is not None
    assert len(inputs.model_inputs) == 3


def test_runs_are_of_one_group_whose_settings_differ_in_the_seed_alone(tmp_path, tiny_tokenizer):
    for name, seed, rate in (("a", "1", "0.1"), ("b", "2", "0.1"), ("c", "3", "0.2")):
        asked.model_folder(tmp_path / name / "model", tiny_tokenizer)
        write_record(RunRecord(name, "0" * 64, {"train.seed": seed, "optim.lr": rate}), str(tmp_path / name))
    models = find_models([f"{tmp_path}/*"])
    assert [(model.name, model.seed) for model in models] == [("a", 1), ("b", 2), ("c", 3)]
    assert [model.group == models[0].group for model in models] == [True, True, False]
    assert models[0].group == seed_group({"optim.lr": "0.1"})
