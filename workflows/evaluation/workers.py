"""Who answers: this process, or Ray actors that load the model once each. Batches are handed out whole."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra.errors import InfrastructureError
from pipelines.questions.question import Question
from workflows.answering.answers import Answer, answer
from workflows.evaluation.models import Model

Batch = Sequence[Question]
Answered = tuple[int, list[Answer], float]
"""(number of a batch, the answers to its questions, seconds)."""

_QUEUED = 2  # batches that an actor has at a time, so that it never waits for the next one


class Worker:
    """A model that was loaded, and answers batches."""

    def __init__(self, model: Model, tokenizer: Tokenizer, *, use_gpu: bool = False) -> None:
        self.model, self.tokenizer = model.load(), tokenizer
        if use_gpu:
            self.model.to("cuda")

    def answer(self, number: int, batch: Batch) -> Answered:
        began = time.perf_counter()
        return number, answer(self.model, self.tokenizer, batch), time.perf_counter() - began


class Workers:
    """The workers of one model: made when there is something to answer, closed with `close`."""

    def __init__(self, model: Model, tokenizer: Tokenizer, num_workers: int, *, use_gpu: bool = False) -> None:
        self._model, self.tokenizer, self._use_gpu = model, tokenizer, use_gpu
        self._num_workers = num_workers
        self._here: Worker | None = None
        self._actors: list[Any] = []

    def answers(self, batches: Iterable[tuple[int, Batch]]) -> Iterator[Answered]:
        """The answers to numbered batches, as they come. A batch is taken when a worker is free for it."""
        if self._num_workers > 1:
            yield from self._by_actors(iter(batches))
            return
        for number, batch in batches:
            self._here = self._here or Worker(self._model, self.tokenizer, use_gpu=self._use_gpu)
            yield self._here.answer(number, batch)

    def close(self) -> None:
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)

    def _start(self) -> list[Any]:
        import ray

        if not self._actors:
            # An actor that dies with its node is started again, and is given its batches again.
            kind = ray.remote(num_cpus=1, num_gpus=int(self._use_gpu), max_restarts=3, max_task_retries=3)(Worker)
            start = partial(kind.remote, self._model, self.tokenizer, use_gpu=self._use_gpu)
            self._actors = [start() for _ in range(self._num_workers)]
        return self._actors

    def _by_actors(self, batches: Iterator[tuple[int, Batch]]) -> Iterator[Answered]:
        import ray
        from ray.exceptions import RayActorError

        free: deque[Any] = deque()
        running: dict[Any, Any] = {}
        following = next(batches, None)
        if following:
            free.extend(self._start() * _QUEUED)
        while following or running:
            while following and free:
                actor = free.popleft()
                running[actor.answer.remote(*following)] = actor
                following = next(batches, None)
            (done,), _ = ray.wait(list(running), num_returns=1)
            free.append(running.pop(done))
            try:
                yield ray.get(done)
            except RayActorError as error:
                raise InfrastructureError(
                    "a worker died again and again",
                    why=str(error).splitlines()[0],
                    try_="run the same command: it continues; with fewer --num_workers if memory is short",
                ) from error
