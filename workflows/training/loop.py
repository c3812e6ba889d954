"""What every train worker does, from its last checkpoint (or the start) to its last step."""

import os
from collections.abc import Callable

from infra import storage
from infra.cluster.link import Link
from infra.errors import DivergedError, InfrastructureError, UserError
from workflows.training.job import Job, OptimConfig, TrainConfig
from workflows.training.messages import Placed
from workflows.training.worker import Worker

__all__ = ["Job", "OptimConfig", "TrainConfig", "run_worker", "train_worker"]


def train_worker(job: Job) -> None:
    """One worker of a run, from its last checkpoint (or the start) to its last step."""
    run_worker(job, _train)


def run_worker(job: Job, work: Callable[[Worker], None]) -> None:
    """Do a worker's work, and tell the driver of what a restart would only repeat, such as a user's mistake."""
    # oneDNN keeps 1,024 compiled bf16 products, one per shape, and packed rows bring new shapes at every step: 2.7 GB
    # for a tiny model after 120 steps, against 1.1 GB with 128 of them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    assert job.link, "under Ray Train a driver listens"
    link = Link.attach(job.link)
    if link.failure():  # Ray Train restarts after any error, and this one would come again
        return
    link.post(Placed())
    try:
        work(Worker(job))
    except UserError as error:
        # A disk that is full stays so; an object store that was away may be back at the next start.
        may_pass = isinstance(error, InfrastructureError) and not storage.is_local(job.checkpoints_url)
        if not may_pass:
            link.fail(error)
        if not isinstance(error, DivergedError):  # which all ranks find at the same step: they just end
            raise


def _train(w: Worker) -> None:
    train = w.job.train
    try:
        if w.owes_validation():
            w.validate()
            if train.patience is not None:
                w.save_validation()
        for item in w.steps():
            taken, leaves = w.advance(item)
            stop, last = taken.agreed.stop, w.step == w.job.steps
            if last or w.step == 1 or w.every(train.log_every):
                w.telemetry.log_step(w.engine, taken)
            if last or (w.is_validated and not stop):  # a stop has seconds to be saved in
                w.validate()
                last = last or w.patience.is_over
            best = train.patience is not None and w.patience.best_step == w.step  # which the model will be taken from
            if last or best or stop or leaves or w.stays or w.every(train.checkpoint_every):
                w.save(final=last or stop, needed=best or leaves or w.stays)
            if last or stop:
                break
    finally:
        w.close()
