"""What a campaign comes to: every finished cell is asked the reported split, and cells that differ in their seed alone
are told together.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infra import config, storage
from infra.console import Console
from pipelines.metrics.known import shown, shown_interval
from workflows.campaigns.planned import Planned
from workflows.evaluation.ask_models import ask_models, ray_if_needed
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import find_models
from workflows.evaluation.results import Result, results_of
from workflows.evaluation.seeds import seed_result
from workflows.settings.campaign import CampaignRecipe

_NONE = "-"


@dataclass(frozen=True)
class Scored:
    """A finished cell and its scores, whose task is called as the campaign calls it."""

    planned: Planned
    evaluated: Evaluated
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Mean:
    """A metric of the cells that differ in their seed alone."""

    task: str
    chosen: tuple[tuple[str, str], ...]
    """Name and value of each setting that differs from cell to cell."""
    metric: str
    mean: float
    sd: float | None
    """Sample standard deviation over seeds; None of one."""
    seeds: tuple[int, ...]
    low: float | None
    """The 95 % interval of the mean over items, for these seeds."""
    high: float | None
    n: int
    """Items."""
    majority: float | None
    bag_of_words: float | None
    selected_by: str
    """What chose the weights."""


def score_cells(finished: Sequence[Planned], recipe: CampaignRecipe, to: str, screen: Console) -> list[Scored]:
    """Ask the models of finished cells; answers that are there already are not asked again. to: folder of the answers.
    On several GPUs Ray actors answer; else this process does.
    """
    scored = []
    for options, several in _asked_alike(finished, recipe, to):
        models = find_models([planned.run.model_url for planned in several])
        with ray_if_needed(options.num_workers, options.cluster, screen, use_gpu=options.use_gpu):
            evaluated = ask_models(options, [options.task], models, screen)
        for planned, one in zip(several, evaluated, strict=True):
            results = tuple(_as_told(planned, result, recipe) for result in results_of(one))
            scored.append(Scored(planned, one, results))
    order = {planned.name: number for number, planned in enumerate(finished)}
    return sorted(scored, key=lambda one: order[one.planned.name])


def means(scored: Sequence[Scored]) -> list[Mean]:
    """A row for each task, setting and metric, in the order of the cells."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Scored]] = {}
    for one in scored:
        groups.setdefault((one.planned.cell.task, one.planned.cell.chosen), []).append(one)
    return [row for several in groups.values() for row in _means(several)]


def mean_rows(rows: Sequence[Mean]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) for a screen or a page."""
    settings = [name for name, _ in rows[0].chosen] if rows else []
    columns = ["task", *settings, "metric", "mean", "sd over seeds", "seeds", "95 % interval over items", "n"]
    cells = [
        [
            one.task,
            *(value for _, value in one.chosen),
            one.metric,
            shown(one.metric, one.mean),
            _NONE if one.sd is None else shown(one.metric, one.sd),
            len(one.seeds),
            shown_interval(one.metric, one.low, one.high),
            one.n,
            _NONE if one.majority is None else shown(one.metric, one.majority),
            _NONE if one.bag_of_words is None else shown(one.metric, one.bag_of_words),
            one.selected_by or _NONE,
        ]
        for one in rows
    ]
    return [*columns, "majority", "bag of words", "selected by"], cells


def cell_rows(
    cells: Sequence[Planned], states: dict[str, str], scored: Sequence[Scored], *, exact: bool = False
) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows): every cell with its state and its first metric. states: cell -> how it stands, in words; exact:
    the score in full precision, and None for what is not known.
    """
    by_name = {one.planned.name: one.results for one in scored}
    settings = [name for name, _ in cells[0].cell.chosen]
    rows = []
    for planned in cells:
        cell, results = planned.cell, by_name.get(planned.name, ())
        first = results[0] if results else None
        told: list[Any] = [None if exact else _NONE] * 3
        if first:
            told = [first.metric, first.value if exact else shown(first.metric, first.value), first.n]
        rows.append([cell.name, cell.task, *(value for _, value in cell.chosen), cell.seed, states[cell.name], *told])
    return ["cell", "task", *settings, "seed", "is", "metric", "score", "n"], rows


def mean_csv(rows: Sequence[Mean]) -> str:
    """The means in full precision; a column for each setting that differs."""
    settings = [name for name, _ in rows[0].chosen] if rows else []
    columns = ["task", *settings, "metric", "mean", "sd", "seeds", "low", "high", "n", "majority", "bag_of_words"]
    cells = (
        [
            one.task,
            *(value for _, value in one.chosen),
            one.metric,
            one.mean,
            one.sd,
            len(one.seeds),
            one.low,
            one.high,
            one.n,
            one.majority,
            one.bag_of_words,
            one.selected_by,
        ]
        for one in rows
    )
    return table_csv([*columns, "selected_by"], cells)


def table_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """What is None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _asked_alike(
    finished: Sequence[Planned], recipe: CampaignRecipe, to: str
) -> Iterator[tuple[EvaluateConfig, list[Planned]]]:
    """Cells whose models are asked the same items in the same way, with the settings of their evaluation."""
    groups: dict[str, list[Planned]] = {}
    for planned in finished:
        key = json.dumps([config.plain(planned.cell.recipe.task), planned.cell.eval_data])
        groups.setdefault(key, []).append(planned)
    for several in groups.values():
        cell = several[0].cell
        num_workers, use_gpu = answering_workers(*_gpus()) if recipe.train.use_gpu else (1, False)
        options = EvaluateConfig(
            task=cell.asked,
            split=recipe.campaign.split,
            without_context=False,
            to=storage.join(to, cell.task),
            num_workers=num_workers,
            use_gpu=use_gpu,
            cluster=recipe.cluster,
            console=recipe.console,
            tracking=recipe.tracking,
        )
        yield options, several


def answering_workers(gpus: int, here: int) -> tuple[int, bool]:
    """(num_workers, use_gpu) of the evaluation. gpus: of the Ray that it would run on; here: of this machine, whose CPU
    answers where the only GPU belongs to another one.
    """
    return (gpus, True) if gpus > 1 else (1, here > 0)


def _gpus() -> tuple[int, int]:
    """GPUs of the Ray that is connected, or of this machine where none is; and of this machine."""
    import ray
    import torch

    here = torch.cuda.device_count()
    return int(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else here, here


def _as_told(planned: Planned, result: Result, recipe: CampaignRecipe) -> Result:
    """The result as the campaign tells it. Selection by a split of other data is not selection by what is reported."""
    cell, told = planned.cell, planned.setup.selection
    by = f"{told.told} of the training data" if cell.eval_data and told.split == recipe.campaign.split else None
    bag_of_words = None if cell.eval_data else result.bag_of_words  # which the train split of that data would teach
    return replace(result, task=cell.task, selected_by=by or result.selected_by, bag_of_words=bag_of_words)


def _means(several: Sequence[Scored]) -> Iterator[Mean]:
    """A row for each metric of cells that differ in their seed alone."""
    cell = several[0].planned.cell
    for results in zip(*(one.results for one in several), strict=True):
        first = results[0]
        spread = seed_result([one.evaluated for one in several], results) if len(several) > 1 else None
        yield Mean(
            task=cell.task,
            chosen=cell.chosen,
            metric=first.metric,
            mean=spread.mean if spread else first.value,
            sd=spread.sd if spread else None,
            seeds=tuple(one.planned.cell.seed for one in several),
            low=spread.low if spread else first.low,
            high=spread.high if spread else first.high,
            n=first.n,
            majority=first.majority,
            bag_of_words=first.bag_of_words,
            selected_by=" or ".join(dict.fromkeys(one.selected_by for one in results if one.selected_by)),
        )
