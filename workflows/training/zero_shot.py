"""Tasks that a model is asked while it is trained: some items of each, split over the workers.

The items and their batches are those of `evaluate.py --limit`, so a step has the scores that its checkpoint would get
there. They stand complete on every worker before metrics are taken: the number of workers changes nothing.

Shapes: N questions, K the most candidates of a question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from glm_model import GLM, Tokenizer
from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.metrics.items import judged
from pipelines.metrics.known import METRICS
from pipelines.metrics.scores import score_choices
from pipelines.questions.drawn import last_rank, rank
from pipelines.questions.question import Question, ask
from pipelines.questions.rows import BadRow, check_bad
from pipelines.questions.splits import split_rows, train_or_first
from pipelines.questions.task import Item
from workflows.answering.answers import Answer, answer, batches
from workflows.answering.items import answer_table, item_rows
from workflows.settings.eval_tasks import short_name, task_config
from workflows.settings.recipe import EvalTask
from workflows.training.engine import Place


@dataclass(frozen=True)
class ZeroShot:
    """A task, and what is asked of it."""

    name: str
    metrics: tuple[str, ...]
    classes: int
    """How many labels all items share; 0: they have candidates of their own."""
    batches: tuple[tuple[Question, ...], ...]
    """Each is answered by one worker."""

    @property
    def questions(self) -> list[Question]:
        return [question for batch in self.batches for question in batch]


def zero_shot_of(
    several: Sequence[EvalTask], tokenizer: Tokenizer, *, positions: int, limit: int
) -> tuple[ZeroShot, ...]:
    """Read up to `limit` items of each task and ask them. positions: of the model.

    Raises UserError for a task that writes whole texts, DataError where nothing can be asked, or more rows than
    `task.max_bad` are not items.
    """
    return tuple(_zero_shot(one, tokenizer, positions, limit) for one in several)


def zero_shot_scores(several: Sequence[ZeroShot], model: GLM, tokenizer: Tokenizer, place: Place) -> dict[str, float]:
    """eval/<task>/<metric> -> value, computed by all workers together. NaN where an answer is not finite."""
    return {
        f"eval/{one.name}/{metric}": value
        for one in several
        for metric, value in scores_of(one, place.ranks.sum(answered(one, model, tokenizer, place))).items()
    }


def answered(one: ZeroShot, model: GLM, tokenizer: Tokenizer, place: Place) -> torch.Tensor:
    """This worker's answers, float64 [N, 2 K + 2], and 0 for those of others: log-probabilities, numbers of tokens, the
    choice (-1: none), whether it is tied.
    """
    most = _most_candidates(one)
    found = torch.zeros(len(one.questions), 2 * most + 2, dtype=torch.float64)
    first = 0
    for number, batch in enumerate(one.batches):
        if number % place.ranks.world == place.ranks.rank:
            found[first : first + len(batch)] = _answers(model, tokenizer, batch, most)
            place.beat()
        first += len(batch)
    return found


def scores_of(one: ZeroShot, found: torch.Tensor) -> dict[str, float]:
    """Metric -> value, of the answers of all workers."""
    if not found.isfinite().all():
        return dict.fromkeys(one.metrics, float("nan"))
    most = _most_candidates(one)
    answers = []
    for question, row in zip(one.questions, found.tolist(), strict=True):
        size, choice = len(question.answers), int(row[2 * most])
        tokens = tuple(int(count) for count in row[most : most + size])
        answers.append(Answer(tuple(row[:size]), tokens, None if choice < 0 else choice, bool(row[-1])))
    items: pa.Table = judged(item_rows(one.questions, answer_table(answers)))
    return {name: score_choices(name, items, METRICS[name].choose(items), classes=one.classes) for name in one.metrics}


def _answers(model: GLM, tokenizer: Tokenizer, batch: Sequence[Question], most: int) -> torch.Tensor:
    found = np.zeros((len(batch), 2 * most + 2))
    try:
        several = answer(model, tokenizer, batch)
    except ValueError:  # weights that are not finite: the training says so itself, or recovers
        return torch.full(found.shape, torch.nan, dtype=torch.float64)
    for row, one in zip(found, several, strict=True):
        row[: len(one.logprobs)] = one.logprobs
        row[most : most + len(one.tokens)] = one.tokens
        row[-2:] = -1 if one.choice is None else one.choice, one.is_tied
    return torch.from_numpy(found)


def _most_candidates(one: ZeroShot) -> int:
    return max(len(question.answers) for question in one.questions)


def _zero_shot(one: EvalTask, tokenizer: Tokenizer, positions: int, limit: int) -> ZeroShot:
    config = task_config(one)
    splits = tasks.find_splits(config)
    task = tasks.define(config, lambda: split_rows(splits, train_or_first(splits)))
    if task.generation:
        raise UserError(
            f"train.eval_tasks: {one.name} writes whole texts, which takes a training too long",
            try_=f"keep checkpoints, and ask them: evaluate.py --models 'runs/<run>@*' --task.name={one.name}",
        )
    found = [item for _, item in task.items(split_rows(splits, one.split))]
    of = f"the split {one.split!r} of {one.name}"
    check_bad([str(item) for item in found if isinstance(item, BadRow)], len(found), limit=config.max_bad, of=of)
    items = [item for item in found if isinstance(item, Item) and item.gold is not None]
    last = last_rank(items, limit)
    drawn = [item for item in items if last is None or rank(item) <= last]
    questions, reasons = list[Question](), list[str]()
    for item in drawn:
        try:
            questions.append(ask(task, task.pattern(), item, tokenizer, positions=positions))
        except ValueError as error:
            reasons.append(f"{item.id}: {error}")
    if not questions or len(reasons) > config.max_bad * len(drawn):
        raise DataError(
            f"train.eval_tasks: {len(questions):,} of {len(drawn):,} items of {of} can be asked",
            why=reasons[0] if reasons else "no item has a gold answer",
            try_="leave the task out, or the items; evaluate.py --task.overlong=skip asks the others of a checkpoint",
        )
    return ZeroShot(short_name(one), task.metrics, len(task.labels), tuple(map(tuple, batches(questions))))
