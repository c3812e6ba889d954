"""Messages between the driver and the workers of one job: progress goes up, a request to stop goes down."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from infra.errors import UserError

_REFRESH_S = 0.5
_KEPT_POSTS = 1000


class Link:
    """One end of the exchange, in the driver or in a worker; between them stands one small actor."""

    def __init__(self, actor: Any):
        self._actor = actor
        self._answer: Any = None  # of the last question for a reason to stop, while it is on its way
        self._last_question = -math.inf
        self._reason: str | None = None

    @staticmethod
    def create(name: str) -> Link:
        """The actor lives as long as the driver that creates it, and on its node: other nodes may be taken away."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return Link(ray.remote(_Board).options(name=name, num_cpus=0, scheduling_strategy=here).remote())

    @staticmethod
    def attach(name: str) -> Link:
        """The worker's end of the link that the driver created under this name."""
        import ray

        return Link(ray.get_actor(name))

    def post(self, message: Any) -> None:
        """Leave a message for the driver, without waiting; the oldest of more than 1000 unread ones are dropped."""
        self._actor.post.remote(message)

    def fail(self, error: UserError) -> None:
        """Report why the job cannot go on, and wait until the report has arrived; the first report stands."""
        import ray
        import ray.exceptions

        with contextlib.suppress(ray.exceptions.RayActorError):
            ray.get(self._actor.fail.remote(error))

    def failure(self, timeout_s: float = 10.0) -> UserError | None:
        """What `fail` reported, or None; None too when the actor does not answer in time."""
        import ray
        import ray.exceptions

        try:
            return ray.get(self._actor.failure.remote(), timeout=timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            return None

    def poll(self, timeout_s: float = 10.0) -> list[Any]:
        """Messages since the last poll, in order; none when the actor does not answer in time."""
        import ray
        import ray.exceptions

        try:
            return ray.get(self._actor.drain.remote(), timeout=timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            return []

    def request_stop(self, reason: str) -> None:
        """Ask the workers to stop; the first reason stands."""
        self._actor.stop.remote(reason)

    def stop_reason(self) -> str | None:
        """Why to stop, or None. Cheap enough for every step: asks at most twice a second and never waits."""
        import ray
        import ray.exceptions

        if self._reason is not None:
            return self._reason
        if self._answer is None and time.monotonic() - self._last_question >= _REFRESH_S:
            self._answer, self._last_question = self._actor.reason.remote(), time.monotonic()
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            try:
                self._reason = ray.get(self._answer)
            except ray.exceptions.RayActorError:
                self._reason = None  # the driver is gone: Ray will end this worker
            self._answer = None
        return self._reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Link, (self._actor,)


class _Board:
    """The actor behind a Link."""

    def __init__(self) -> None:
        self.posts: list[Any] = []
        self.why: str | None = None
        self.error: UserError | None = None

    def post(self, message: Any) -> None:
        self.posts = [*self.posts[-_KEPT_POSTS + 1 :], message]

    def drain(self) -> list[Any]:
        posts, self.posts = self.posts, []
        return posts

    def stop(self, reason: str) -> None:
        self.why = self.why or reason

    def reason(self) -> str | None:
        return self.why

    def fail(self, error: UserError) -> None:
        self.error = self.error or error

    def failure(self) -> UserError | None:
        return self.error
