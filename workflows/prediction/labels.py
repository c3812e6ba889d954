"""Classify: one of the same labels for each row. Choose: one of the candidates that a row brings with it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from glm_model import GLM, Classifier
from glm_model.tokenizer import Tokenizer
from pipelines.metrics.calibration import shares_of
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Overlong, Question
from pipelines.questions.rows import Row, as_text
from pipelines.questions.task import Item, Task, take
from workflows.answering.answers import answer
from workflows.prediction.kind import Kind, Shown, asked_by, fields_of, shown_by, shown_by_task, task_of


def classify(task: Task, overlong: Overlong) -> Kind:
    """The labels of a task, each with its share: the softmax over the scores of the labels."""
    labels = task.labels

    def answers(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[tuple[Any, ...]]:
        found = answer(model, tokenizer, batch)
        shares = shares_of(np.array([one.logprobs for one in found])).tolist()
        chosen = [None if one.choice is None else labels[one.choice] for one in found]
        return [(label, *share) for label, share in zip(chosen, shares, strict=True)]

    columns = {"label": pa.string(), **{f"p_{label}": pa.float64() for label in labels}}
    show, ask, needs_mask = shown_by_task(task), asked_by(task, overlong), task.pattern().has_mask
    return Kind("classify", columns, _told(task), show, ask, answers, needs_mask=needs_mask)


def choose_by_task(task: Task, overlong: Overlong) -> Kind:
    """The candidates that a task finds in a row."""
    return _choose(_told(task), shown_by_task(task), asked_by(task, overlong))


def choose(columns: Sequence[str], pattern: Pattern | None, text: str, overlong: Overlong) -> Kind:
    """columns: the one that holds a list of candidates, or several that hold one each. pattern: None where the column
    `text` is asked as it is.
    """

    def show(row: Row) -> Shown:
        own, fields = fields_of(row, pattern, text)
        return shown_by(own, Item(id="", fields=fields, candidates=_candidates(row, columns)), one_mask=True)

    told = {"pattern": pattern.text if pattern else None, "text": text, "candidates": list(columns)}
    return _choose(told, show, asked_by(task_of("choose"), overlong))


def _choose(told: dict[str, Any], show: Any, ask: Any) -> Kind:
    def answers(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[tuple[Any, ...]]:
        return [
            (None if one.choice is None else question.answers[one.choice], one.choice, list(one.logprobs))
            for question, one in zip(batch, answer(model, tokenizer, batch), strict=True)
        ]

    columns = {"choice": pa.string(), "choice_number": pa.int32(), "logprobs": pa.list_(pa.float64())}
    return Kind("choose", columns, told, show, ask, answers)


def _told(task: Task) -> dict[str, Any]:
    pattern = task.pattern()
    return {
        "task": task.name,
        "task_digest": task.digest,
        "pattern": pattern.text,
        "words": dict(pattern.words),
    }


def _candidates(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError for a row that has none."""
    values = take(row, *columns)
    if len(columns) > 1:
        found = list(values)
    else:
        try:
            found = json.loads(values[0])
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise ValueError(f"the column {columns[0]!r}: expected a list of candidates, got {values[0]!r:.60}")
    texts = tuple(as_text(one) for one in found)
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"a candidate in {', '.join(map(repr, columns))} is empty" if texts else "no candidates")
    return texts
