"""A recipe is resolved once: what follows from it, what a run has fixed already, and lengths that are not known yet."""

import pytest

from glm_model.config import GLMConfig, OptimConfig
from infra.config import Count
from infra.console import Console
from infra.errors import UserError
from workflows.runs.setup import resolve_setup
from workflows.settings.budget import MANY_STEPS
from workflows.settings.recipe import Recipe, TrainConfig


def recipe(**train) -> Recipe:
    return Recipe(train=TrainConfig(batch_tokens=Count(500), **train))


def test_what_a_recipe_says_is_resolved_on_its_store(tiny_store, tiny_tokenizer):
    made, screen = recipe(steps=7), Console()
    setup = resolve_setup(made, tiny_store, screen)
    assert (setup.recipe, setup.store, setup.screen) == (made, tiny_store, screen)
    assert setup.tokenizer.digest == tiny_tokenizer.digest
    assert setup.feed.mixture.names == ("token", "sentence", "document")
    assert (setup.feed.seed, setup.feed.width) == (made.blanks.seed, tiny_store.manifest.row_width)
    assert (setup.shape.layers, setup.shape.positions, setup.budget.steps) == (2, 32, 7)


def test_a_run_that_has_begun_keeps_its_shape_and_its_steps(tiny_store):
    shape = GLMConfig(layers=1, width=8, heads=1, vocab_size=128, positions=32)
    setup = resolve_setup(recipe(hours=1.0), tiny_store, Console(), shape=shape, steps=11)
    assert (setup.shape, setup.budget.steps) == (shape, 11)


def test_hours_have_no_steps_before_they_are_timed(tiny_store):
    setup = resolve_setup(recipe(hours=1.0), tiny_store, Console())
    assert setup.budget.steps == MANY_STEPS
    timed = setup.with_steps(12)
    assert (timed.budget.steps, timed.budget.step_rows) == (12, setup.budget.step_rows)
    assert timed.budget.epochs == 12 / setup.budget.epoch_steps


def test_a_length_that_is_all_warm_up_is_refused(tiny_store):
    made = recipe(steps=7)
    made.optim = OptimConfig(warmup_steps=6)
    setup = resolve_setup(made, tiny_store, Console())
    with pytest.raises(UserError, match=r"optim\.warmup_steps=6 leaves nothing of 6 steps"):
        setup.with_steps(6)
