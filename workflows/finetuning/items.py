"""The items of a fine-tuning: what is trained on, and what chooses the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glm_model.tokenizer import Tokenizer
from infra.console import Console, counted
from infra.errors import DataError
from pipelines import keyed
from pipelines.document import content_key
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Question, ask_all
from pipelines.questions.rows import BadRow, check_bad
from pipelines.questions.splits import SplitFile, split_rows
from pipelines.questions.task import Task
from workflows.settings.finetune import FinetuneConfig

LEAST_SELECTING = 200
"""Items that are held out of train. The interval of an accuracy over fewer is wider than what is chosen among."""
_HELD_OUT, _DRAWN = 402, 403
_LAST = "nothing: the last weights"


@dataclass(frozen=True)
class Selection:
    """What is trained on, and what chooses the checkpoint."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...] = ()
    """What is validated; empty where nothing selects."""
    split: Literal["train", "dev"] | None = None
    """The split that `held_out` is of."""
    told: str = _LAST
    """What chooses the checkpoint, in words."""


def labelled(
    config: TaskConfig,
    task: Task,
    splits: dict[str, SplitFile],
    split: str,
    tokenizer: Tokenizer,
    positions: int,
    screen: Console,
) -> list[Question]:
    """The questions of a split that have a gold answer; says what was cut and what is left out. positions: the most
    that the model has. Raises DataError where there are none, or too many bad rows.
    """
    rows = split_rows(splits, split, columns=config.columns)
    asked = list(ask_all(task, rows, tokenizer, positions=positions, overlong=config.overlong, learns=split == "train"))
    bad = [one for one in asked if isinstance(one, BadRow)]
    of = f"the split {split!r} of {task.name}"
    check_bad([*map(str, bad)], len(asked), limit=config.max_bad, of=of)
    questions = [one for one in asked if isinstance(one, Question) and one.gold is not None]
    if not questions:
        raise DataError(
            f"the split {split} of {task.name} has no labelled items",
            why=f"{splits[split].url} has {counted(len(asked), 'row')}, none of them with a "
            + ("target" if task.generation else "label"),
            try_=f"name the column as task.{'target' if task.generation else 'label'}, or choose another split",
        )
    if bad:
        screen.warn(f"{split}: {counted(len(bad), 'row')} left out, such as {bad[0]}")
    if cut := sum(question.cut > 0 for question in questions):
        screen.warn(f"{split}: {cut:,} of {counted(len(questions), 'item')} are cut to {positions:,} positions")
    if cut := sum(bool(question.target_cut) for question in questions):
        most = task.generation.max_tokens if task.generation else positions
        told = f"cut to {most:,} tokens (task.generation.max_tokens): their end is not learned"
        screen.warn(f"{split}: {cut:,} of {counted(len(questions), 'target')} are {told}")
    return questions


def draw(questions: Sequence[Question], count: int | None, *, seed: int) -> Sequence[Question]:
    """So many of the questions, the same for every count that is larger: each is in the next larger set."""
    if count is None or count >= len(questions):
        return questions
    order = np.argsort(keyed.fold(seed, _DRAWN, _keys(questions)), kind="stable")[:count]
    return [questions[number] for number in sorted(order.tolist())]


def select(questions: Sequence[Question], train: FinetuneConfig, dev: Callable[[], Sequence[Question]]) -> Selection:
    """Items of a group, or of equal text, are not parted. dev: gives the questions of the split dev."""
    if train.select_on == "none":
        return Selection(tuple(questions))
    if train.select_on == "dev":
        held_out = tuple(dev())
        return Selection(tuple(questions), held_out, "dev", "dev")
    together = np.array([content_key(one.item.group) for one in questions], np.uint64)
    keys = np.where([bool(one.item.group) for one in questions], together, _keys(questions))
    chance = keyed.uniform(keyed.bits(keyed.fold(train.seed, _HELD_OUT, keys), 1, stream=0)).ravel()
    parts: tuple[list[Question], list[Question]] = ([], [])
    for question, is_out in zip(questions, (chance < train.held_out).tolist(), strict=True):
        parts[is_out].append(question)
    kept, held_out = map(tuple, parts)
    part = f"{100 * train.held_out:g} % of train"  # not how many, which differs from seed to seed
    if not kept or len(held_out) < LEAST_SELECTING:
        return Selection(tuple(questions), told=f"{_LAST}, as {part} would be fewer than {LEAST_SELECTING} items")
    return Selection(kept, held_out, "train", f"{part}, held out")


def _keys(questions: Iterable[Question]) -> np.ndarray:
    """What items are, wherever they stand: equal ones share a key."""
    texts = ("\0".join((question.text, *question.answers)) for question in questions)
    return np.array([content_key(text) for text in texts], np.uint64)
