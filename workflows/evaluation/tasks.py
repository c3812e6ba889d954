"""What a model is asked: the tasks of an evaluation, with their items, as far as the model may be asked them."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from infra import storage
from infra.config import dataclass_from
from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.metrics.bag_of_words import MOST, bag_of_words
from pipelines.metrics.scores import check_metrics
from pipelines.questions.config import BlanksConfig, GenerationConfig, TaskConfig
from pipelines.questions.drawn import last_rank, rank
from pipelines.questions.generation import completed
from pipelines.questions.rows import BadRow, Row, check_bad, kind_of
from pipelines.questions.splits import split_rows, train_or_first
from pipelines.questions.task import Item, Task
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import Model

_COLUMNS = ("columns", "text", "second", "label", "id")  # of own files: a fine-tuned model expects those it was taught
_WRITING = ("generation", "source", "target", "blanks")  # how it was taught to write, and what
_AT_ONCE = 1000  # items of which a bag of words holds the words


class Baseline(NamedTuple):
    """What a bag of words chooses: ids of items [N], and its choices [N]."""

    ids: pa.Array
    choices: np.ndarray


@dataclass(frozen=True)
class AskedTask:
    """A task with the items of a split, which are read from its file whenever they are needed."""

    task: Task
    config: TaskConfig
    split: str
    size: int
    """How many items are asked."""
    digest: str
    """Hex digest of the items, whatever their order."""
    bad: tuple[BadRow, ...]
    """Rows that are not items."""
    items: Callable[[], Iterator[Item]]
    """Reads them, in the order of the file."""
    baseline: Callable[[int], Baseline | None]
    """A bag of words, for what a pattern shows; None where nothing can be learned."""
    written: Callable[[], dict[str, dict[str, tuple[str, ...]]]] = dict
    """Name of a baseline -> id of an item -> what it writes into each of its masks."""
    left_out: tuple[str, ...] = ()
    """Fields that items are shown without."""


def task_configs(options: EvaluateConfig, models: Sequence[Model]) -> list[TaskConfig]:
    """The tasks that the options name; where they name none, those that the models were fine-tuned on.

    Raises UserError where no data are named, DataError where there are none.
    """
    if not options.tasks:
        if options.task.data or options.task.splits:
            return [options.task]
        if options.task == TaskConfig() and models and all("settings" in model.asked for model in models):
            return _own_tasks(models)
        raise UserError(
            "task.data is missing",
            why="it names the files of the task, which only a model that was fine-tuned on it knows by itself",
            try_="--task.name=rte --task.data=<folder or file>, or --tasks rte cb --data=<folder>",
        )
    if not options.data:
        raise UserError("--data is missing", why="it holds a folder for each of --tasks", try_="--data=<folder>")
    return [replace(options.task, name=name, data=data_of(options.data, name)) for name in options.tasks]


def _own_tasks(models: Sequence[Model]) -> list[TaskConfig]:
    """What fine-tuned models were taught, on the data that they were taught with.

    Raises UserError where two were taught one task on different data.
    """
    found = dict[str, TaskConfig]()
    for model in models:
        of_each = {"head": False, "pattern": None, "words": {}, "generation": GenerationConfig()}  # by itself
        own = replace(_taught_config(model), **of_each)
        if found.setdefault(own.name, own) != own:
            raise UserError(
                f"the models were fine-tuned on different data, or columns, of {own.name}",
                why="their scores would not be of the same items",
                try_="--task.data=<folder or file>, or one command for each",
            )
    return [*found.values()]


def ask_task(config: TaskConfig, model: Model, *, split: str, limit: int | None = None) -> AskedTask:
    """The task as this model is asked it: a fine-tuned one has label words and a pattern of its own. Reads all items.

    limit: that many items, by hashes of their ids, and those that are judged together with them. Raises UserError for a
    fine-tuned model of another task, DataError where the split has no items, or too many bad rows.
    """
    config = _as_taught(config, model)
    splits = tasks.find_splits(config)
    taught_by = train_or_first(splits)
    task = _with_taught_pattern(config, model, lambda: split_rows(splits, taught_by, columns=config.columns))
    check_metrics(task.metrics, classes=len(task.labels), generates=task.generation is not None)
    _check_taught(task, model)

    def found(name: str) -> Iterator[Item | BadRow]:
        return (one for _, one in task.items(split_rows(splits, name, columns=config.columns)))

    survey = _survey(lambda: found(split), limit)
    of = f"the split {split!r} of {task.name}"
    check_bad([*map(str, survey.bad)], survey.rows, limit=config.max_bad, of=of)
    if not survey.size:
        raise DataError(f"{of} has no items", why=f"{splits[split].url} has no rows")

    def items() -> Iterator[Item]:
        last = survey.last
        return (one for one in found(split) if isinstance(one, Item) and (last is None or rank(one) <= last))

    @cache  # for all models that are asked alike
    def baseline(pattern: int) -> Baseline | None:
        if task.zero_shot or task.generation or "train" not in splits or split == "train":
            return None
        choose = bag_of_words(task, task.pattern(pattern), train_items())
        return _choices(choose, items()) if choose else None

    @cache
    def train_items() -> list[Item]:
        return [*itertools.islice((one for one in found("train") if isinstance(one, Item)), MOST)]

    @cache
    def written() -> dict[str, dict[str, tuple[str, ...]]]:
        learned = train_items() if task.baselines and "train" in splits and split != "train" else []
        return {
            name: {item.id: write(item) for item in items()}
            for name, teach in task.baselines.items()
            if (write := teach(learned))
        }

    return AskedTask(task, config, split, survey.size, survey.digest, survey.bad, items, baseline, written)


def taught_to(model: Model, configs: Sequence[TaskConfig]) -> Sequence[TaskConfig]:
    """Those of several tasks that a fine-tuned model was taught, and its diagnostics; other models are asked all.

    Raises UserError where it was taught none of them.
    """
    if not model.asked or len(configs) < 2:
        return configs
    own = [config for config in configs if _may_be_asked(model, config.name)]
    if not own:
        asked = ", ".join(config.name for config in configs)
        raise UserError(
            f"{model.name} was fine-tuned on {model.asked['task']}, which is none of {asked}",
            why="its answers to another task say nothing of either",
            try_=f"add {model.asked['task']} to --tasks, or leave the model out",
        )
    return own


def without_context(asked: AskedTask, pattern: int) -> AskedTask | None:
    """The task whose items are shown without what was public before; None where the pattern shows nothing of that."""
    names = tuple(name for name in asked.task.pattern(pattern).fields if name in asked.task.context)
    if not names:
        return None
    nothing = dict.fromkeys(names, "")
    return replace(
        asked,
        items=lambda: (replace(one, fields={**one.fields, **nothing}) for one in asked.items()),
        left_out=names,
    )


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


def data_of(data: str, name: str) -> str:
    """The folder or file in `data` that is called like the task, or whose name begins so. Raises DataError."""
    there = sorted({info.path.split("/")[0] for info in storage.list_files(data)})
    wanted = name.lower().replace("_", "-")
    names = {one: one.lower().replace("_", "-") for one in there}
    like = [one for one in there if names[one] == wanted]
    like += [one for one in there if kind_of(one) and names[one].split(".")[0] == wanted]
    like += [one for one in there if names[one].startswith((f"{wanted}.", f"{wanted}-"))]
    if not like:
        raise DataError(
            f"{data} holds nothing of the task {name!r}",
            why=f"it has {', '.join(there[:10]) or 'nothing'}",
            try_=f"name its files {name}/dev.jsonl, or give one task: --task.name={name} --task.data=<place>",
        )
    return storage.join(data, like[0])


def _may_be_asked(model: Model, name: str) -> bool:
    """Whether a fine-tuned model was taught a task, or one whose models this task is for."""
    return model.asked["task"] in (name, getattr(tasks.find(name), "TAUGHT_BY", ""))


class _Survey(NamedTuple):
    """What reading a split tells of it."""

    size: int
    """Items that are asked."""
    last: int | None
    """The highest rank of these; None where all are asked."""
    digest: str
    """That of these, whatever their order."""
    rows: int
    bad: tuple[BadRow, ...]


def _survey(read: Callable[[], Iterable[Item | BadRow]], limit: int | None) -> _Survey:
    """read: gives the items of the split; twice, where there is a limit."""
    last = None
    if limit is not None:
        last = last_rank((one for one in read() if isinstance(one, Item)), limit)
    bad: list[BadRow] = []
    good = size = total = 0
    for one in read():
        if isinstance(one, BadRow):
            bad.append(one)
            continue
        good += 1
        if last is None or rank(one) <= last:
            told = json.dumps([one.id, dict(one.fields), one.gold, one.golds, one.candidates, one.words, *one.blanks])
            size, total = size + 1, total + int.from_bytes(hashlib.blake2b(told.encode(), digest_size=16).digest())
    return _Survey(size, last, f"{total % (1 << 128):032x}", good + len(bad), tuple(bad))


def _choices(choose: Callable[[Sequence[Item]], np.ndarray], items: Iterator[Item]) -> Baseline:
    ids, choices = [], []
    while some := [*itertools.islice(items, _AT_ONCE)]:
        ids.append(pa.array([item.id for item in some], pa.string()))
        choices.append(choose(some))
    return Baseline(pa.concat_arrays(ids), np.concatenate(choices))


def _as_taught(config: TaskConfig, model: Model) -> TaskConfig:
    """The words and columns of a fine-tuned model, where the recipe leaves them out; and whether its head answers."""
    taught = model.asked
    if config.head and not model.has_head:
        raise UserError(
            f"{model.name} has no classification head",
            why="it was not fine-tuned with task.head",
            try_="leave task.head out: the model writes its answer",
        )
    if not taught:
        return config
    module = tasks.find(config.name)
    if not _may_be_asked(model, config.name):
        raise UserError(
            f"{model.name} was fine-tuned on {taught['task']} and is asked {config.name}",
            why="its answers to another task say nothing of either",
            try_=f"--task.name={taught['task']}, or the model that it was fine-tuned from",
        )
    default, own = TaskConfig(), dict[str, Any]()
    if "settings" in taught:
        names = (*_COLUMNS, *_WRITING) if hasattr(module, "define") else _WRITING
        own = {name: getattr(_taught_config(model), name) for name in names}
    if hasattr(module, "define"):
        own["words"] = {label: taught["words"][label] for label in taught["labels"]}
    changed = {name: one for name, one in own.items() if getattr(config, name) == getattr(default, name)}
    if "generation" in own:
        changed["generation"] = completed(config.generation, own["generation"])
    if "blanks" in own:
        given = {name: one for name, one in asdict(config.blanks).items() if one != getattr(BlanksConfig(), name)}
        changed["blanks"] = replace(own["blanks"], **given)
    return replace(config, head=model.has_head, **changed)


def _with_taught_pattern(config: TaskConfig, model: Model, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    """The task, which by default asks a fine-tuned model as it was taught: by one of its patterns or a recipe's own."""
    task, text = tasks.define(config, rows), model.asked.get("pattern")
    if config.pattern is not None or text is None or task.pattern().text == text:
        return task
    numbers = [str(number) for number, pattern in enumerate(task.patterns) if pattern.text == text]
    return tasks.define(replace(config, pattern=numbers[0] if numbers else text), rows)


def _check_taught(task: Task, model: Model) -> None:
    """Raises UserError where the version, the labels, their order, their words or the pattern are not those of the
    fine-tuned model.
    """
    taught: dict[str, Any] = model.asked
    if not taught:
        return
    was_taught_this = taught["task"] == task.name
    now = {
        "version": task.version if was_taught_this else tasks.find(taught["task"]).VERSION,
        "labels": list(task.labels),
        "words": dict(task.pattern().words),
        "pattern": task.pattern().text,
    }
    for name, value in now.items():
        before = taught.get(name, value)
        if before != value:
            raise UserError(
                f"{model.name} was fine-tuned with other {name} of {task.name}: {before}, and is asked with {value}",
                why="an answer would be taken for another",
                try_="train it again, or use the version of this program that did"
                if name == "version"
                else "leave out task.words and task.pattern: the model folder has them; --patterns=all asks by others",
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
    config = _taught_config(model)
    if hasattr(tasks.find(config.name), "define"):
        # Rows of a prediction need no ids; the labels are known, whether the recipe named them or not.
        config = replace(config, id=None, words={label: taught["words"][label] for label in taught["labels"]})
    task = tasks.define(config, lambda: [])
    _check_taught(task, model)
    return task


def _taught_config(model: Model) -> TaskConfig:
    """The settings of the task that a fine-tuned model was taught."""
    return dataclass_from(TaskConfig, model.asked["settings"], where=f"in {model.url}/task.json")
