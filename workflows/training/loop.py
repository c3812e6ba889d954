"""What every train worker does, from its last checkpoint (or the start) to its last step."""

import os
from collections.abc import Callable

from infra import storage
from infra.cluster.link import Link
from infra.errors import DivergedError, InfrastructureError, UserError
from workflows.training.job import Job
from workflows.training.worker import Worker


def train_worker(job: Job) -> None:
    """One worker of a run, from its last checkpoint (or the start) to its last step."""
    run_worker(job, _train)


def run_worker(job: Job, work: Callable[[Worker], None]) -> None:
    """Do a worker's work, and tell the driver of what a restart would only repeat, such as a user's mistake."""
    # oneDNN keeps 1,024 compiled bf16 products, one per shape, and packed rows bring new shapes at every step: 2.7 GB
    # for a tiny model after 120 steps, against 1.1 GB with 128 of them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    assert job.link is not None, "workers under Ray Train have a driver"
    link = Link.attach(job.link)
    if link.failure():  # Ray Train restarts after any error, and this one would come again
        return
    link.post({"placed": True})
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
    train = w.recipe.train
    try:
        if w.owes_validation():
            w.evaluate()
            if train.patience is not None:
                w.save_validation()
        for item in w.steps():
            agreed = w.advance(item)
            last = w.step == w.budget.steps
            if last or w.step == 1 or w.every(train.log_every):
                w.log(item, agreed)
            if last or (w.every(train.eval_every) and not agreed.stop):  # a stop has seconds to be saved in
                w.evaluate()
                last = last or w.patience.is_over
            best = train.patience is not None and w.patience.best_step == w.step  # which the model will be taken from
            if last or best or agreed.stop or agreed.leaves or w.every(train.checkpoint_every):
                w.save(final=last or agreed.stop, needed=best or agreed.leaves)
            if last or agreed.stop:
                break
    finally:
        w.close()
