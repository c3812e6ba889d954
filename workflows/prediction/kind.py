"""A kind of prediction: what the model is asked about a row, and which columns its answers fill.

Each kind is a module beside this one. What a row is asked is a `Question`, as in evaluation, so one row gets one answer
from both; a kind that writes asks for no candidates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import pyarrow as pa

from glm_model import GLM, Classifier
from glm_model.tokenizer import PROMPT_MASKS, Tokenizer
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Overlong, Question, ask
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, Task, take

_TEXT = Pattern("{*text}")

Shown = tuple[Pattern, Item]
"""How a row is asked, and what of it."""


@dataclass(frozen=True)
class Kind:
    """What is asked of rows. It is sent to workers."""

    name: str
    columns: Mapping[str, pa.DataType]
    """Our columns, in their order. `tokens_cut` and `reason` follow them."""
    settings: Mapping[str, Any]
    """All that decides an answer besides the model and the row."""
    show: Callable[[Row], Shown]
    """How a row is asked. Raises ValueError, in the user's words, for one that no model can be asked about."""
    ask: Callable[[Shown, Tokenizer, int], Question]
    """The question for a model with so many positions. Raises ValueError where there is none."""
    answer: Callable[[GLM | Classifier, Tokenizer, Sequence[Question]], Sequence[tuple[Any, ...]]]
    """For each question of a batch a value of each column."""
    positions: Callable[[Question], int] = attrgetter("positions")
    """What a question adds to a batch."""
    needs_mask: bool = True
    """Whether the model writes, or scores, in place of a mask."""


def asked_by(task: Task, overlong: Overlong) -> Callable[[Shown, Tokenizer, int], Question]:
    """`ask` of a kind."""

    def ask_shown(shown: Shown, tokenizer: Tokenizer, positions: int) -> Question:
        pattern, item = shown
        return ask(task, pattern, item, tokenizer, positions=positions, overlong=overlong)

    return ask_shown


def shown_by_task(task: Task) -> Callable[[Row], Shown]:
    """Rows as a task has them; their labels and ids are not read."""
    pattern = task.pattern()

    def show(row: Row) -> Shown:
        item = task.item(row)
        return shown_by(pattern, replace(item, id="", gold=None, golds=()))

    return show


def shown_by(pattern: Pattern, item: Item, *, one_mask: bool = False) -> Shown:
    """Raises ValueError where the item lacks what the pattern shows, where that is all empty, and where a field that
    has the masks has none, or several although one is asked for.
    """
    names = pattern.fields
    if missing := [name for name in names if name not in item.fields]:
        raise ValueError(f"no field {missing[0]!r}, but {', '.join(item.fields) or 'none'}")
    if names and not any(item.fields[name].strip() for name in names):
        several = len(names) > 1
        columns = ", ".join(map(repr, names))
        raise ValueError(f"the column{'s' * several} {columns} {'are' if several else 'is'} empty")
    if pattern.has_blanks:
        count = len(PROMPT_MASKS.findall(pattern.render(item.fields)))
        if not count or (one_mask and count > 1):
            raise ValueError(
                f"the text has {count or 'no'} masks: expected {'one' if one_mask else 'at least one'} [MASK], where "
                "the model writes"
            )
    return pattern, item


def fields_of(row: Row, pattern: Pattern | None, column: str) -> tuple[Pattern, Mapping[str, str]]:
    """The pattern with all columns of a row; or, without one, a pattern of the text of a column with its masks."""
    return (pattern, row.fields) if pattern else (_TEXT, {"text": text_of(row, column)})


def text_of(row: Row, column: str) -> str:
    """Raises ValueError where there is none."""
    (text,) = take(row, column)
    if not text.strip():
        raise ValueError(f"the column {column!r} is empty")
    return text


def task_of(name: str, *, stride: int = 0, count_end: bool | None = None) -> Task:
    """The task of rows that bring what is asked with them."""
    return Task(name=name, version=1, kind="choose", patterns=(), item=_no_item, stride=stride, count_end=count_end)


def _no_item(row: Row) -> Item:
    raise AssertionError("its items are made of rows by their kind")
