"""The scores of a table of items: each with its interval, its number of items, and what costs nothing to reach."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.errors import UserError, nearest
from pipelines.metrics.intervals import Interval, interval
from pipelines.metrics.items import group_numbers, judged
from pipelines.metrics.known import METRICS
from pipelines.metrics.metric import Answers, recorded


@dataclass(frozen=True)
class Score:
    """A metric of the items of a split."""

    metric: str
    value: float
    interval: Interval | None
    """Over items, drawn by groups; None where there is but one group."""
    n: int
    """How many things the metric counts: items that were asked and whose gold answer is known; of those that are judged
    together one, of SQuAD's questions without an answer these alone, for exact match the blanks.
    """
    one_answer: tuple[float, ...]
    """What every item gets that is answered with one and the same class, for each class; () where items have candidates
    of their own, and where nothing is chosen.
    """
    majority: float | None
    """That of the most frequent class. Where items have candidates of their own: the mean over drawing one of them;
    None where there is nothing to choose among.
    """
    variant: str = ""
    """Which variant of the metric this is."""


def check_metrics(names: Sequence[str], *, classes: int, generates: bool = False) -> None:
    """Raises UserError for metrics that do not exist, for those of classes where there are none (0), for those of
    items' own candidates where there are classes, and for those of texts where none are generated.
    """
    for name in names:
        if name not in METRICS:
            raise UserError(f"unknown metric {name!r}{nearest(name, METRICS)}", try_="change task.metrics")
        if generates != (METRICS[name].needs == "written") and not (generates and METRICS[name].needs == "likelihoods"):
            kinds = ("choices", "generates texts") if generates else ("texts that are generated", "chooses")
            raise UserError(
                f"{name} is for {kinds[0]}, and this task {kinds[1]}",
                try_=f"--task.metrics='[{'rougeLsum' if generates else 'accuracy'}]'",
            )
        if not classes and METRICS[name].needs == "classes":
            raise UserError(
                f"{name} needs classes, and the items of this task have candidates of their own",
                try_="--task.metrics='[accuracy]'",
            )
        if classes and METRICS[name].needs in ("candidates", "likelihoods"):
            raise UserError(
                f"{name} is for items with candidates of their own, and this task has classes",
                try_="--task.metrics='[macro_f1]', or f1a: F1 of the last class",
            )


def scores(table: pa.Table, metrics: Sequence[str], *, classes: int) -> list[Score]:
    """The metrics of a table of items; none where no gold answer is known, and none for which no item counts. classes:
    of the task, 0 where items have candidates of their own.
    """
    items = judged(table)
    if not len(items):
        return []
    return [score for name in metrics if not math.isnan((score := _score(name, items, classes)).value)]


def group_sums(metric: str, items: pa.Table, *, classes: int) -> np.ndarray:
    """What a metric counts of judged items, summed over each of their groups, in the order of their names: [G, *S]."""
    kind = METRICS[metric]
    return kind.sums(Answers(items, kind.choose(items), classes), group_numbers(items))


def counted(metric: str, sums: np.ndarray, items: pa.Table) -> int:
    """How many things a metric is of. sums: what it counts [G, *S] of these judged items."""
    count = METRICS[metric].counted
    return count(sums.sum(0)) if count else len(items)


def score_choices(metric: str, items: pa.Table, choice: np.ndarray, *, classes: int) -> float:
    """The metric of other choices [N] for judged items: those of a baseline."""
    everything = np.zeros(len(items), np.int64)
    kind = METRICS[metric]
    return float(kind.value(kind.sums(Answers(items, choice.astype(np.int64), classes), everything)[0]))


def score_written(metric: str, items: pa.Table, written: Sequence[str], texts: Sequence[Sequence[str]]) -> float:
    """The metric of other texts for judged items: those of a baseline. written: what stands for each answer; texts: of
    each blank.
    """
    blanks = [
        [{**blank, "written": text} for blank, text in zip(row, several, strict=True)]
        for row, several in zip(items["blanks"].to_pylist(), texts, strict=True)
    ]
    for name, values in (("written", list(written)), ("blanks", blanks)):
        number = items.schema.get_field_index(name)
        items = items.set_column(number, items.schema.field(number), pa.array(values, items.schema.field(number).type))
    sums = METRICS[metric].sums(Answers(items, recorded(items), 0), np.zeros(len(items), np.int64))
    return float(METRICS[metric].value(sums[0]))


def _score(metric: str, items: pa.Table, classes: int) -> Score:
    sums = group_sums(metric, items, classes=classes)
    one_answer, majority = _without_a_model(metric, items, classes)
    variant = METRICS[metric].variant
    return Score(
        metric=metric,
        value=float(METRICS[metric].value(sums.sum(0))),
        interval=interval(metric, sums),
        n=counted(metric, sums, items),
        one_answer=one_answer,
        majority=majority,
        variant=variant(items) if variant else "",
    )


def _without_a_model(metric: str, items: pa.Table, classes: int) -> tuple[tuple[float, ...], float | None]:
    """What one answer to all gets, for each class; and the most frequent one, or chance."""
    if METRICS[metric].needs in ("likelihoods", "written"):
        return (), None
    if not classes:
        return (), _by_chance(metric, items)
    several = (np.full(len(items), number) for number in range(classes))
    one_answer = tuple(score_choices(metric, items, choice, classes=classes) for choice in several)
    gold = items["gold"].to_numpy().astype(np.int64)
    return one_answer, one_answer[np.bincount(gold, minlength=classes).argmax()]


def _by_chance(metric: str, items: pa.Table) -> float | None:
    """The mean over all ways to choose among candidates of items' own; None where each has one."""
    sizes = np.array([len(candidates) for candidates in items["candidates"].to_pylist()])
    if sizes.max() < 2:
        return None
    everything, kind = np.zeros(len(items), np.int64), METRICS[metric]
    alone = np.arange(len(items))
    total = np.zeros_like(kind.sums(Answers(items, everything, 0), everything)[0])
    for number in range(int(sizes.max())):
        has = sizes > number
        sums = kind.sums(Answers(items.filter(pa.array(has)), np.full(int(has.sum()), number), 0), alone[: has.sum()])
        total = total + (sums / sizes[has][:, None]).sum(0)
    return float(kind.value(total))
