"""A second kind of training is one file: a classifier of points, on two workers, killed and resumed to the bit."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from infra import checkpoint
from infra.cluster.link import Link
from infra.cluster.train_workers import run_workers
from infra.tracking.metric_log import read_points
from workflows.training.engine import Training
from workflows.training.loop import Job, OptimConfig, TrainConfig, train_worker

POINTS = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
LABELS = (POINTS[:, 0] > 0).long()


class Classifier(nn.Sequential):
    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = nn.functional.cross_entropy(super().forward(POINTS[rows]), LABELS[rows], reduction="sum")
        return loss[None], torch.tensor([len(rows)])


@dataclass(frozen=True)
class Classifying:
    kill_at: int | None
    marker: str

    def begin(self, place):
        torch.manual_seed(1)
        model = Classifier(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))
        steps, validate = partial(self.steps, place.ranks), partial(self.validate, model)
        return Training(model, model, ("class",), (1.0,), steps, lambda micro: micro.rows, validate)

    def steps(self, ranks, start, stop):
        for step in range(start, stop):  # of four micro-batches of eight rows; the last 64 rows are held out
            if step == self.kill_at and ranks.rank == 1 and not os.path.exists(self.marker):
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            rows = {i: (torch.arange(8) + 8 * (4 * step + i)) % 192 for i in range(ranks.rank, 4, ranks.world)}
            micro = [(i, SimpleNamespace(rows=r, tokens=8, fingerprint=int(r.sum()))) for i, r in rows.items()]
            yield SimpleNamespace(step=step, micro_batches=micro, counts=np.array([8 * len(micro)]), waited_s=0.0)

    def validate(self, model):
        with torch.no_grad():
            model.eval()
            loss = model(torch.arange(192, 256))[0].item() / 64
            model.train()
        return {"val/loss": loss}


def trained(folder: Path, kill_at: int | None = None):
    """Weights after 12 steps, and all points but for times."""
    train = TrainConfig(num_workers=2, log_every=1, eval_every=4, checkpoint_every=2)
    kind, link = Classifying(kill_at, f"{folder}.killed"), Link.create(folder.name)
    ray, stop = f"{folder}/ray", link.request_stop
    job = Job(kind, 12, f"{folder}/checkpoints", str(folder), train=train, optim=OptimConfig(lr=0.05), link=folder.name)
    run_workers(train_worker, job, train, name="a", storage_path=ray, poll=link.poll, stop=stop)
    assert os.path.exists(kind.marker) == (kill_at is not None)
    logged = [(p.step, *one) for p in read_points(f"{folder}/metrics.jsonl") for one in p.values.items()]
    points = [point for point in logged if "perf" not in point[1]]
    return checkpoint.load(checkpoint.latest(job.checkpoints_url).url).model, points


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_classifier_that_was_killed_ends_with_the_same_bits(local_ray, tmp_path):
    (weights, points), (again, points_again) = trained(tmp_path / "one"), trained(tmp_path / "two", kill_at=7)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert points == points_again
    losses = [value for _, key, value in points if key == "val/loss"]
    assert losses[3] < losses[0] / 2, "it learns"
