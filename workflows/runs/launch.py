"""How long workers have been waited for, and when that is given up: Ray Train waits for ever, and says nothing."""

import time
from collections.abc import Callable
from typing import Any

from infra.errors import InfrastructureError, Interrupted
from workflows.runs.report import workers_text
from workflows.settings.recipe import Recipe

_TOLD_AFTER_S = 90.0  # on a busy machine processes take most of a minute to start


def room_for(recipe: Recipe, say: Callable[[str], None]) -> "Room":
    """Of a recipe's workers, waited for from now on."""
    train = recipe.train
    return Room(
        workers_text(recipe),
        wait_s=recipe.cluster.wait_s,
        say=say,
        fewer=f"--train.num_workers='[1, {train.max_workers}]'",
    )


class Room:
    """Whether a group of workers has its place: they post `placed` as they begin, and `failed` is posted when they end.

    workers: how many are asked for, in words; fewer: settings that ask for fewer. clock: seconds.
    """

    def __init__(
        self,
        workers: str,
        *,
        wait_s: float,
        say: Callable[[str], None],
        fewer: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._wait_s, self._say, self._fewer, self._clock = workers, wait_s, say, fewer, clock
        self._since: float | None = clock()
        self._failed = self._told = False

    def see(self, posts: list[dict[str, Any]]) -> None:
        for post in posts:
            if "placed" in post:
                self._since, self._told = None, False
            elif "failed" in post:
                self._since, self._failed = self._since or self._clock(), True

    def check(self, *, is_stopped: bool) -> None:
        """While a group is waited for nobody hears a stop: Interrupted. InfrastructureError after the longest wait."""
        if self._since is None:
            return
        if is_stopped:
            raise Interrupted(
                "stopped between a failure and the next beginning" if self._failed else "stopped before workers began",
                try_="the same command continues from the last checkpoint",
            )
        waited_s = self._clock() - self._since
        if waited_s > self._wait_s:
            raise InfrastructureError(
                f"{'workers failed, and ' if self._failed else ''}for {self._wait_s:g} s there has been no room for "
                f"{self._workers} of them",
                why="a machine is gone, or others use it",
                try_=f"with room for them the same command continues from the last checkpoint; {self._fewer} goes on "
                "with fewer",
            )
        if waited_s > _TOLD_AFTER_S and not self._told:
            self._told = True
            self._say(
                f"no worker has begun for {waited_s:.0f} s: perhaps others use the cluster; waiting up to "
                f"{self._wait_s:g} s"
            )
