"""Law 20: the reported split never selects a checkpoint, unless the recipe says so and every table repeats it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import asked

from infra.errors import run_main
from infra.tracking.mlflow_client import client_of
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Question, ask_all
from pipelines.questions.rows import Row
from workflows import evaluate
from workflows.finetuning.items import LEAST_SELECTING, draw, select
from workflows.settings.finetune import FinetuneConfig
from workflows.training.finetuning import lowest_is_best


def questions(tokenizer, count: int, *, texts: int) -> list[Question]:
    """So many items with so many different texts."""
    rows = [Row("a.csv", n, {"text": f"cat {n % texts} dog", "label": str(n % 2)}) for n in range(count)]
    task = tasks.define(TaskConfig(words={"0": "cat", "1": "dog"}), lambda: rows)
    return [one for one in ask_all(task, rows, tokenizer, positions=48) if isinstance(one, Question)]


def no_dev() -> list[Question]:
    raise AssertionError("the split dev is not read unless the recipe says so")


def test_a_part_of_train_selects_and_nothing_of_it_trains(tiny_tokenizer):
    every = questions(tiny_tokenizer, 2400, texts=1200)
    selection = select(every, FinetuneConfig(), no_dev)
    assert len(selection.held_out) >= LEAST_SELECTING
    assert selection.told == "10 % of train, held out"
    parts = [{one.item.id for one in part} for part in (selection.train, selection.held_out)]
    assert (parts[0] & parts[1], len(parts[0] | parts[1]), selection.split) == (set(), 2400, "train")
    assert {one.text for one in selection.train} & {one.text for one in selection.held_out} == set()


def test_items_of_a_passage_are_not_parted(tiny_tokenizer):
    every = [
        replace(one, item=replace(one.item, group=f"passage {n // 4}"))
        for n, one in enumerate(questions(tiny_tokenizer, 2400, texts=2400))
    ]
    selection = select(every, FinetuneConfig(), no_dev)
    assert selection.split == "train"
    assert {one.item.group for one in selection.train} & {one.item.group for one in selection.held_out} == set()


def test_few_items_all_train_and_select_nothing(tiny_tokenizer):
    every = questions(tiny_tokenizer, 800, texts=800)
    selection = select(every, FinetuneConfig(), no_dev)
    assert (selection.train, selection.held_out, selection.split) == (tuple(every), (), None)
    assert selection.told == "nothing: the last weights, as 10 % of train would be fewer than 200 items"


def test_dev_selects_if_the_recipe_says_so(tiny_tokenizer):
    every = questions(tiny_tokenizer, 20, texts=20)
    selection = select(every[:15], FinetuneConfig(select_on="dev"), lambda: every[15:])
    assert (len(selection.train), selection.held_out, selection.split) == (15, tuple(every[15:]), "dev")
    assert select(every, FinetuneConfig(select_on="none"), no_dev).told == "nothing: the last weights"


def test_fewer_items_are_part_of_more(tiny_tokenizer):
    every = questions(tiny_tokenizer, 300, texts=300)
    drawn = [{one.item.id for one in draw(every, count, seed=1)} for count in (10, 100, None)]
    assert [len(ids) for ids in drawn] == [10, 100, 300]
    assert drawn[0] < drawn[1] < drawn[2]


def test_the_first_metric_selects_and_the_loss_among_equals():
    seen = [
        {"val/loss": 0.6, "val/accuracy": 90.0, "val/mcc": 0.0},
        {"val/loss": 0.5, "val/accuracy": 80.0, "val/mcc": 40.0},
        {"val/loss": 0.4, "val/accuracy": 80.0, "val/mcc": 40.0},
    ]
    for metric, best in (("mcc", 2), ("accuracy", 0)):
        assert min(range(3), key=lambda n: lowest_is_best(metric, seen[n])) == best


@pytest.mark.parametrize(("split", "is_told"), [("dev", True), ("test", False)])
def test_every_table_says_that_the_reported_split_selected(
    split, is_told, tmp_path, tiny_tokenizer, mlflow_root, monkeypatch, capsys
):
    model = asked.model_folder(tmp_path / "small", tiny_tokenizer)
    asked.teach(model, {"bad": "cat", "good": "dog"}, selected_on="dev", selected_in="dev")
    for name in ("dev", "test"):
        data = asked.write(tmp_path / "data" / f"{name}.jsonl", asked.rows(12))
    own = [f"--task.data={data}", "--task.id=id", f"--split={split}", f"--to={tmp_path}/evaluations"]
    tracked = f"--tracking.uri=sqlite:///{mlflow_root}/mlflow.db"
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--models", model, *own, tracked])
    with pytest.raises(SystemExit) as stopped:
        run_main(evaluate.main)
    assert stopped.value.code == 0
    told = "dev: the split that is reported here" if is_told else "dev"
    screen = " ".join(capsys.readouterr().out.split())
    (score,) = json.loads(Path(tmp_path, "evaluations", "scores.json").read_text())["scores"]
    page = Path(tmp_path, "evaluations", "evaluation.html").read_text()
    client = client_of(f"sqlite:///{mlflow_root}/mlflow.db")
    (run,) = [run for one in client.search_experiments() for run in client.search_runs([one.experiment_id])]
    assert (score["selected_by"], run.data.params["selected_by"]) == (told, told)
    assert f"<td>{told}</td>" in page
    assert ("the split that is reported here" in screen) == is_told
    note = run.data.tags["mlflow.note.content"]
    assert f"selected on {told}" in note
