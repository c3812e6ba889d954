"""docs/tasks.md keeps its word: its task of one's own evaluates, teaches and keeps documents out of a store as printed,
and its recipes are read.
"""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from helpers import asked, golden_items, selections

from infra import config
from infra.console import Console
from infra.storage import parquet
from pipelines import plugins, tasks
from pipelines.selection.config import EvaluationSet
from workflows import finetune, predict
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of
from workflows.evaluation.tasks import task_configs
from workflows.settings.recipe import Recipe

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "tasks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def polarity(tmp_path, monkeypatch) -> str:
    """The page's task as a module of a package; returns its name."""
    (code,) = blocks("python")
    assert len(code.splitlines()) < 60
    package = tmp_path / "tasks_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "polarity.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("tasks_package", "tasks_package.polarity"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
    return "tasks_package.polarity"


def write_reviews(path: Path, count: int) -> str:
    """As the task wants them, the first one without a verdict. Returns their folder."""
    rows = [
        {"number": n, "review": row["text"], "verdict": row["label"] if n else None}
        for n, row in enumerate(asked.rows(count))
    ]
    return asked.write(path, rows)


def test_the_task_is_evaluated(tmp_path, polarity, tiny_tokenizer):
    data = write_reviews(tmp_path / "data" / "dev.jsonl", 12)
    options = EvaluateConfig(models=[asked.model_folder(tmp_path / "model", tiny_tokenizer)], to=str(tmp_path / "out"))
    options.task.name, options.task.data, options.console.quiet = polarity, data, True
    models = find_models(options.models)
    (one,) = ask_models(options, task_configs(options, models), models, Console(options.console))
    assert [(result.metric, result.n) for result in results_of(one)] == [("accuracy", 11), ("mcc", 11)]
    assert parquet.read_table(one.items_url)["question"].to_pylist()[0] == "the cat It was [MASK]."


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(120)
def test_the_task_is_taught(tmp_path, polarity, tiny_tokenizer, monkeypatch, local_ray):
    data = write_reviews(tmp_path / "data" / "train.jsonl", 20)
    begin = asked.model_folder(tmp_path / "begin", tiny_tokenizer)
    places = [f"--model.init_from={begin}", f"--run.storage_path={tmp_path}", "--run.name=taught"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["finetune.py", f"--task.name={polarity}", f"--task.data={data}", "--tracking.enabled=false", *places],
    )
    finetune.main()
    (model,) = find_models([str(tmp_path / "taught")])
    assert (model.asked["task"], model.asked["labels"]) == (polarity, ["bad", "good"])


def test_the_task_keeps_documents_out_of_a_store(tmp_path, polarity):
    reviews = [f"{selections.prose(n, 12)} It was fine." for n in range(3)]
    asked.write(tmp_path / "data" / "train.jsonl", [{"number": 0, "review": reviews[0], "verdict": "good"}])
    asked.write(
        tmp_path / "data" / "dev.jsonl", [{"number": n, "review": reviews[n], "verdict": "bad"} for n in (1, 2)]
    )
    texts = [selections.prose(9), *(f"{selections.prose(10 + n)} {text}" for n, text in enumerate(reviews))]
    units = selections.units_of(tmp_path, web=[texts])
    sets = [EvaluationSet(f"task:{polarity}", str(tmp_path / "data"))]
    selected = selections.select(tmp_path, units, decontaminate=sets)
    (report,) = selected.contamination
    assert (report.entries, report.found, report.documents) == (2, 2, 2)
    assert selections.left(selected) == {*texts[:2]}


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The folder in which a reader of the page is: with a model, the data that its campaigns name, and the recipes."""
    asked.model_folder(tmp_path / "runs" / "a", golden_items.tokenizer(tmp_path), positions=96)
    for task in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"):
        for place, splits in (("superglue", ("train", "dev")), ("superglue/FewGLUE_32dev", ("train", "dev32"))):
            folder = tmp_path / place / task.upper()
            golden_items.write(task, folder)
            rows = (folder / "dev.jsonl").read_bytes()
            (folder / "dev.jsonl").unlink()
            for split in splits:
                (folder / f"{split}.jsonl").write_bytes(rows)
    (tmp_path / "sst2").mkdir()
    for split in ("train", "dev"):
        rows = [f"{golden_items.sentence(number)}\t{number % 2}\n" for number in range(12)]
        (tmp_path / "sst2" / f"{split}.tsv").write_text("".join(rows))
    (tmp_path / "workflows").symlink_to(Path(finetune.__file__).parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("number", "cells"), [(0, 12), (1, 24)])
def test_the_campaigns_are_planned_as_printed(desk, monkeypatch, capsys, number, cells):
    command = shlex.split(blocks("bash")[number].replace("\\\n", " "))
    assert command[:2] == ["python", "workflows/finetune.py"]
    monkeypatch.setattr(sys, "argv", command[1:])
    finetune.main()
    printed = capsys.readouterr().out
    listed = re.findall(r"^ *(\S+-seed=\d) ", printed, re.M)
    assert len({*listed}) == cells, printed
    assert number or listed[0] == "sweep-cb-lr=1e-05-seed=1"
    assert f"exists       0 finished, 0 begun, {cells} to do" in printed


def test_the_recipe_of_own_files_is_read():
    options = config.from_yaml(EvaluateConfig, blocks("yaml")[0])
    assert (options.task.text, options.task.words["2"]) == ("body", "okay")
    assert tasks.define(options.task, lambda: []).pattern().text == "{body~} It was {mask}."


def test_the_recipe_of_decontamination_is_read():
    recipe = config.from_yaml(Recipe, blocks("yaml")[1])
    assert [one.reader for one in recipe.data.select.decontaminate] == ["task:rte", "task:classification"]


def test_the_recipe_of_tasks_that_a_training_asks_is_read():
    train = config.from_yaml(Recipe, blocks("yaml")[2]).train
    assert [(one.name, one.split) for one in train.eval_tasks] == [("blimp", "dev"), ("lambada", "test")]
    assert train.keep_at_tokens == [10**6, 10**7, 10**8]


def test_predictions_run_as_written(tmp_path, tiny_tokenizer, monkeypatch, capsys):
    """Each command of the page in one folder, in which its models and files lie."""
    (block,) = (block for block in blocks("bash") if "predict.py" in block)
    asked.model_folder(tmp_path / "runs" / "base", tiny_tokenizer)
    asked.teach(asked.model_folder(tmp_path / "runs" / "reviews", tiny_tokenizer), {"bad": "dog", "good": "ran"})
    (tmp_path / "new.csv").write_text("text\nthe cat sat\na dog ran home\n")
    asked.write(tmp_path / "texts.jsonl", asked.rows(3))
    asked.write(tmp_path / "masked.jsonl", [{"text": "the [MASK] ran on [MASK]."}])
    question = {"question": "the cat", "options": ["sat", "ran home"], "answer": "on a mat"}
    asked.write(tmp_path / "questions.jsonl", [question])
    monkeypatch.chdir(tmp_path)
    places = []
    for command in re.sub(r"\\\n\s*", " ", block).splitlines():
        words = shlex.split(command)
        assert words[:2] == ["python", "workflows/predict.py"]
        monkeypatch.setattr(sys, "argv", words[1:])
        predict.main()
        places.append(words[words.index("--to") + 1])
    found = {place: parquet.read_table(str(next((tmp_path / place).glob("*.parquet")))) for place in places}
    assert {place: len(rows) for place, rows in found.items()} == {
        "labels": 2, "zero_shot": 2, "choices": 1, "scores": 3, "target_scores": 1, "filled": 1, "vectors": 3
    }  # fmt: skip
    assert all(rows["reason"].null_count == len(rows) for rows in found.values())
    names = {name for rows in found.values() for name in rows.column_names}
    assert {name for name in names if f"`{name}`" not in PAGE} == {"id", "question", "answer", "p_bad", "p_good"}


@pytest.mark.parametrize("name", plugins.names(tasks))
def test_every_task_is_listed(name):
    assert re.search(rf"^\| .*`{name}`.* \|", PAGE, re.M)
