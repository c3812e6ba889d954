"""Watching a training: what is skipped, when it stops, what counts as a jump."""

import math

import pytest

from infra.errors import DivergedError
from workflows.training.health import GradientHealth, Patience


def look_at(step: int) -> str:
    return f"inspect --step {step}"


def test_steps_without_a_finite_gradient_are_skipped_and_counted():
    health = GradientHealth(2, look_at)
    norms = [1.0, math.nan, math.inf, 2.0, math.nan, 0.5]
    assert [health.skips(step, norm) for step, norm in enumerate(norms, start=1)] == [
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    assert health.skipped == 3


@pytest.mark.parametrize(("most", "place"), [(0, "at step 7"), (2, "at 3 steps in a row, 7 to 9")])
def test_one_more_than_may_be_skipped_stops_and_names_the_first_batch(most, place):
    health = GradientHealth(most, look_at)
    for step in range(7, 7 + most):
        assert health.skips(step, math.nan)
    with pytest.raises(DivergedError) as stopped:
        health.skips(7 + most, math.nan)
    assert stopped.value.message == f"the gradient is not finite {place}"
    assert "inspect --step 7" in str(stopped.value.try_)


def test_the_advice_names_the_rates_of_the_optimizer():
    with pytest.raises(DivergedError) as stopped:
        GradientHealth(0, look_at, "--optim.matrix_lr and --optim.lr").skips(3, math.inf)
    assert stopped.value.exit_code == 4
    assert str(stopped.value.try_).startswith("lower --optim.matrix_lr and --optim.lr (a new run), or raise")


def test_a_jump_is_told_with_the_command_that_shows_its_batch():
    health = GradientHealth(3, look_at)
    losses = [5 + 0.1 * math.sin(step) for step in range(15)]
    assert [health.jump(step, loss) for step, loss in enumerate(losses)] == [None] * 15
    told = health.jump(150, 9.0)
    assert told is not None
    assert told.startswith("the loss jumped to 9.000 at step 150")
    assert "inspect --step 150" in told


@pytest.mark.parametrize("losses", [[9.0], [5.0, 9.0], [5.0] * 20 + [5.2], [9 - 0.2 * i for i in range(20)]])
def test_no_jump(losses):
    health = GradientHealth(3, look_at)
    assert [health.jump(step, loss) for step, loss in enumerate(losses)] == [None] * len(losses)


def test_a_loss_that_is_not_finite_is_no_jump_and_spoils_nothing():
    health = GradientHealth(3, look_at)
    for step in range(12):
        health.jump(step, 5.0)
    assert health.jump(12, math.nan) is None
    assert health.jump(13, 6.0) is not None


def test_patience_ends_after_so_many_validations_that_are_no_better():
    patience = Patience(2)
    over = []
    for step, loss in enumerate([3.0, 2.0, 2.0, 1.0, 1.5, math.nan]):
        patience.see(step, loss)
        over.append(patience.is_over)
    assert over == [False, False, False, False, False, True]
    assert (patience.best, patience.best_step) == (1.0, 3)


def test_without_patience_a_run_never_ends_early():
    endless = Patience(None)
    for step in range(100):
        endless.see(step, 1.0)
    assert not endless.is_over
