"""The items of a task as entries of an evaluation set: what is asked of them, text by text.

    {reader: task:rte, url: superglue/RTE}
    {reader: task:classification, url: reviews.csv, options: {text: body, label: stars}}

The task module is the one that evaluates and fine-tunes; the options are the settings that `task` has there.
"""

from collections.abc import Iterator

from infra import storage
from infra.config import dataclass_from
from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import BadRow, Row, check_bad
from pipelines.questions.splits import split_rows, train_or_first
from pipelines.questions.task import Item, Task
from pipelines.selection.config import EvaluationSet

PREFIX = "task:"
"""Before the name of a task, as the reader of an evaluation set."""


def task_texts(one: EvaluationSet) -> Iterator[tuple[tuple[str, int], str]]:
    """((file, line), text) of all that is asked of each item: one item has several texts.

    All splits but train count, where there are others; a file from which nothing is learned counts whole, once. Raises
    UserError for a task or a setting that does not exist, DataError where there is nothing to ask, or more rows than
    `max_bad` are not items.
    """
    named = {"name": one.reader.removeprefix(PREFIX), "data": one.url}
    config = dataclass_from(TaskConfig, {**one.options, **named}, where=f"in the options of {one.reader}")
    splits = tasks.find_splits(config)

    def rows(name: str) -> Iterator[Row | BadRow]:
        return split_rows(splits, name, columns=config.columns)

    task = tasks.define(config, lambda: rows(train_or_first(splits)))
    found = False
    names = [name for name in splits if name != "train"] or splits
    for name in {splits[name]: name for name in names}.values():
        bad, count = list[str](), 0
        for row, item in task.items(rows(name)):
            count += 1
            if isinstance(item, BadRow):
                bad.append(str(item))
                continue
            for text in _texts(task, item, one.fields):
                found = True
                yield (storage.base_name(row.url), row.line), text
        check_bad(bad, count, limit=config.max_bad, of=f"the split {name!r} of {task.name}", setting="options.max_bad")
    if not found:
        raise DataError(f"the evaluation set {one.url} asks nothing", try_="give the folder of the task's splits")


def _texts(task: Task, item: Item, fields: list[str]) -> tuple[str, ...]:
    """fields: those that the setting names; none: all that is asked."""
    if not fields:
        return task.asked_parts(item)
    if missing := [name for name in fields if name not in item.fields]:
        raise UserError(
            f"an item of {task.name} has no field {missing[0]!r}",
            why=f"it has {', '.join(item.fields)}",
            try_="change `fields` of this set in data.select.decontaminate",
        )
    return tuple(item.fields[name] for name in fields)
