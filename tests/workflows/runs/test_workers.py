"""How long the driver waits for workers: at the start and after failures, never for ever, and not past a stop."""

import pytest

from infra.errors import InfrastructureError, Interrupted
from workflows.runs.workers import WorkerWait, workers_text
from workflows.settings.recipe import Recipe
from workflows.training.messages import Failed, Placed, Point


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait_for(clock: Clock, said: list[str]) -> WorkerWait:
    recipe = Recipe()
    recipe.train.num_workers = (1, 4)
    return WorkerWait(recipe, said.append, clock=clock)


def test_workers_are_waited_for_from_the_start_and_after_a_failure_and_told_once():
    clock, said = Clock(), []
    wait = wait_for(clock, said)
    for now, told in ((189.0, 0), (191.0, 1), (699.0, 1)):
        clock.now = now
        wait.check(is_stopped=False)
        assert len(said) == told
    assert said == ["no worker has begun for 91 s: perhaps others use the cluster; waiting up to 600 s"]
    wait.see([Point(1, {}), Placed(), Placed()])
    clock.now = 1000.0
    wait.check(is_stopped=False)
    wait.check(is_stopped=True)  # they hear it themselves
    wait.see([Failed("worker 1 failed"), Failed("worker 0 failed")])
    clock.now = 1599.0
    wait.check(is_stopped=False)
    assert len(said) == 2
    clock.now = 1601.0
    with pytest.raises(InfrastructureError, match=r"^no free .* waiting 600 s \(workers had failed before\)"):
        wait.check(is_stopped=False)


def test_a_first_group_that_finds_no_room_is_given_up():
    clock = Clock()
    wait = wait_for(clock, [])
    clock.now += 600.5
    with pytest.raises(
        InfrastructureError, match=r"^no free resources for 1 to 4 workers after waiting 600 s\n"
    ) as given_up:
        wait.check(is_stopped=False)
    assert "--train.num_workers='[1, 4]'" in str(given_up.value)


def test_a_stop_ends_the_wait():
    wait = wait_for(Clock(), [])
    with pytest.raises(Interrupted, match="stopped before workers began"):
        wait.check(is_stopped=True)
    wait.see([Placed(), Failed("worker 1 failed")])
    with pytest.raises(Interrupted, match="stopped between a failure and the next beginning"):
        wait.check(is_stopped=True)


def test_one_worker_is_not_workers():
    recipe = Recipe()
    told = []
    for count in (1, 2, (1, 1), (1, 4)):
        recipe.train.num_workers = count
        told.append(workers_text(recipe))
    assert told == ["1 worker", "2 workers", "1 worker", "1 to 4 workers"]
    assert workers_text(recipe, "GPU") == "1 to 4 GPU workers"
