"""What a run says of itself at its start."""

import pytest

from infra import tracking
from infra.config import Count
from infra.console import Console
from workflows.runs.report import show_header
from workflows.runs.run import Run
from workflows.runs.setup import resolve_setup
from workflows.settings.recipe import Recipe, TrainConfig


@pytest.mark.parametrize(("steps", "length", "warned"), [(1, "= 1 step of", True), (20, "= 20 steps of", False)])
def test_a_run_of_few_steps_is_warned_of(tmp_path, tiny_store, capsys, steps, length, warned):
    recipe = Recipe(train=TrainConfig(steps=steps, batch_tokens=Count(500)))
    recipe.run.storage_path = str(tmp_path)
    setup = resolve_setup(recipe, tiny_store, Console())
    show_header(setup, Run.of(recipe, "r"), tracking.NOT_TRACKED)
    told = " ".join("".join(capsys.readouterr()).split())
    assert length in told
    assert ("teach the model next to nothing: give a larger --train.tokens" in told) == warned
