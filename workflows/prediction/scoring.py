"""Score: the log-probability of a whole text, read from left to right, or of a target in place of a mask.

A text is read as the task `perplexity` reads it, in windows where it is longer than the model. A target is scored as
`glm_model.score` does it, its end included.
"""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from glm_model import GLM, Classifier
from glm_model.tokenizer import Tokenizer
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Overlong, Question
from pipelines.questions.rows import Row
from pipelines.questions.task import Item
from workflows.answering.answers import answer
from workflows.prediction.kind import Kind, Shown, asked_by, fields_of, shown_by, task_of, text_of

_SCORE = {"logprob": pa.float64(), "tokens": pa.int32()}


def score_text(pattern: Pattern | None, text: str, overlong: Overlong) -> Kind:
    """pattern: without a mask, makes the text; None: it is the column `text`."""
    task = tasks.define(TaskConfig(name="perplexity"), lambda: [])

    def read(row: Row) -> str:
        if pattern is None:
            return text_of(row, text)
        shown_by(pattern, Item(id="", fields=row.fields))
        return pattern.render(row.fields)

    def show(row: Row) -> Shown:
        return task.pattern(), Item(id="", fields={"before": ""}, candidates=(read(row),))

    def answers(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[tuple[Any, ...]]:
        found = [(one.logprobs[0], one.tokens[0]) for one in answer(model, tokenizer, batch)]
        sizes = [len(question.answers[0].encode()) for question in batch]
        return [(*one, -one[0] / math.log(2) / size) for one, size in zip(found, sizes, strict=True)]

    told = {"pattern": pattern.text if pattern else None, "text": text, "task_digest": task.digest}
    columns = {**_SCORE, "bits_per_byte": pa.float64()}
    return Kind("score", columns, {**told, "stride": task.stride}, show, asked_by(task, overlong), answers)


def score_target(target: str, pattern: Pattern | None, text: str, overlong: Overlong) -> Kind:
    """target: the column that holds it. pattern: None where the column `text` has the mask."""

    def show(row: Row) -> Shown:
        own, fields = fields_of(row, pattern, text)
        return shown_by(own, Item(id="", fields=fields, candidates=(text_of(row, target),)), one_mask=True)

    def answers(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[tuple[Any, ...]]:
        return [(one.logprobs[0], one.tokens[0]) for one in answer(model, tokenizer, batch)]

    ask = asked_by(task_of("score", count_end=True), overlong)
    told = {"pattern": pattern.text if pattern else None, "text": text, "target": target}
    return Kind("score", _SCORE, told, show, ask, answers)
