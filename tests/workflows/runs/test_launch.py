"""How long the driver waits for workers: at the start and after failures, never for ever, and not past a stop."""

import pytest

from infra.errors import InfrastructureError, Interrupted
from workflows.runs.launch import Room, room_for
from workflows.settings.recipe import Recipe


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, said: list[str]) -> Room:
    return Room("1 to 4", wait_s=600, say=said.append, fewer="--train.num_workers=1", clock=clock)


def test_workers_are_waited_for_from_the_start_and_after_a_failure_and_told_once():
    clock, said = Clock(), []
    room = made(clock, said)
    for now, told in ((189.0, 0), (191.0, 1), (699.0, 1)):
        clock.now = now
        room.check(is_stopped=False)
        assert len(said) == told
    assert said == ["no worker has begun for 91 s: perhaps others use the cluster; waiting up to 600 s"]
    room.see([{"step": 1}, {"placed": True}, {"placed": True}])
    clock.now = 1000.0
    room.check(is_stopped=False)
    room.check(is_stopped=True)  # they hear it themselves
    room.see([{"failed": "worker 1 failed"}, {"failed": "worker 0 failed"}])
    clock.now = 1599.0
    room.check(is_stopped=False)
    assert len(said) == 2
    clock.now = 1601.0
    with pytest.raises(InfrastructureError, match="workers failed, and for 600 s there has been no room for 1 to 4 of"):
        room.check(is_stopped=False)


def test_a_first_group_that_finds_no_room_is_given_up():
    clock = Clock()
    room = made(clock, [])
    clock.now += 600.5
    with pytest.raises(InfrastructureError, match=r"^for 600 s there has been no room for 1 to 4 of them") as given_up:
        room.check(is_stopped=False)
    assert "--train.num_workers=1 goes on with fewer" in str(given_up.value)


def test_a_stop_ends_the_wait():
    room = made(Clock(), [])
    with pytest.raises(Interrupted, match="stopped before workers began"):
        room.check(is_stopped=True)
    room.see([{"placed": True}, {"failed": "worker 1 failed"}])
    with pytest.raises(Interrupted, match="stopped between a failure and the next beginning"):
        room.check(is_stopped=True)


def test_the_room_of_a_recipe_is_that_of_its_workers():
    recipe = Recipe()
    recipe.train.num_workers, recipe.cluster.wait_s = (1, 4), -1.0
    with pytest.raises(InfrastructureError, match="no room for 1 to 4 of them") as given_up:
        room_for(recipe, print).check(is_stopped=False)
    assert "--train.num_workers='[1, 4]'" in str(given_up.value)
