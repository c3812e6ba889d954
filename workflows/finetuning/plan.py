"""`--plan` of a fine-tuning: what it would do and cost, before anyone pays for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from glm_model.config import GLMConfig, flops_per_token, num_parameters
from infra import checkpoint
from infra.console import Console, counted, human
from infra.tracking import NOT_TRACKED
from pipelines.feed.questions import segment_sizes
from pipelines.questions.question import Question
from workflows.finetuning.run import job_of
from workflows.finetuning.setup import FinetuneSetup, describe_finetune
from workflows.runs.pace import disk_text, memory_text, pace_of, time_text
from workflows.runs.run import Run
from workflows.runs.shared_places import check_shared_finetuning
from workflows.runs.workers import check_memory, check_room, ray_for_workers
from workflows.settings.budget import MANY_STEPS
from workflows.training.messages import Pace


def plan_finetuning(setup: FinetuneSetup, run: Run, screen: Console) -> None:
    """Print what the run would do and cost, how far it has come, and refuse what this machine, or the Ray that is
    named, could not hold. Starts no Ray.
    """
    _show(setup, run, screen, None)
    if run.record.finished:
        screen.line(f"the run {run.name} is finished")
    elif not setup.recipe.run.fresh and (last := checkpoint.latest(run.checkpoints_url)):
        screen.line(f"the run {run.name} has come to step {last.step:,}, and goes on from there")
    check_room(setup.recipe, setup.shape, screen)


def calibrate_finetuning(setup: FinetuneSetup, run: Run, screen: Console) -> None:
    """Print the plan with times that are measured, by a few steps on the workers."""
    with ray_for_workers(setup.recipe, screen, check_shared=partial(check_shared_finetuning, setup.recipe)):
        check_memory(setup.recipe, setup.shape)
        job = job_of(replace(setup, steps=MANY_STEPS), run, NOT_TRACKED, link=None)
        pace = pace_of(job, setup.recipe, run.url, screen)
    _show(setup, run, screen, pace)


def useful_work(questions: Sequence[Question], shape: GLMConfig, *, has_head: bool) -> tuple[int, float]:
    """(positions, floating-point operations) of forward and backward over these questions, once. A classification head
    costs next to nothing, and no output layer.
    """
    sizes = np.array([*itertools.chain.from_iterable(map(segment_sizes, questions))], np.float64)
    predicted = sum(1 if one.is_single else sum(len(tokens) + 1 for tokens in one.candidates) for one in questions)
    positions = int(sizes.sum())
    share = 0.0 if has_head else predicted / positions
    length = float((sizes**2).sum() / positions)
    return positions, positions * flops_per_token(shape, segment_length=length, density=1.0, blank_share=share)


def _show(setup: FinetuneSetup, run: Run, screen: Console, pace: Pace | None) -> None:
    recipe, plan, parameters = setup.recipe, setup.plan, num_parameters(setup.shape)
    positions, flops = useful_work(setup.selection.train, setup.shape, has_head=recipe.task.head)
    epochs = setup.steps * plan.step_questions / plan.questions
    train = recipe.train.training(setup.steps_of_epoch)
    every = train.eval_every if setup.selection.split else 0
    batch = f"{counted(plan.step_questions, 'item')} in micro-batches of {plan.micro_questions}"
    rows = [
        *describe_finetune(setup),
        ("batch", f"{batch} = {positions * plan.step_questions / plan.questions:,.0f} positions"),
        ("compute", f"{flops * epochs:.2e} FLOP over {human(positions * epochs)} positions"),
        ("time", time_text(recipe, setup.steps, flops * epochs, pace, every=every)),
        ("memory", memory_text(parameters, pace)),
        ("disk", disk_text(parameters, recipe.train.keep_checkpoints, recipe.run.storage_path)),
    ]
    screen.header(f"plan · {run.name}", rows)
