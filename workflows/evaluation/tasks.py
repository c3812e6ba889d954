"""What a model is asked: the tasks of an evaluation, with their items, as far as the model may be asked them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from infra import storage
from infra.config import dataclass_from
from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.metrics.bag_of_words import bag_of_words
from pipelines.metrics.scores import check_metrics
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import BadRow, Row, check_bad, kind_of
from pipelines.questions.splits import SplitFile, find_splits, split_rows
from pipelines.questions.task import Item, Task
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import Model


@dataclass(frozen=True)
class AskedTask:
    """A task with the items of a split."""

    task: Task
    config: TaskConfig
    split: str
    items: list[Item]
    """In the order of the file."""
    bad: list[BadRow]
    """Rows that are not items."""
    baseline: Callable[[int], np.ndarray | None]
    """Choices [N] of a bag of words, for what a pattern shows; None where nothing can be learned."""


def task_configs(options: EvaluateConfig) -> list[TaskConfig]:
    """Raises UserError where no data are named, DataError where there are none."""
    if not options.tasks:
        if not options.task.data and not options.task.splits:
            raise UserError(
                "task.data is missing",
                why="it names the files of the task",
                try_="--task.name=rte --task.data=<folder or file>, or --tasks rte cb --data=<folder>",
            )
        return [options.task]
    if not options.data:
        raise UserError("--data is missing", why="it holds a folder for each of --tasks", try_="--data=<folder>")
    return [replace(options.task, name=name, data=_data_of(options.data, name)) for name in options.tasks]


def ask_task(config: TaskConfig, model: Model, *, split: str, limit: int | None = None) -> AskedTask:
    """The task as this model is asked it: a fine-tuned one has label words and a pattern of its own.

    limit: that many items, by hashes of their ids. Raises UserError for a fine-tuned model of another task, DataError
    where the split has no items, or too many bad rows.
    """
    config = _as_taught(config, model)
    splits = find_splits(config.data or "", config.splits, config.shares)
    task = _with_taught_pattern(config, model, lambda: split_rows(splits, _train(splits), columns=config.columns))
    check_metrics(task.metrics, classes=len(task.labels))
    _check_taught(task, model)
    if task.kind == "read":  # nothing is learned from it, so one file is not cut into splits
        splits = {name: replace(one, first=0.0, last=1.0) for name, one in splits.items()}
    items, bad = _read(task, config, splits, split)
    chosen = items if limit is None else _sample(items, limit)

    @cache  # for all models that are asked alike
    def baseline(pattern: int) -> np.ndarray | None:
        if task.kind == "read" or "train" not in splits or split == "train":
            return None
        return bag_of_words(task, task.pattern(pattern), train_items(), sorted_by_id(chosen))

    @cache
    def train_items() -> list[Item]:
        return _read(task, config, splits, "train")[0]

    return AskedTask(task, config, split, chosen, bad, baseline)


def sorted_by_id(items: Sequence[Item]) -> list[Item]:
    """In the order of items.parquet."""
    return sorted(items, key=lambda item: (len(item.id), item.id))


def pattern_numbers(task: Task, which: str) -> list[int]:
    """Raises UserError for numbers that the task does not have."""
    if which in ("default", "all"):
        return [task.default_pattern] if which == "default" else list(range(len(task.patterns)))
    words = which.strip("[]").replace(" ", "").split(",")
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--patterns={which} is unknown", try_="use default, all, or numbers: 0,3")
    for word in words:
        task.pattern(int(word))
    return [int(word) for word in words]


def _data_of(data: str, name: str) -> str:
    """The folder or file in `data` that is called like the task."""
    there = sorted({info.path.split("/")[0] for info in storage.list_files(data)})
    like = [one for one in there if one.lower() == name.lower()]
    like += [one for one in there if kind_of(one) and one.lower().split(".")[0] == name.lower()]
    if not like:
        raise DataError(
            f"{data} holds nothing of the task {name!r}",
            why=f"it has {', '.join(there[:10]) or 'nothing'}",
            try_=f"name its files {name}/dev.jsonl, or give one task: --task.name={name} --task.data=<place>",
        )
    return storage.join(data, like[0])


def _train(splits: dict[str, SplitFile]) -> str:
    """The split in which a task finds its labels."""
    return "train" if "train" in splits else next(iter(splits))


def _read(task: Task, config: TaskConfig, splits: dict[str, SplitFile], split: str) -> tuple[list[Item], list[BadRow]]:
    found = [one for _, one in task.items(split_rows(splits, split, columns=config.columns))]
    items = [one for one in found if isinstance(one, Item)]
    bad = [one for one in found if isinstance(one, BadRow)]
    check_bad([*map(str, bad)], len(found), limit=config.max_bad, of=f"the split {split!r} of {task.name}")
    if not items:
        raise DataError(f"the split {split!r} of {task.name} has no items", why=f"{splits[split].url} has no rows")
    return items, bad


def _sample(items: list[Item], limit: int) -> list[Item]:
    """Items whose ids have the smallest hashes: whatever the order of the file, and of all parts of it."""
    return sorted(items, key=lambda item: hashlib.blake2b(item.id.encode(), digest_size=8).digest())[:limit]


def _as_taught(config: TaskConfig, model: Model) -> TaskConfig:
    """The label words of a fine-tuned model, where the recipe leaves them out."""
    taught = model.asked
    if not taught:
        return config
    if taught["task"] != config.name:
        raise UserError(
            f"{model.name} was fine-tuned on {taught['task']} and is asked {config.name}",
            why="its answers to another task say nothing of either",
            try_=f"--task.name={taught['task']}, or the model that it was fine-tuned from",
        )
    default = TaskConfig()
    if hasattr(tasks.find(config.name), "define") and config.words == default.words:
        config = replace(config, words={label: taught["words"][label] for label in taught["labels"]})
    return config


def _with_taught_pattern(config: TaskConfig, model: Model, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    """The task, which by default asks a fine-tuned model as it was taught: by one of its patterns or a recipe's own."""
    task, text = tasks.define(config, rows), model.asked.get("pattern")
    if config.pattern is not None or text is None or task.pattern().text == text:
        return task
    numbers = [str(number) for number, pattern in enumerate(task.patterns) if pattern.text == text]
    return tasks.define(replace(config, pattern=numbers[0] if numbers else text), rows)


def _check_taught(task: Task, model: Model) -> None:
    """Raises UserError where labels, their order, their words or the version are not those of the fine-tuned model."""
    taught: dict[str, Any] = model.asked
    if not taught:
        return
    now = {
        "version": task.version,
        "labels": list(task.labels),
        "words": dict(task.pattern().words),
    }
    for name, value in now.items():
        before = taught.get(name, value)
        if before != value:
            raise UserError(
                f"{model.name} was fine-tuned with other {name} of {task.name}: {before}, and is asked with {value}",
                why="an answer would be taken for another",
                try_="train it again, or use the version of this program that did"
                if name == "version"
                else "leave out task.words and task.pattern: the model folder has them",
            )


def taught_task(model: Model) -> Task:
    """The task that a fine-tuned model was taught, as it was taught it.

    Raises UserError for a model that was not fine-tuned, and where its task has changed since.
    """
    taught = model.asked
    if not taught:
        raise UserError(
            f"{model.name} was not fine-tuned",
            why=f"{model.url} has no task.json, which says what is asked and what the answers are called",
            try_="give a model that finetune.py made",
        )
    config = dataclass_from(TaskConfig, taught["settings"], where=f"in {model.url}/task.json")
    if hasattr(tasks.find(config.name), "define"):
        # Rows of a prediction need no ids; the labels are known, whether the recipe named them or not.
        config = replace(config, id=None, words={label: taught["words"][label] for label in taught["labels"]})
    task = tasks.define(config, lambda: [])
    _check_taught(task, model)
    if task.pattern().text != taught["pattern"]:
        raise UserError(
            f"{model.name} was fine-tuned with the pattern {taught['pattern']!r}, and {task.name} now has "
            f"{task.pattern().text!r} in its place",
            why="it was not taught to answer this",
            try_="train it again, or use the version of this program that did",
        )
    return task
