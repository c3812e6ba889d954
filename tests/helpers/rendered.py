"""A task of pipelines/tasks, and what its patterns show of a row."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from glm_model.tokenizer import Tokenizer
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Question, ask
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item, Task


def defined(name: str, **settings) -> Task:
    rows = [Row("a.csv", n + 2, {"text": "x", "label": label}) for n, label in enumerate(("10", "2", "10"))]
    return tasks.define(TaskConfig(name=name, **settings), lambda: rows)


def questions(name: str, fields: dict[str, str], tokenizer: Tokenizer, **settings) -> list[Question]:
    """The question of the row's first item by every pattern."""
    task = defined(name, **settings)
    (item, *_), bad = items(task, [fields])
    assert not bad
    return [ask(task, pattern, item, tokenizer, positions=512) for pattern in task.patterns]


def shown(
    name: str, fields: dict[str, str], tokenizer: Tokenizer, **settings
) -> tuple[list[str], tuple[str, ...], int | None]:
    """What is asked by every pattern, the candidates of the default one, and the number of the right one."""
    asked = questions(name, fields, tokenizer, **settings)
    default = asked[defined(name, **settings).default_pattern]
    return [question.text for question in asked], default.answers, default.gold


def items(task: Task, rows: Iterable[dict[str, str]]) -> tuple[list[Item], list[str]]:
    """(items of rows, what is told of those that are none)."""
    found = [item for _, item in task.items(Row("a.jsonl", n, fields) for n, fields in enumerate(rows, start=1))]
    bad = [str(one) for one in found if isinstance(one, BadRow)]
    return [one for one in found if isinstance(one, Item)], bad


def learned(name: str, item: Item) -> list[Item]:
    """What is learned from an item."""
    task = defined(name)
    assert task.train_items
    return list(task.train_items(item))


def published(shared: Path, name: str, place: str, split: str) -> list[Item]:
    """The items of a published file; skips where it is not here, and fails where a row is not an item."""
    if not (shared / "data" / place).exists():
        pytest.skip(f"{place} is not here")
    config = TaskConfig(name=name, data=str(shared / "data" / place))
    found = [one for _, one in defined(name).items(split_rows(tasks.find_splits(config), split))]
    bad = [str(one) for one in found if isinstance(one, BadRow)]
    assert bad == []
    return [one for one in found if isinstance(one, Item)]
