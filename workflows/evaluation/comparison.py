"""Can two models, or two groups of seeds, be told apart? From the answers that an evaluation kept, without the models.

Answers are found in the folder of evaluations by the models' names: a pattern, such as 'sst2-seed*', names the seeds of
one side. Both sides must have answered the same items of the same version of a task, asked by the same pattern.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.metrics.comparison import difference, holm, mcnemar
from pipelines.metrics.known import METRICS, shown, shown_interval
from pipelines.metrics.metric import Answers, recorded
from pipelines.metrics.scores import counted, group_sums
from workflows.evaluation.kept import Cell, find_cells, pairs_of

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a metric of a task says of two sides."""

    task: str
    split: str
    pattern: int
    metric: str
    first: float
    """The mean, where there are several seeds."""
    second: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    """Which one p is of."""
    n: int
    seeds: tuple[int, int]
    """How many models of each side."""
    corrected: float = 1.0
    """p after Holm's correction for all that is compared."""
    told: str = ""
    """The verdict in words."""


def compare(given: Sequence[str], to: str, *, metrics: Sequence[str] = ()) -> list[Verdict]:
    """Compare two sides on every task, split and pattern that both answered. given: the two sides; to: the folder of
    evaluations; metrics: by default those of each task.

    Raises UserError for sides that cannot be compared, DataError where there is nothing of a side.
    """
    if len(given) != 2:
        raise UserError(
            f"--compare takes two models, got {len(given)}",
            why="it says whether the second is better than the first",
            try_="--compare <model> <model>; a pattern in quotes names several seeds: --compare 'a-seed*' 'b-seed*'",
        )
    first, second = (find_cells(one, to) for one in given)
    if 1 in (counts := [len(first), len(second)]) and max(counts) > 1:
        raise UserError(
            f"--compare {' '.join(given)}: {counts[0]} and {counts[1]} models",
            why="how a score varies with the seed is not known of a side that has one",
            try_="give several seeds of both, or one model of each",
        )
    found = [one for pair in pairs_of(first, second, given) for one in _compare(*pair, metrics)]
    corrected = holm([one.p for one in found])
    return [replace(one, corrected=p, told=_told(one, p, given)) for one, p in zip(found, corrected, strict=True)]


def verdict_rows(verdicts: Iterable[Verdict], given: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) for a screen."""
    columns = ["task", "pattern", "metric", *given, "difference", "95 % interval", "p", "of", "p by Holm", "n"]
    rows = [
        [
            f"{one.task} {one.split}",
            one.pattern,
            one.metric,
            shown(one.metric, one.first),
            shown(one.metric, one.second),
            f"{'+' if one.difference >= 0 else ''}{shown(one.metric, one.difference)}",
            shown_interval(one.metric, one.low, one.high),
            f"{one.p:.3g}",
            one.test,
            f"{one.corrected:.3g}",
            one.n,
        ]
        for one in verdicts
    ]
    return columns, rows


def as_json(verdicts: Iterable[Verdict], given: Sequence[str]) -> dict[str, Any]:
    """What comparison.json holds."""
    return {"first": given[0], "second": given[1], "verdicts": [asdict(one) for one in verdicts]}


def _compare(first: Sequence[Cell], second: Sequence[Cell], metrics: Sequence[str]) -> list[Verdict]:
    """What each metric says, before it is corrected for the others."""
    task, split, pattern = first[0].place
    items, classes = first[0].items, len(first[0].settings["labels"])
    found = []
    for name in metrics or getattr(tasks.find(task), "METRICS", ("accuracy",)):
        value = METRICS[name].value
        sums = [np.stack([group_sums(name, one.items, classes=classes) for one in side]) for side in (first, second)]
        one, two = (float(value(side.sum(1)).mean()) for side in sums)
        told = difference(value, sums[0], sums[1])
        if told is None:
            raise DataError(f"{task} {split} has one group of items", why="nothing can be said of other ones")
        p, test = told.p, "paired bootstrap" if len(first) == 1 else "bootstrap over seeds and items"
        if name == "accuracy" and len(first) == 1 and sums[0].shape[1] == len(items):  # each item by itself
            p, test = mcnemar(_is_right(first[0]), _is_right(second[0])), "exact McNemar"
        n, seeds = counted(name, sums[0][0], items), (len(first), len(second))
        found.append(Verdict(task, split, pattern, name, one, two, told.value, told.low, told.high, p, test, n, seeds))
    return found


def _told(one: Verdict, corrected: float, given: Sequence[str]) -> str:
    seeds = f" and {one.seeds[0]} and {one.seeds[1]} seeds" if max(one.seeds) > 1 else ""
    if corrected >= LEVEL:
        return f"cannot be told apart at n={one.n:,}{seeds}"
    return f"{given[one.difference > 0]} is higher by {shown(one.metric, abs(one.difference))} at n={one.n:,}{seeds}"


def _is_right(cell: Cell) -> np.ndarray:
    return Answers(cell.items, recorded(cell.items), 0).is_right
