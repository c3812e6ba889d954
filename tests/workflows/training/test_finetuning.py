"""Fine-tuning keeps laws 6, 7 and 8 (law 19): on two workers it is killed and ends with the same bits, and the number
of workers and the size of micro-batches are invisible.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from glm_model import GLM, GLMConfig, save_pretrained
from infra import checkpoint
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.tracking.metric_log import read_points
from pipelines import tasks
from pipelines.feed.questions import QuestionPlan
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import ask_all
from pipelines.questions.rows import Row
from workflows.training.finetuning import Finetuning
from workflows.training.loop import Job, OptimConfig, TrainConfig, train_worker

SHAPE = GLMConfig(layers=2, width=32, heads=2, vocab_size=128, positions=64, dropout=0.1, attention_dropout=0.1)
STEPS = 90


@dataclass(frozen=True)
class Killed(Finetuning):
    """Worker 1 gets SIGKILL once, before a step."""

    kill_at: int | None = None
    marker: str = ""

    def _steps(self, marks, place, start, stop):
        for item in super()._steps(marks, place, start, stop):
            if item.step == self.kill_at and place.ranks.rank == 1 and not os.path.exists(self.marker):
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


@pytest.fixture(scope="module")
def kind(tiny_tokenizer, tmp_path_factory) -> Callable[..., Killed]:
    """Which of two words a text begins with: 96 items to learn it from, 16 to see it on. head: who says it, a
    classification head or the model's own words.
    """
    from helpers.small import WORDS  # the workers import this module, and do not see helpers

    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(3)
    save_pretrained(GLM(SHAPE), folder, tokenizer=tiny_tokenizer)
    rows = [Row("a.csv", n, {"text": f"{WORDS[n % 2]} {WORDS[2 + n % 5]}", "label": str(n % 2)}) for n in range(112)]
    plan = QuestionPlan(questions=96, step_questions=16, micro_questions=4, seed=7)

    def kind(*, head: bool) -> Killed:
        task = tasks.define(TaskConfig(words={"0": WORDS[8], "1": WORDS[9]}, head=head), lambda: rows)
        asked = tuple(ask_all(task, rows, tiny_tokenizer, positions=64))
        return Killed(SHAPE, folder, False, asked[:96], asked[96:], plan, "choice", ("mcc",), 2, has_head=head)

    return kind


def trained(folder: Path, kind: Killed, *, workers: int, kill_at: int | None = None):
    """Weights after the last step, and all points but for times."""
    kind = replace(kind, kill_at=kill_at, marker=f"{folder}.killed")
    train = TrainConfig(num_workers=workers, log_every=1, eval_every=10, checkpoint_every=10, precision="fp32")
    link = Link.create(folder.name)
    optim = OptimConfig(lr=0.01, schedule="constant", warmup_fraction=0.0)
    job = Job(kind, STEPS, f"{folder}/checkpoints", str(folder), train=train, optim=optim, link=folder.name)
    storage, stop = f"{folder}/ray", link.request_stop
    run_workers(train_worker, job, train, name="a", storage_path=storage, poll=link.poll, stop=stop)
    assert os.path.exists(kind.marker) == (kill_at is not None)
    logged = [(p.step, *one) for p in read_points(f"{folder}/metrics.jsonl") for one in p.values.items()]
    return checkpoint.load(checkpoint.latest(job.checkpoints_url).url).model, logged


def values(points, *names: str) -> list:
    return [(step, name, value) for step, name, value in points if name in names]


# The laws of pretraining and of a kind of training of its own (test_second_kind.py) are tested at every call.
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
@pytest.mark.parametrize("head", [False, True])
def test_a_fine_tuning_that_was_killed_ends_with_the_same_bits(local_ray, tmp_path, kind, head):
    name = "head" if head else "words"
    weights, points = trained(tmp_path / f"{name}-one", kind(head=head), workers=2)
    again, points_again = trained(tmp_path / f"{name}-two", kind(head=head), workers=2, kill_at=17)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    same = ("train/loss", "val/loss", "val/accuracy", "val/mcc", "data/fingerprint_high", "data/fingerprint_low")
    assert values(points, *same) == values(points_again, *same)
    accuracy = [value for _, _, value in values(points, "val/accuracy")]
    assert accuracy[-1] == 100.0, "it learns"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
@pytest.mark.parametrize("head", [False, True])
def test_the_number_of_workers_and_the_size_of_micro_batches_are_invisible(local_ray, tmp_path, kind, head):
    name = "head" if head else "words"
    still = replace(kind(head=head), model=replace(SHAPE, dropout=0.0, attention_dropout=0.0))
    _, one = trained(tmp_path / f"{name}-three", still, workers=1)
    larger = replace(still, plan=replace(still.plan, micro_questions=8))
    _, two = trained(tmp_path / f"{name}-four", larger, workers=2)
    prints = ("data/fingerprint_high", "data/fingerprint_low")
    assert values(one, *prints) == values(two, *prints)
    losses = [[value for step, _, value in values(points, "train/loss") if step <= 20] for points in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
