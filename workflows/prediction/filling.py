"""Fill: the masks of a text, as `glm_model.fill` fills them; several in one text are written one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from glm_model import GLM, Classifier, Decoding, fill_batch
from glm_model.tokenizer import Tokenizer
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Overlong, Question
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, Task
from workflows.prediction.kind import Kind, Shown, asked_by, fields_of, shown_by, shown_by_task, task_of

_COLUMNS = {"filled": pa.string(), "blanks": pa.list_(pa.string()), "logprob": pa.float64()}


def fill(pattern: Pattern | None, text: str, overlong: Overlong, decoding: Decoding, order: str) -> Kind:
    """pattern: None where the column `text` has masks of its own."""

    def show(row: Row) -> Shown:
        own, fields = fields_of(row, pattern, text)
        return shown_by(own, Item("", fields))

    told = {"pattern": pattern.text if pattern else None, "text": text}
    return _fill(told, show, asked_by(task_of("fill"), overlong), decoding, order)


def fill_by_task(task: Task, overlong: Overlong, decoding: Decoding, order: str) -> Kind:
    """The masks of a task that writes. What is right, where a row has it, is not read."""
    whole = shown_by_task(task)

    def show(row: Row) -> Shown:
        pattern, item = whole(row)
        return pattern, replace(item, candidates=(), blanks=())

    told = {"task": task.name, "task_digest": task.digest, "pattern": task.pattern().text}
    return _fill(told, show, asked_by(replace(task, labels=()), overlong), decoding, order)


def _fill(
    told: dict[str, Any],
    show: Callable[[Row], Shown],
    ask: Callable[[Shown, Tokenizer, int], Question],
    decoding: Decoding,
    order: str,
) -> Kind:
    def answers(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[tuple[Any, ...]]:
        assert isinstance(model, GLM)
        filled = fill_batch(model, tokenizer, [question.text for question in batch], decoding, order=order)
        return [(one.text, [blank.text for blank in one.blanks], one.logprob) for (one,) in filled]

    def positions(question: Question) -> int:
        context, masks = len(question.prompt.tokens), len(question.prompt.mask_positions)
        return decoding.beams * (context + masks * (decoding.max_tokens + 1))

    told = {**told, "decoding": asdict(decoding), "order": order}
    return Kind("fill", _COLUMNS, told, show, ask, answers, positions)
