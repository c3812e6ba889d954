"""Law 22 where a worker dies: its block is answered by the one that is started in its place."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import asked

from workflows.evaluation.models import find_models
from workflows.evaluation.workers import Workers


def dying(flag: str) -> Callable[[object, object, list[int]], list[int]]:
    """Answers a batch with itself; the first process that is given the number 5 is killed before it does."""

    def answering(model: object, tokenizer: object, batch: list[int]) -> list[int]:
        if 5 in batch:
            with contextlib.suppress(FileExistsError):
                Path(flag).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return batch

    return answering


@pytest.mark.ray
def test_a_killed_worker_is_replaced_and_every_batch_is_answered_once(tmp_path, tiny_tokenizer, local_ray):
    (model,) = find_models([asked.model_folder(tmp_path / "model", tiny_tokenizer)])
    answering = dying(str(tmp_path / "died"))
    with contextlib.closing(Workers(model, tiny_tokenizer, 2, answering=answering)) as workers:
        found = [(number, batch) for number, batch, _ in workers.answers((n, [n, n + 1]) for n in range(12))]
    assert sorted(found) == [(n, [n, n + 1]) for n in range(12)]
    assert Path(tmp_path, "died").exists()
    assert workers.cpu_s > 0
