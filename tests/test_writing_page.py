"""docs/writing.md keeps its word: its recipe is read, its row is an item, and every metric of texts has its line."""

import json
import re
from dataclasses import fields
from pathlib import Path

from infra import config
from pipelines import tasks
from pipelines.metrics.known import METRICS
from pipelines.questions.config import GenerationConfig, TaskConfig
from pipelines.questions.rows import Row
from workflows.evaluation.config import EvaluateConfig

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "writing.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)[number]


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
