"""Models that differ in the seed of their training alone: the mean and the spread of their scores."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.metrics.intervals import interval_of_mean
from pipelines.metrics.items import judged
from pipelines.metrics.known import shown, shown_interval
from pipelines.metrics.scores import group_sums
from pipelines.metrics.seeds import spread
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import Model
from workflows.evaluation.results import Result

_Scored = tuple[Evaluated, Sequence[Result]]


@dataclass(frozen=True)
class SeedResult:
    """A metric of several seeds on a task."""

    models: str
    """What their names have in common, such as sst2-seed*."""
    task: str
    split: str
    pattern: int
    is_default: bool
    metric: str
    mean: float
    sd: float
    """Sample standard deviation over seeds."""
    seeds: tuple[int, ...]
    low: float | None
    """The 95 % interval of the mean over items, for these seeds."""
    high: float | None
    n: int
    """Items."""
    selected_by: str
    """What chose the weights."""
    group: str
    """Digest of all settings of these trainings but the seed."""
    step: int | None
    """That of their checkpoints, where those are evaluated."""


def seed_results(scored: Sequence[_Scored]) -> list[SeedResult]:
    """The scores over seeds, of each group of models that has at least two seeds. A seed that was evaluated twice
    counts once. scored: evaluations with their scores.
    """
    found: list[SeedResult] = []
    for several in _groups(scored):
        evaluated = [one for one, _ in several]
        by_metric = zip(*(results for _, results in several), strict=True)
        found += [seed_result(evaluated, results) for results in by_metric]
    return found


def shared_name(models: Iterable[Model]) -> str:
    """What the names of models have in common, and a star for the rest: a-1 and a-2 are a-*."""
    names = sorted({model.run or model.name for model in models})
    equal = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    prefix = "".join(first for first, *_ in equal)
    return f"{prefix}*" if prefix else f"{names[0]} and {len(names) - 1} more"


def seed_rows(results: Iterable[SeedResult]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) for a screen or a page."""
    columns = ["models", "task", "pattern", "metric", "mean", "sd over seeds", "seeds", "95 % interval over items", "n"]
    rows = [
        [
            one.models if one.step is None else f"{one.models}@step={one.step}",
            f"{one.task} {one.split}",
            f"p{one.pattern}{'' if one.is_default else ', not default'}",
            one.metric,
            shown(one.metric, one.mean),
            shown(one.metric, one.sd),
            len(one.seeds),
            shown_interval(one.metric, one.low, one.high),
            one.n,
            one.selected_by or "-",
        ]
        for one in results
    ]
    return [*columns, "selected by"], rows


def _groups(scored: Iterable[_Scored]) -> list[list[_Scored]]:
    """Evaluations that differ in the seed alone, by ascending seeds."""
    found: dict[tuple[object, ...], dict[int, _Scored]] = {}
    for one, results in scored:
        model = one.model
        if model.group and model.seed is not None:
            key = (model.group, model.step, one.asked.task.name, one.pattern)
            found.setdefault(key, {}).setdefault(model.seed, (one, results))
    return [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values() if len(by_seed) > 1]


def seed_result(several: Sequence[Evaluated], results: Sequence[Result]) -> SeedResult:
    """The scores of at least two seeds. results: those of one metric, in the order of the evaluations."""
    first, task = results[0], several[0].asked.task
    over_seeds = spread([one.value for one in results])
    sums = [group_sums(first.metric, judged(one.items), classes=len(task.labels)) for one in several]
    over_items = interval_of_mean(first.metric, np.stack(sums))
    return SeedResult(
        models=shared_name(one.model for one in several),
        task=first.task,
        split=first.split,
        pattern=first.pattern,
        is_default=first.is_default,
        metric=first.metric,
        mean=over_seeds.mean,
        sd=over_seeds.sd,
        seeds=tuple(one.model.seed for one in several if one.model.seed is not None),
        low=over_items.low if over_items else None,
        high=over_items.high if over_items else None,
        n=first.n,
        selected_by=" or ".join(dict.fromkeys(one.selected_by for one in results if one.selected_by)),
        group=several[0].model.group,
        step=first.step,
    )
