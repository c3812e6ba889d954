"""What a fine-tuning is made of: its task, its items, what is held out of them, how long it lasts, and its run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from glm_model.config import GLMConfig, num_parameters
from glm_model.tokenizer import Tokenizer
from infra import config, storage
from infra.console import Console, counted, human
from infra.errors import UserError
from pipelines import tasks
from pipelines.feed.questions import QuestionPlan, fingerprint, segment_sizes
from pipelines.metrics.choices import OF_COUNTS
from pipelines.metrics.scores import check_metrics
from pipelines.questions.question import Question
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Task
from workflows.finetuning.items import Selection, draw, labelled, select
from workflows.runs.record import RunRecord
from workflows.runs.run import Run, resume
from workflows.settings.budget import check_warmup
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.identity import check_name, without_later_defaults
from workflows.settings.models import find_model, weights_digest
from workflows.settings.shape import pretrained_config
from workflows.training.finetuning import LOSS


@dataclass(frozen=True)
class FinetuneSetup:
    """A recipe with all that it resolves to."""

    recipe: FinetuneRecipe
    init_url: str
    """The model folder to begin with."""
    task: Task
    tokenizer: Tokenizer
    shape: GLMConfig
    labelled: tuple[Question, ...]
    """The train split, whatever of it is used."""
    selection: Selection
    plan: QuestionPlan
    steps: int
    screen: Console

    @property
    def metrics(self) -> tuple[str, ...]:
        """What validation tells, the one that selects first: of the task's metrics those that follow from counts of
        choices, unlike F1 of words; else accuracy. Where texts are generated: the loss, which needs none.
        """
        if self.task.generation:
            return (LOSS,)
        return tuple(name for name in self.task.metrics if name in OF_COUNTS) or ("accuracy",)

    @property
    def steps_of_epoch(self) -> int:
        return math.ceil(self.plan.questions / self.plan.step_questions)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What decides the weights, flat, wherever the data and the model lie."""
        flat = deciding_settings(self.recipe)
        begun = json.dumps(asdict(self.shape)) if self.recipe.model.random else weights_digest(self.init_url)
        items = (*self.selection.train, *self.selection.held_out)
        return flat | {
            _ITEMS: f"{fingerprint(items):016x}",  # with their labels
            _DIGEST: self.task.digest,
            _WEIGHTS: begun,
        }

    @property
    def comparable_settings(self) -> dict[str, str]:
        """The settings that are worth comparing, those that runs differ by most often first."""
        shown = {key: value for key, value in self.settings.items() if key not in (_ITEMS, _DIGEST, _WEIGHTS)}
        first = ("task.name", "model.init_from", "model.random", "task.head", "optim.lr", "train.epochs", "train.seed")
        shown |= {"model.init_from": self.started_from}
        return {key: shown[key] for key in first} | shown

    @property
    def started_from(self) -> str:
        """What the weights were before, for people."""
        return self.init_url + (" (its shape, random weights)" if self.recipe.model.random else "")

    @property
    def identity(self) -> str:
        """Hex digest of the settings."""
        return _digest(self.settings)

    @property
    def group(self) -> str:
        """Hex digest that fine-tunings share which differ in train.seed alone. The seed also draws the items that are
        used and held out, so all labelled ones stand for these.
        """
        every = f"{fingerprint(self.labelled):016x}"
        rest = {key: value for key, value in self.settings.items() if key not in ("train.seed", _ITEMS)}
        return _digest(rest | {"labelled": every})


def deciding_settings(recipe: FinetuneRecipe) -> dict[str, str]:
    """The settings that decide what is computed, flat; of data and model the names, not where they lie."""
    return {
        key: storage.base_name(value) if key in _PLACES or key.startswith("task.splits.") else value
        for key, value in without_later_defaults(config.flatten(recipe)).items()
        if not any(key == out or key.startswith(f"{out}.") for out in _NOT_IDENTITY)
        and not (key.startswith(_LATER) and value == _DEFAULTS[key])
    }


def resolve_finetune(
    recipe: FinetuneRecipe, screen: Console, *, read: Callable[..., list[Question]] = labelled
) -> FinetuneSetup:
    """Read the task's items and resolve all that follows. Starts no Ray. read: what reads the questions of a split.

    Raises UserError for settings that cannot work, DataError for data that cannot be used.
    """
    if not recipe.task.data and not recipe.task.splits:
        raise UserError("task.data is missing", why="it names the labelled data", try_="--task.data=reviews.csv")
    if not recipe.model.init_from:
        raise UserError(
            "model.init_from is missing", why="it names the model to fine-tune", try_="--model.init_from=runs/<run>"
        )
    init_url, train = find_model(recipe.model.init_from), recipe.train
    tokenizer = Tokenizer.load(init_url)
    shape = replace(pretrained_config(init_url), dropout=recipe.model.dropout, attention_dropout=recipe.model.dropout)
    splits = tasks.find_splits(recipe.task)
    task = tasks.define(recipe.task, lambda: split_rows(splits, "train", columns=recipe.task.columns))
    check_metrics(task.metrics, classes=len(task.labels), generates=task.generation is not None)
    _check_learnable(task)

    def questions(split: str) -> list[Question]:
        return read(recipe.task, task, splits, split, tokenizer, shape.positions, screen)

    every = questions("train")
    selection = select(draw(every, train.items, seed=train.seed), train, lambda: questions("dev"))
    _check_patience(recipe, selection)
    count = len(selection.train)
    plan = QuestionPlan(count, min(train.batch, count), train.micro, train.seed)
    if train.max_workers > plan.micro_batches:
        raise UserError(
            f"{train.max_workers} workers for {plan.micro_batches} micro-batches of a step: some would be idle",
            why=f"there are {counted(count, 'item')}, in micro-batches of train.micro={train.micro}",
            try_="give a smaller train.micro, or fewer workers",
        )
    steps = train.steps or max(1, round(train.epochs * plan.questions / plan.step_questions))
    check_warmup(recipe.optim, steps)
    return FinetuneSetup(recipe, init_url, task, tokenizer, shape, tuple(every), selection, plan, steps, screen)


def _check_learnable(task: Task) -> None:
    if task.zero_shot:
        raise UserError(
            f"nothing is learned from {task.name}",
            why="it is made to ask models that were trained on something else",
            try_=f"--task.name={task.taught_by}" if task.taught_by else "choose another task",
        )


def _check_patience(recipe: FinetuneRecipe, selection: Selection) -> None:
    if recipe.train.patience is not None and selection.split is None:
        raise UserError(
            f"train.patience={recipe.train.patience} waits for validations, and nothing is validated",
            why=f"selected on {selection.told}",
            try_="leave it out, or --train.select_on=dev",
        )


def describe_finetune(setup: FinetuneSetup) -> list[tuple[str, str]]:
    """What the run would do, in rows for the screen."""
    task, selection = setup.task, setup.selection
    positions = sum(sum(segment_sizes(question)) for question in selection.train) / len(selection.train)
    words = ", ".join(f"{label}: {word}" for label, word in task.pattern().words.items())
    begin = f"{setup.started_from}, {human(num_parameters(setup.shape))} parameters"
    epochs = setup.steps * setup.plan.step_questions / setup.plan.questions
    budget = f"{counted(setup.steps, 'step')} of {counted(setup.plan.step_questions, 'item')} = {epochs:.2f} epochs"
    sizes = f"{len(selection.train):,} to train on, {positions:,.0f} positions each on average"
    sizes += f"; {len(selection.held_out):,} to select on" if selection.split else ""
    by = f", by {setup.metrics[0]}" if selection.split else ""
    rows = [
        ("task", f"{task.name} version {task.version}, pattern {task.default_pattern}: {task.pattern().text}"),
        ("items", sizes),
        ("begins with", begin),
        ("budget", budget),
        ("selected on", selection.told + by),
    ]
    return [rows[0], *([("label words", words)] if words else []), *rows[1:]]


# Settings that change where and how fast a run is, and not what it computes.
_NOT_IDENTITY = (
    *("run", "tracking", "console", "cluster", "task.max_bad"),
    *("train.num_workers", "train.use_gpu", "train.resources_per_worker", "train.max_failures", "train.hang_s"),
    *("train.resize_every_s", "train.exact", "train.log_every", "train.keep_checkpoints", "train.patience"),
)
_PLACES = ("task.data", "model.init_from")
# Settings that earlier versions lacked: with their default a run is the one that it was then.
_LATER = ("task.source", "task.target", "task.generation.", "task.blanks.")
_DEFAULTS = config.flatten(FinetuneRecipe())
_ITEMS, _DIGEST, _WEIGHTS = "items", "task digest", "initial weights"


def open_finetuning(setup: FinetuneSetup, recipe_name: str) -> Run:
    """The run of this fine-tuning, new or continued: named by its settings and its questions, wherever the data and the
    model lie. recipe_name: of the recipe's file; "" where there is none. Raises as `workflows.runs.run.open_run`.
    """
    recipe = setup.recipe
    name = check_name(recipe.run.name or f"{recipe_name or setup.task.name}-{setup.identity[:8]}")
    record = RunRecord(name=name, identity=setup.identity, settings=setup.settings)
    return resume(Run(storage.join(recipe.run.storage_path, name), record), fresh=recipe.run.fresh, changed=_changed)


def _changed(record: RunRecord, now: dict[str, str]) -> list[str]:
    before = record.settings
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def _digest(settings: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
