"""What the driver makes of workers that fail, and of runs that are over before their last step."""

from pathlib import Path

import pytest

from infra import checkpoint
from infra.checkpoint import Checkpoints
from infra.console import Console, ConsoleConfig
from infra.errors import InfrastructureError, Interrupted
from workflows import pretrain
from workflows.budget import Budget
from workflows.progress import TrainingView
from workflows.recipe import Recipe

BUDGET = Budget(
    steps=10, micro_rows=1, micro_batches=1, row_tokens=10.0, epoch_steps=5.0, expansion=1.1, parameters=1,
    flops_per_token=1.0,
)  # fmt: skip


def reached(folder: Path, step: int, without: int) -> checkpoint.Found:
    patience = {"limit": None, "best": 1.0, "best_step": 0, "without": without}
    checkpoints = Checkpoints(str(folder))
    checkpoints.save(step, {}, {"state": {}, "param_groups": []}, {"patience": patience})
    checkpoints.wait()
    found = checkpoint.latest(str(folder))
    assert found is not None
    return found


def test_a_run_is_over_at_its_last_step_or_by_the_patience_that_it_has_now(tmp_path):
    recipe = Recipe()
    assert pretrain._is_over(reached(tmp_path / "a", 10, 0), BUDGET, recipe)
    found = reached(tmp_path / "b", 9, 7)
    for patience, is_over in ((None, False), (8, False), (7, True), (5, True)):
        recipe.train.patience = patience
        assert pretrain._is_over(found, BUDGET, recipe) == is_over


def test_after_a_failure_the_driver_waits_for_a_new_group_and_not_for_ever():
    screen, recipe = Console(ConsoleConfig(quiet=True)), Recipe()
    with screen.progress("train", 10) as live:
        view = TrainingView(screen, live)
        assert view.waiting_s == 0
        view.show([{"failed": "worker 1 failed"}])
        assert view.waiting_s > 0
        view.show([{"began_at": 5, "world_size": 1, "skipped": []}])
        assert view.waiting_s == 0
    pretrain._check_waiting(recipe, 0.0, is_stopped=True)
    pretrain._check_waiting(recipe, recipe.cluster.wait_s, is_stopped=False)
    with pytest.raises(Interrupted, match="between a failure and the next beginning"):
        pretrain._check_waiting(recipe, 1.0, is_stopped=True)
    with pytest.raises(InfrastructureError, match="for 600 s there has been no room for 1 of them"):
        pretrain._check_waiting(recipe, 601.0, is_stopped=False)
