"""A train worker: its parts, what it restores and what it saves."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from infra import checkpoint
from infra.checkpoint import CheckpointWriter, Loaded
from infra.cluster.watchdog import Watchdog
from infra.errors import UserError
from workflows.training.engine import Engine, Place, Step, Taken
from workflows.training.health import Patience
from workflows.training.job import Job
from workflows.training.messages import Began
from workflows.training.ranks import Ranks
from workflows.training.telemetry import Telemetry


class Worker:
    """One worker of a training. Rank 0 also logs, saves and listens for a stop.

    ranks: this process's place, by default Ray Train's. Raises UserError where the workers cannot begin together.
    """

    def __init__(self, job: Job, ranks: Ranks | None = None) -> None:
        self.job = job
        self.ranks = ranks or Ranks.of_ray_train(job.train.use_gpu)
        self.watchdog = Watchdog(job.train.hang_s)
        self.watchdog.beat()
        self.found = checkpoint.latest(job.checkpoints_url)
        restored = checkpoint.load(self.found.url) if self.found else None
        self._check_same(restored)
        precision = self.ranks.precision(job.train.precision)
        if restored:  # a continued run computes as it began, whatever this machine would choose
            precision = restored.state["precision"]
        self.place = Place(self.ranks, precision, restored is not None, self.watchdog.beat)
        self.training = job.kind.begin(self.place)
        self.engine = Engine(self.training, job.train, job.optim, job.steps, self.place, restored)
        self.validated: dict[str, float] = restored.state["validated"] if restored else {}
        self.patience = Patience.of(restored.state, job.train.patience) if restored else Patience(job.train.patience)
        self.checkpoints = CheckpointWriter(job.checkpoints_url, keep=job.train.keep_checkpoints, stay=job.keep_steps)
        self.telemetry = Telemetry(job, self.ranks, step=self.step)
        self.telemetry.post(Began(self.step, self.ranks.world, self.found.skipped if self.found else ()))

    @property
    def step(self) -> int:
        """Optimizer steps taken, from the run's beginning."""
        return self.engine.step

    def steps(self) -> Iterator[Step]:
        """This worker's part of the steps that are left."""
        return self.training.steps(self.step, self.step if self.patience.is_over else self.job.steps)

    def owes_validation(self) -> bool:
        """At the start, and where a stop came before the one that was due."""
        return self.validated.get("step") != self.step and (self.step == 0 or self.is_validated)

    @property
    def stays(self) -> bool:
        """Whether the checkpoint of this step is kept, whatever comes later."""
        return self.step in self.job.keep_steps

    @property
    def is_validated(self) -> bool:
        """Whether a validation is due at this step."""
        return self.stays or self.every(self.job.train.eval_every)

    def every(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def advance(self, item: Step) -> tuple[Taken, bool]:
        """One step, and whether a node is about to leave, so that a checkpoint is due."""
        self.checkpoints.check()
        wishes = {"stop": self.telemetry.wants_stop(), "look": self.telemetry.wants_look()}
        agreed = self.engine.agree(item, **wishes)
        leaves = agreed.look and self.telemetry.node_leaves(self.step + 1)
        taken = self.engine.take(item, agreed)
        self.telemetry.count(item)
        if taken.is_skipped:
            self.telemetry.warn(f"step {self.step:,} is skipped: its gradient is not finite")
        return taken, leaves

    def validate(self) -> None:
        if self.training.validate is None:
            return
        values = self.training.validate()
        self.validated = {"step": self.step, **values}
        if (score := self.training.score(values)) is not None:
            self.patience.see(self.step, score)
        # With its place on the axes that training logs: MLflow and compare.py draw losses over tokens by it.
        self.telemetry.log(self.step, values | self.training.points(self.step))
        self.telemetry.restart_clock()

    def save(self, *, final: bool = False, needed: bool = False) -> None:
        """Rank 0 writes a checkpoint in the background; replicas are equal, so the others need not. final: this worker
        takes no further step.

        One that is due while another is being written is left out, or all would wait for that; a needed one is not.
        """
        if self.ranks.rank != 0:
            return
        if self.checkpoints.is_writing and not (final or needed):
            self.telemetry.warn(f"no checkpoint of step {self.step:,}: the one before is still being written")
            return
        if final:
            self.watchdog.close()  # nobody waits for this worker any more, and an upload may take its time
        began_at = time.perf_counter()
        self.telemetry.publish()  # first: a checkpoint whose points are lost would be continued without them
        weights, moments = self.training.model.state_dict(), self.engine.optimizer.state_dict()
        self.checkpoints.save(self.step, weights, moments, self._state(), score=self._score())
        self.telemetry.count_saving(time.perf_counter() - began_at)

    def save_validation(self) -> None:
        """Keep the validation of the weights that this worker began with: in their checkpoint, or a first one."""
        if self.found is None:
            self.save()
        elif self.ranks.rank == 0:
            checkpoint.amend(self.found.url, self._state(), score=self._score())

    def close(self) -> None:
        self.watchdog.close()
        self.checkpoints.wait()
        self.telemetry.close()

    def _check_same(self, restored: Loaded | None) -> None:
        step = restored.state["step"] if restored else 0
        if not self.ranks.all_have(step):
            raise UserError(
                "the workers do not find the same checkpoint",
                why=f"this one is on {os.uname().nodename} and found step {step:,} in {self.job.checkpoints_url}",
                try_="use a run.storage_path that all nodes see, those that join later too",
            )

    def _state(self) -> dict[str, Any]:
        health = self.engine.health
        return {
            "validated": self.validated,
            "precision": self.place.precision,
            "optimizer": self.job.optim.name,
            "skipped_steps": [health.skipped, health.in_a_row],
            "patience": asdict(self.patience),
            "world_size": self.ranks.world,
            **self.job.record,
        }

    def _score(self) -> float | None:
        """What the best checkpoint has the least of, for the present weights."""
        return self.training.score(self.validated) if self.validated.get("step") == self.step else None
