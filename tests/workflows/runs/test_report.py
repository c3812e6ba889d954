"""What a run says of itself at its start."""

from dataclasses import replace

import pytest
from helpers import small

from infra import tracking
from infra.config import Count
from infra.console import Console
from workflows.runs.report import show_header
from workflows.runs.run import Run
from workflows.runs.setup import resolve_setup
from workflows.settings.budget import Budget
from workflows.settings.cautions import cautions
from workflows.settings.recipe import Recipe, TrainConfig


@pytest.mark.parametrize(("steps", "length", "warned"), [(1, "= 1 step of", True), (20, "= 20 steps of", False)])
def test_a_run_of_few_steps_is_warned_of(tmp_path, tiny_store, capsys, steps, length, warned):
    recipe = Recipe(train=TrainConfig(steps=steps, batch_tokens=Count(500)))
    recipe.run.storage_path = str(tmp_path)
    setup = resolve_setup(recipe, tiny_store, Console())
    show_header(setup, Run.of(recipe, "r"), tracking.NOT_TRACKED)
    told = " ".join("".join(capsys.readouterr()).split())
    assert length in told
    assert ("the model next to nothing: give a larger --train.tokens" in told) == warned


def budget_of(recipe: Recipe, store) -> Budget:
    return resolve_setup(recipe, store, Console()).budget


def test_a_run_that_reads_its_text_many_times_is_warned_of(tiny_store):
    few = budget_of(Recipe(train=TrainConfig(steps=30, batch_tokens=Count(500))), tiny_store)
    many = replace(few, steps=round(2040 * few.epoch_steps))
    assert not [text for text in cautions(few, None) if "times" in text]
    (told,) = (text for text in cautions(many, None) if "times" in text)
    assert told.startswith("the run reads its text 2,040 times, and learns little new after about 40")


def test_a_checkpoint_that_would_be_kept_behind_the_end_is_warned_of(tiny_store):
    budget = budget_of(Recipe(train=TrainConfig(steps=30, batch_tokens=Count(500))), tiny_store)
    step = int(budget.step_tokens)
    assert [budget.first_step(tokens) for tokens in (1, step, step + 1, int(budget.tokens))] == [1, 1, 2, 30]
    assert not [text for text in cautions(budget, None, keep_at_tokens=[1, int(budget.tokens)]) if "kept" in text]
    (told,) = (text for text in cautions(budget, None, keep_at_tokens=[1, 10**9]) if "kept" in text)
    assert told.startswith("the run ends at ")
    assert "before 1B of --train.keep_at_tokens" in told


def test_much_held_out_text_and_poor_rows_are_warned_of(tmp_path, tiny_store, tiny_tokenizer):
    budget = budget_of(Recipe(train=TrainConfig(steps=30, batch_tokens=Count(500))), tiny_store)
    told = cautions(budget, tiny_store)
    held_out, every = tiny_store.validation.tokens, sum(split.tokens for split in tiny_store.splits)
    assert [text for text in told if f"{held_out / every:.0%}: a smaller --data.validation_tokens" in text]
    assert not [text for text in told if "full" in text]
    wide = small.store(tmp_path, tiny_tokenizer, row_width=8192)
    (poor,) = (text for text in cautions(budget, wide) if "full" in text)
    assert poor.startswith(f"rows are {wide.train.expected_fill:.0%} full")
    assert poor.endswith("--data.row_width=128 may suit this text better than 8192")
