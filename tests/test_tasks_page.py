"""docs/tasks.md keeps its word: its task of one's own evaluates as printed, and its recipe of own files is read."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from helpers import asked

from infra import config
from infra.console import Console
from infra.storage import parquet
from pipelines import plugins, tasks
from workflows.evaluation import campaign
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of
from workflows.evaluation.tasks import task_configs

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "tasks.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    return found


def test_the_task_is_short_and_is_evaluated(tmp_path, monkeypatch, tiny_tokenizer):
    code = block("python")
    assert len(code.splitlines()) < 60
    package = tmp_path / "tasks_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "polarity.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("tasks_package", "tasks_package.polarity"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
    rows = [
        {"number": n, "review": row["text"], "verdict": row["label"] if n else None}
        for n, row in enumerate(asked.rows(12))
    ]
    data = asked.write(tmp_path / "data" / "dev.jsonl", rows)
    options = EvaluateConfig(models=[asked.model_folder(tmp_path / "model", tiny_tokenizer)], to=str(tmp_path / "out"))
    options.task.name, options.task.data, options.console.quiet = "tasks_package.polarity", data, True
    (one,) = campaign.run(options, task_configs(options), find_models(options.models), Console(options.console))
    assert [(result.metric, result.n) for result in results_of(one)] == [("accuracy", 11), ("mcc", 11)]
    assert parquet.read_table(one.items_url)["question"].to_pylist()[0] == "the cat It was [MASK]."


def test_the_recipe_of_own_files_is_read():
    options = config.from_yaml(EvaluateConfig, block("yaml"))
    assert (options.task.text, options.task.words["2"]) == ("body", "okay")
    assert tasks.define(options.task, lambda: []).pattern().text == "{body~} It was {mask}."


@pytest.mark.parametrize("name", plugins.names(tasks))
def test_every_task_is_listed(name):
    assert re.search(rf"^\| .*`{name}`.* \|", PAGE, re.M)
