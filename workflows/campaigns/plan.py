"""`--plan` of a campaign: its cells, what exists of them, and what the rest would take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from glm_model.config import num_parameters
from infra.cluster import capacity, connect
from infra.console import Console, counted, duration
from infra.tracking import NOT_TRACKED
from workflows.campaigns.planned import Planned
from workflows.finetuning.run import job_of
from workflows.runs.pace import memory_text, pace_of, rates
from workflows.runs.workers import check_room, workers_text
from workflows.settings.budget import BYTES_PER_PARAMETER, MANY_STEPS
from workflows.settings.campaign import CampaignRecipe
from workflows.training.messages import Pace

# The command of a cell, which loads torch, Ray and MLflow, was seen at 0.62 GB, a worker of `tiny` at 1.1 GB.
_DRIVER_BYTES, _WORKER_BYTES = 0.7e9, 1.1e9
_START_S = 20.0  # to load these and to start and end workers, seen on two cores, which others used as well


def describe_campaign(recipe: CampaignRecipe, cells: Sequence[Planned]) -> list[tuple[str, str]]:
    """What the campaign is made of and how far it has come, in rows for the screen."""
    settings = {name: dict.fromkeys(dict(one.cell.chosen)[name] for one in cells) for name, _ in cells[0].cell.chosen}
    tasks, seeds = dict.fromkeys(one.cell.task for one in cells), dict.fromkeys(one.cell.seed for one in cells)
    parts = [f"tasks {', '.join(tasks)}", *(f"{name} {', '.join(values)}" for name, values in settings.items())]
    of = f"{counted(len(cells), 'cell')}: {'; '.join(parts)}; seeds {', '.join(map(str, seeds))}"
    chosen = dict.fromkeys(one.setup.selection.told for one in cells)
    asked = f" of {recipe.campaign.eval_data}" if recipe.campaign.eval_data else ""
    return [
        ("cells", of),
        ("begin with", begun_text(cells)),
        ("selected on", "; or ".join(chosen)),
        ("reported on", f"the split {recipe.campaign.split}{asked}"),
        ("exists", standing_text(cells)),
    ]


def begun_text(cells: Sequence[Planned]) -> str:
    """What the weights of the cells were before."""
    return "; or ".join(dict.fromkeys(one.setup.started_from for one in cells))


def standing_text(cells: Sequence[Planned]) -> str:
    """How many are finished, begun and to do."""
    finished = sum(one.is_finished for one in cells)
    begun = sum(not one.is_finished and one.step > 0 for one in cells)
    return f"{finished} finished, {begun} begun, {len(cells) - finished - begun} to do"


def state_of(planned: Planned) -> str:
    """How the run of a cell stands, in words."""
    if planned.is_finished:
        return "finished"
    return f"at step {planned.step:,} of {planned.setup.steps:,}" if planned.step else "to do"


def seconds_of(recipe: CampaignRecipe, planned: Planned, share: float = 1.0) -> float:
    """What a cell takes from its start to this share of its steps, at assumed rates: how much of a campaign it is."""
    (_, rate), *_ = rates(recipe)
    return _START_S + share * planned.flops / (rate * recipe.train.max_workers)


def plan_campaign(recipe: CampaignRecipe, name: str, cells: Sequence[Planned], screen: Console) -> None:
    """Print the cells, and what those that are not finished would take; refuse what this machine, or the Ray that is
    named, could not hold. Starts no Ray.
    """
    check_room(cells[0].setup.recipe, cells[0].setup.shape, screen)
    _show(recipe, name, cells, None, at_once=at_once(recipe, cells), screen=screen)


def calibrate_campaign(recipe: CampaignRecipe, name: str, cells: Sequence[Planned], screen: Console) -> None:
    """Print the plan with times that are measured: a few steps of one cell of each task. Needs a connected Ray."""
    paces: dict[str, Pace] = {}
    for planned in cells:
        task = planned.cell.task
        if task not in paces and not planned.is_finished:
            screen.line(f"timing a few steps of {planned.name}")
            job = job_of(replace(planned.setup, steps=MANY_STEPS), planned.run, NOT_TRACKED, link=None)
            paces[task] = pace_of(job, planned.setup.recipe, planned.run.url, screen)
    _show(recipe, name, cells, paces, at_once=at_once(recipe, cells), screen=screen)


def at_once(recipe: CampaignRecipe, cells: Sequence[Planned]) -> int:
    """How many cells run side by side: what the connected Ray, or else one on this machine, has room for."""
    import ray

    train, workers = recipe.train, recipe.train.max_workers
    cpus = recipe.cluster.local_cpus or max(workers + 1, os.cpu_count() or 1)  # as `ray_for_workers` has them started
    if ray.is_initialized():
        room = capacity.room_for_workers(train.resources_per_worker, train.use_gpu)
    else:
        room = capacity.room_here(train.resources_per_worker, train.use_gpu, cpus=cpus)
    unfinished = sum(not one.is_finished for one in cells)
    most = recipe.campaign.at_once or unfinished
    return max(1, min(room // workers, most, _room_in_memory(recipe, cells), unfinished or 1))


def _room_in_memory(recipe: CampaignRecipe, cells: Sequence[Planned]) -> int:
    """Cells whose drivers, and workers where these run here too, this machine has memory for."""
    import psutil

    is_here = not connect.inside_job() and os.environ.get("RAY_ADDRESS", "local") in ("", "local")
    own = _WORKER_BYTES + BYTES_PER_PARAMETER * max(num_parameters(one.setup.shape) for one in cells)
    each = _DRIVER_BYTES + (recipe.train.max_workers * own if is_here and not recipe.train.use_gpu else 0)
    return int(psutil.virtual_memory().available // each)


def _show(
    recipe: CampaignRecipe,
    name: str,
    cells: Sequence[Planned],
    paces: dict[str, Pace] | None,
    *,
    at_once: int,
    screen: Console,
) -> None:
    settings = [key for key, _ in cells[0].cell.chosen]
    rows = [
        [
            one.name,
            one.cell.task,
            *(value for _, value in one.cell.chosen),
            one.cell.seed,
            len(one.setup.selection.train),
            one.setup.steps,
            state_of(one),
        ]
        for one in cells
    ]
    screen.header(f"plan · campaign {name}", describe_campaign(recipe, cells))
    screen.table("cells", ["run", "task", *settings, "seed", "items", "steps", "is"], rows)
    parameters = max(num_parameters(one.setup.shape) for one in cells)
    told = [
        ("time", _time_text(recipe, cells, paces, at_once=at_once)),
        ("side by side", f"{counted(at_once, 'cell')} with {workers_text(recipe)} each"),
        ("memory", f"{memory_text(parameters, None)}; 0.7 GB for each cell's command"),
    ]
    screen.header("what is left to do", told)


def _time_text(recipe: CampaignRecipe, cells: Sequence[Planned], paces: dict[str, Pace] | None, *, at_once: int) -> str:
    """How long the unfinished cells take. paces: of each task, where they were measured."""
    todo = [one for one in cells if not one.is_finished]
    if not todo:
        return "none: all cells are finished"
    starts = f"besides, some {duration(_START_S * len(todo) / at_once)} for the processes of the cells to start and end"
    if paces is not None:
        seconds = sum(_left(one) * one.setup.steps * paces[one.cell.task].step_s for one in todo)
        each = ", ".join(f"{task} {pace.step_s:.3g} s" for task, pace in paces.items())
        return f"{duration(seconds / at_once)} for the steps ({each} a step, measured here); {starts}"
    flops = sum(_left(one) * one.flops for one in todo)
    workers = at_once * recipe.train.max_workers
    told = (f"{duration(flops / rate / workers)} ({what})" for what, rate in rates(recipe))
    return f"{', '.join(told)}; assumed rates, --calibrate measures; {starts}"


def _left(planned: Planned) -> float:
    """The share of its steps that a cell has to do yet."""
    return 1.0 - min(planned.step / planned.setup.steps, 1.0)
