"""docs/writing.md keeps its word: its recipe is read, its row is an item, and every metric of texts has its line."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from infra import config
from pipelines import tasks
from pipelines.metrics.known import METRICS
from pipelines.questions.config import GenerationConfig, TaskConfig
from pipelines.questions.rows import Row
from workflows.evaluation.config import EvaluateConfig
from workflows.settings.finetune import FinetuneRecipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "writing.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)[number]


@pytest.mark.parametrize("line", block("text").splitlines())
def test_commands_are_understood(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, script, *words = shlex.split(line)
    recipe = {"workflows/finetune.py": FinetuneRecipe, "workflows/evaluate.py": EvaluateConfig}[script]
    task = config.parse(recipe, description="", argv=words).config.task
    assert task.name == "seq2seq"
    assert task.data == "<folder>"


def test_the_recipe_is_read():
    options = config.from_yaml(EvaluateConfig, block("yaml"))
    task = tasks.define(options.task, lambda: [])
    assert task.metrics == ("rougeLsum", "chrf")
    assert task.generation is not None
    assert (task.generation.max_tokens, task.generation.beams) == (64, 4)


def test_the_row_is_an_item():
    fields = json.loads(block("text", 1))
    row = Row("a.jsonl", 1, {"text": fields["text"], "answers": json.dumps(fields["answers"])})
    ((_, item),) = tasks.define(TaskConfig(name="infilling"), lambda: []).items([row])
    assert item.blanks == ("cat", "the old")


def test_every_metric_of_texts_and_every_limit_has_its_line():
    told = {*re.findall(r"`([\w.]+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("|")))}
    assert {name for name, metric in METRICS.items() if metric.needs == "written"} <= told
    assert {one.name for one in fields(GenerationConfig)} <= {name.rpartition(".")[2] for name in told}
