"""Law 22 where a worker dies: its block is answered by the one that is started in its place; and what starts one."""

import contextlib
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import asked

from glm_model import GLM, GLMConfig, save_pretrained
from glm_model.tokenizer import Tokenizer
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


@pytest.mark.ray
def test_a_worker_is_started_with_little_whatever_the_size_of_its_vocabulary(tmp_path, local_ray, capfd):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"piece{n}" for n in range(20_000))]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = Tokenizer.load(str(tmp_path / "vocab.txt"))
    assert len(pickle.dumps(tokenizer)) > 100_000  # from there on Ray keeps arguments outside, and warns of that
    glm = GLM(GLMConfig(layers=1, width=8, heads=1, vocab_size=tokenizer.padded_vocab_size, positions=8))
    save_pretrained(glm, str(tmp_path / "model"), tokenizer)
    (model,) = find_models([str(tmp_path / "model")])

    def answering(model: object, tokenizer: Tokenizer, batch: list[int]) -> int:
        return tokenizer.vocab_size

    with contextlib.closing(Workers(model, tokenizer, 2, answering=answering)) as workers:
        assert [found for _, found, _ in workers.answers([(0, [])])] == [tokenizer.vocab_size]
    assert "constructor arguments" not in capfd.readouterr().err
