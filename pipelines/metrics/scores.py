"""The scores of a table of items: each with its interval, its number of items, and what costs nothing to reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.errors import UserError, nearest
from pipelines.metrics import choices
from pipelines.metrics.intervals import Interval, interval
from pipelines.metrics.items import all_counts, gold_and_choice, group_counts, judged


@dataclass(frozen=True)
class Score:
    """A metric of the items of a split, on 0 to 100."""

    metric: str
    value: float
    interval: Interval | None
    """Over items, drawn by groups; None where there is but one group."""
    n: int
    """Items that were asked and whose gold answer is known."""
    majority: float
    """What one answer to all gets, the most frequent class; where items have candidates of their own, chance."""


def check_metrics(names: Sequence[str], *, classes: int) -> None:
    """Raises UserError for metrics that do not exist, and for those of classes where there are none (0)."""
    for name in names:
        if name not in choices.NAMES:
            raise UserError(f"unknown metric {name!r}{nearest(name, choices.NAMES)}", try_="change task.metrics")
        if not classes and name in choices.OF_CLASSES:
            raise UserError(
                f"{name} needs classes, and the items of this task have candidates of their own",
                try_="--task.metrics='[accuracy]'",
            )


def scores(table: pa.Table, metrics: Sequence[str], *, classes: int) -> list[Score]:
    """The metrics of a table of items; none where no gold answer is known. classes: of the task, 0 where items have
    candidates of their own.
    """
    items = judged(table)
    if not len(items):
        return []
    counts, groups = all_counts(items, classes), group_counts(items, classes)
    return [
        Score(
            metric=name,
            value=choices.score(name, counts),
            interval=interval(name, groups),
            n=len(items),
            majority=_majority(name, items, classes),
        )
        for name in metrics
    ]


def score_choices(metric: str, items: pa.Table, choice: np.ndarray, *, classes: int) -> float:
    """The metric of other choices [N] for judged items: those of a baseline."""
    gold = items["gold"].to_numpy().astype(np.int64)
    if not classes:
        gold, choice, classes = np.ones_like(gold), (gold == choice).astype(np.int64), 2
    return choices.score(metric, choices.count_choices(gold, choice, classes))


def _majority(metric: str, items: pa.Table, classes: int) -> float:
    if not classes:
        return 100.0 * float(np.mean([1 / len(one) for one in items["candidates"].to_pylist()]))
    gold, _ = gold_and_choice(items, classes)
    same = np.full_like(gold, np.bincount(gold, minlength=classes).argmax())
    return score_choices(metric, items, same, classes=classes)
