"""What a fine-tuning is made of: its task, its items, what is held out of them, how long it lasts, and its run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from glm_model.config import GLMConfig, num_parameters
from glm_model.tokenizer import Tokenizer
from infra import config, storage
from infra.console import Console, counted, human
from infra.errors import DataError, UserError
from pipelines import keyed, tasks
from pipelines.document import content_key
from pipelines.feed.questions import QuestionPlan, fingerprint
from pipelines.questions.question import Question, ask_all
from pipelines.questions.rows import BadRow, check_bad
from pipelines.questions.splits import SplitFile, find_splits, split_rows
from pipelines.questions.task import Task
from workflows.runs.record import RunRecord
from workflows.runs.run import Run, resume
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.identity import check_name, without_later_defaults
from workflows.settings.models import find_model
from workflows.settings.shape import pretrained_config

_LEAST_SELECTING = 200  # items: the interval of an accuracy over fewer is wider than what is chosen among
_HELD_OUT, _DRAWN = 402, 403


@dataclass(frozen=True)
class FinetuneSetup:
    """A recipe with all that it resolves to."""

    recipe: FinetuneRecipe
    init_url: str
    """The model folder to begin with."""
    task: Task
    tokenizer: Tokenizer
    shape: GLMConfig
    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    selected_on: str
    """What chose the checkpoint, in words."""
    selects: bool
    plan: QuestionPlan
    steps: int
    screen: Console

    @property
    def classes(self) -> int:
        """How many classes the classification head has; 0: the model writes."""
        return 0 if self.task.pattern().has_mask else len(self.task.labels)

    @property
    def steps_of_epoch(self) -> int:
        return math.ceil(self.plan.questions / self.plan.step_questions)


def resolve_finetune(recipe: FinetuneRecipe, screen: Console) -> FinetuneSetup:
    """Read the task's items and resolve all that follows. Starts no Ray.

    Raises UserError for settings that cannot work, DataError for data that cannot be used.
    """
    if not recipe.task.data and not recipe.task.splits:
        raise UserError("task.data is missing", why="it names the labelled data", try_="--task.data=reviews.csv")
    if not recipe.model.init_from:
        raise UserError(
            "model.init_from is missing", why="it names the model to fine-tune", try_="--model.init_from=runs/<run>"
        )
    init_url = find_model(recipe.model.init_from)
    tokenizer = Tokenizer.load(init_url)
    shape = replace(pretrained_config(init_url), dropout=recipe.model.dropout, attention_dropout=recipe.model.dropout)
    splits = find_splits(recipe.task.data or "", recipe.task.splits, recipe.task.shares)
    task = tasks.define(recipe.task, lambda: split_rows(splits, "train", columns=recipe.task.columns))
    questions = labelled(recipe, task, splits, "train", tokenizer, shape, screen)
    questions = _drawn(questions, recipe.train.items, recipe.train.seed)
    train, held_out, selected_on = _selection(recipe, questions, task, splits, tokenizer, shape, screen)
    plan = QuestionPlan(len(train), min(recipe.train.batch, len(train)), recipe.train.micro, recipe.train.seed)
    steps = recipe.train.steps or max(1, round(recipe.train.epochs * plan.questions / plan.step_questions))
    selects = recipe.train.select_on != "none" and len(held_out) >= (_LEAST_SELECTING if selected_on != "dev" else 1)
    if held_out and not selects:
        selected_on = f"nothing: {len(held_out)} held-out items are fewer than {_LEAST_SELECTING}; the last weights"
    return FinetuneSetup(
        recipe, init_url, task, tokenizer, shape, train, held_out, selected_on, selects, plan, steps, screen
    )


def labelled(
    recipe: FinetuneRecipe,
    task: Task,
    splits: dict[str, SplitFile],
    split: str,
    tokenizer: Tokenizer,
    shape: GLMConfig,
    screen: Console,
) -> list[Question]:
    """The questions of a split that have a gold answer; says what was cut and what is left out."""
    rows = split_rows(splits, split, columns=recipe.task.columns)
    asked = list(ask_all(task, rows, tokenizer, positions=shape.positions, overlong=recipe.task.overlong))
    bad = [one for one in asked if isinstance(one, BadRow)]
    of = f"the split {split!r} of {task.name}"
    check_bad([*map(str, bad)], len(asked), limit=recipe.task.max_bad, of=of)
    questions = [one for one in asked if isinstance(one, Question) and one.gold is not None]
    if not questions:
        raise DataError(
            f"the split {split} of {task.name} has no labelled items",
            why=f"{splits[split].url} has {counted(len(asked), 'row')}, none of them with a label",
            try_="name the column as task.label, or choose another split",
        )
    if bad:
        screen.warn(f"{split}: {counted(len(bad), 'row')} left out, such as {bad[0]}")
    if cut := sum(question.cut > 0 for question in questions):
        screen.warn(f"{split}: {cut:,} of {counted(len(questions), 'item')} are cut to {shape.positions:,} positions")
    return questions


def _drawn(questions: list[Question], count: int | None, seed: int) -> list[Question]:
    """So many of the questions, the same for every count that is larger: each is in the next larger set."""
    if count is None or count >= len(questions):
        return questions
    order = np.argsort(keyed.fold(seed, _DRAWN, _keys(questions)), kind="stable")[:count]
    return [questions[number] for number in sorted(order.tolist())]


def _keys(questions: Iterable[Question]) -> np.ndarray:
    """What items are, wherever they stand: equal ones share a key."""
    texts = ("\0".join((question.text, *question.answers)) for question in questions)
    return np.array([content_key(text) for text in texts], np.uint64)


def _selection(
    recipe: FinetuneRecipe,
    questions: list[Question],
    task: Task,
    splits: dict[str, SplitFile],
    tokenizer: Tokenizer,
    shape: GLMConfig,
    screen: Console,
) -> tuple[tuple[Question, ...], tuple[Question, ...], str]:
    """(what is trained on, what is validated, where the checkpoint is chosen). Items of equal text are not parted."""
    if recipe.train.select_on == "none":
        return tuple(questions), (), "nothing: the last weights"
    if recipe.train.select_on == "dev":
        dev = labelled(recipe, task, splits, "dev", tokenizer, shape, screen)
        return tuple(questions), tuple(dev), "dev"
    chance = keyed.uniform(keyed.bits(keyed.fold(recipe.train.seed, _HELD_OUT, _keys(questions)), 1, stream=0))
    is_out = (chance.ravel() < recipe.train.held_out).tolist()
    train = tuple(question for question, out in zip(questions, is_out, strict=True) if not out)
    held_out = tuple(question for question, out in zip(questions, is_out, strict=True) if out)
    if not train:
        return held_out, (), "nothing: the last weights"
    return train, held_out, f"{len(held_out):,} held-out items of train"


def describe_finetune(setup: FinetuneSetup) -> list[tuple[str, str]]:
    """What the run would do, in rows for the screen."""
    recipe, task = setup.recipe, setup.task
    positions = sum(question.positions for question in setup.train) / len(setup.train)
    words = ", ".join(f"{label}: {word}" for label, word in task.pattern().words.items())
    begin = f"{setup.init_url}, {human(num_parameters(setup.shape))} parameters"
    epochs = setup.steps * setup.plan.step_questions / setup.plan.questions
    budget = f"{counted(setup.steps, 'step')} of {counted(setup.plan.step_questions, 'item')} = {epochs:.2f} epochs"
    sizes = f"{len(setup.train):,} to train on, {positions:,.0f} positions each; {len(setup.held_out):,} held out"
    rows = [
        ("task", f"{task.name} version {task.version}, pattern {task.default_pattern}: {task.pattern().text}"),
        ("items", sizes),
        ("begins with", begin + (", drawn at random" if recipe.model.random else "")),
        ("budget", budget),
        ("selected on", setup.selected_on),
    ]
    return [rows[0], *([("label words", words)] if words else []), *rows[1:]]


# Settings that change where and how fast a run is, and not what it computes.
_NOT_IDENTITY = (
    *("run", "tracking", "console", "cluster", "task.max_bad"),
    *("train.num_workers", "train.use_gpu", "train.resources_per_worker", "train.max_failures", "train.hang_s"),
    *("train.resize_every_s", "train.exact", "train.log_every", "train.keep_checkpoints", "train.patience"),
)
_PLACES = ("task.data", "model.init_from")


def open_finetuning(setup: FinetuneSetup, recipe_name: str) -> Run:
    """The run of this fine-tuning, new or continued: named by its settings and its questions, wherever the data and the
    model lie. recipe_name: of the recipe's file; "" where there is none. Raises as `workflows.runs.run.open_run`.
    """
    recipe = setup.recipe
    settings = {
        key: storage.base_name(value) if key in _PLACES or key.startswith("task.splits.") else value
        for key, value in without_later_defaults(config.flatten(recipe)).items()
        if not any(key == out or key.startswith(f"{out}.") for out in _NOT_IDENTITY)
    }
    settings["items"] = f"{fingerprint((*setup.train, *setup.held_out)):016x}"  # with their labels
    settings["task digest"] = setup.task.digest
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    name = check_name(recipe.run.name or f"{recipe_name or setup.task.name}-{identity[:8]}")
    new = Run(storage.join(recipe.run.storage_path, name), RunRecord(name=name, identity=identity, settings=settings))
    return resume(new, fresh=recipe.run.fresh, changed=_changed)


def _changed(record: RunRecord, now: dict[str, str]) -> list[str]:
    before = record.settings
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
