"""Who answers: this process, or Ray actors that load the model once each. Batches are handed out whole."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from glm_model.checks import NotFiniteError
from glm_model.tokenizer import Tokenizer
from infra.errors import DivergedError, InfrastructureError, UserError
from workflows.answering.answers import answer
from workflows.evaluation.models import Model

Batch = Any
Answered = tuple[int, Any, float]
"""(number of a batch, its answers, seconds)."""
AnswerBatch = Callable[[Any, Tokenizer, Batch], Any]
"""(model, its tokenizer, a batch) -> the answers to it."""

_QUEUED = 2  # batches that an actor has at a time, so that it never waits for the next one


class Worker:
    """A model that was loaded, and answers batches. tokenizer: None: it is loaded too."""

    def __init__(
        self, model: Model, tokenizer: Tokenizer | None, *, use_gpu: bool = False, answering: AnswerBatch = answer
    ) -> None:
        self._name, self._answering = model.name, answering
        self.model, self.tokenizer = model.load(), tokenizer or model.load_tokenizer()
        if use_gpu:
            self.model.to(_gpu())
        self._told_s = 0.0

    def answer(self, number: int, batch: Batch) -> Answered:
        """Raises DivergedError when the model's weights are not finite."""
        began = time.perf_counter()
        try:
            found = self._answering(self.model, self.tokenizer, batch)
        except NotFiniteError as error:
            raise DivergedError(f"{self._name} answers nothing", why=str(error)) from error
        return number, found, time.perf_counter() - began

    def answer_timed(self, number: int, batch: Batch) -> tuple[Answered, float]:
        """The answers, and the CPU seconds that this process has taken since the last call, or since it began."""
        answered, now = self.answer(number, batch), time.process_time()
        spent, self._told_s = now - self._told_s, now
        return answered, spent


class Workers:
    """The workers of one model: made when there is something to answer, closed with `close`.

    answering: what is done with a batch; by default batches are of questions. It is sent to each worker once.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        num_workers: int,
        *,
        use_gpu: bool = False,
        answering: AnswerBatch = answer,
    ) -> None:
        self._model, self.tokenizer, self._use_gpu, self._answering = model, tokenizer, use_gpu, answering
        self._num_workers = num_workers
        self._here: Worker | None = None
        self._actors: list[Any] = []
        self.cpu_s = 0.0
        """CPU seconds of the actors."""

    def answers(self, batches: Iterable[tuple[int, Batch]]) -> Iterator[Answered]:
        """The answers to numbered batches, as they come. A batch is taken when a worker is free for it."""
        if self._num_workers > 1:
            yield from self._by_actors(iter(batches))
            return
        for number, batch in batches:
            if self._here is None:
                self._here = Worker(self._model, self.tokenizer, use_gpu=self._use_gpu, answering=self._answering)
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
            how = {"use_gpu": self._use_gpu, "answering": self._answering}
            # Each loads its own tokenizer: Ray would hold one of over 100 kB outside, warn of that, and could not start
            # the actor again once it is lost.
            start = partial(kind.remote, self._model, None, **how)
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
                running[actor.answer_timed.remote(*following)] = actor
                following = next(batches, None)
            (done,), _ = ray.wait(list(running), num_returns=1)
            free.append(running.pop(done))
            try:
                answered, cpu_s = ray.get(done)
            except RayActorError as error:
                raise InfrastructureError(
                    "a worker died again and again",
                    why=str(error).splitlines()[0],
                    try_="run the same command: it continues; with fewer --num_workers if memory is short",
                ) from error
            self.cpu_s += cpu_s
            yield answered


def _gpu() -> str:
    """Raises UserError where this machine has none."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "--use_gpu: this machine has no GPU that torch can use",
            why=f"torch {torch.__version__} finds no CUDA device",
            try_="leave it out, or install a build of torch for CUDA",
        )
    return "cuda"
