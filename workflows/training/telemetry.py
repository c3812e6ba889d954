"""What a training says of itself: points of metrics, and messages between its workers and the driver.

Rank 0 writes the points of all workers to `metrics.jsonl` (MLflow mirrors it) and posts them to the driver, which draws
the live line. It also hears the driver's wish to stop. The other ranks add their totals.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from glm_model.train import peak_flops
from infra import storage
from infra.cluster.link import Link
from infra.cluster.train_workers import preemption_notice
from infra.tracking.metric_log import MetricLog
from workflows.training.engine import Engine, Step, Taken
from workflows.training.job import Job
from workflows.training.messages import Message, Point, Warned
from workflows.training.ranks import Ranks

_NOTICES_EVERY_S = 5.0  # Ray itself looks for nodes that go away every 5 s


@dataclass
class _Since:
    """Totals of this worker since the last logged point; instants are of time.perf_counter."""

    started_at: float
    tokens: int = 0
    waited_s: float = 0.0
    saved_s: float = 0.0
    steps: int = 0


class Telemetry:
    """step: the run's step at the start; later points of an earlier attempt are cut off."""

    def __init__(self, job: Job, ranks: Ranks, *, step: int) -> None:
        self.ranks = ranks
        self.link = Link.attach(job.link) if ranks.rank == 0 and job.link else None
        self.metrics: MetricLog | None = None
        self._url = self._path = ""
        if self.link and job.run_url:
            self._url = self._path = storage.join(job.run_url, "metrics.jsonl")
            self.metrics = self._open_log(job, step)
        self._peak_flops = peak_flops(ranks.device)
        self._since, self._looked_at, self._leaving = _Since(time.perf_counter()), time.perf_counter(), ""

    # -- messages ------------------------------------------------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Tell the driver, where there is one."""
        if self.link:
            self.link.post(message)

    def warn(self, text: str) -> None:
        self.post(Warned(text))

    def wants_stop(self) -> bool:
        """Whether the driver was asked to stop. Only rank 0 hears of it; never waits."""
        return bool(self.link and self.link.stop_reason())

    def wants_look(self) -> bool:
        """Whether it is time to look for nodes that are about to leave. Rank 0's clock decides for all."""
        return bool(self.link) and time.perf_counter() - self._looked_at > _NOTICES_EVERY_S

    def node_leaves(self, step: int) -> bool:
        """Whether a node of the workers is announced to leave that was not announced before. All ranks call this.

        step: the one that is about to be taken.
        """
        self._looked_at = time.perf_counter()
        notice = preemption_notice()
        if notice is None or notice == self._leaving:
            return False
        self._leaving = notice
        self.warn(f"{notice}; a checkpoint of step {step:,} is written now")
        return True

    # -- points --------------------------------------------------------------------------------------------------------

    def count(self, item: Step) -> None:
        """Add a step that was taken to what the next point tells."""
        self._since.tokens += sum(micro_batch.tokens for _, micro_batch in item.micro_batches)
        self._since.waited_s += item.waited_s
        self._since.steps += 1

    def count_saving(self, seconds: float) -> None:
        self._since.saved_s += seconds

    def restart_clock(self) -> None:
        """Begin a new point: the time since the last one went into a validation, not into training."""
        self._since = _Since(time.perf_counter())

    def log_step(self, engine: Engine, taken: Taken) -> None:
        """The point of the step that was just taken. All ranks call this: it sums over them."""
        since, now = self._since, time.perf_counter()
        own = torch.tensor([since.tokens, since.waited_s], dtype=torch.float64)
        totals = self.ranks.sum(torch.cat((taken.sums.double().cpu(), own)))
        elapsed_s = now - since.started_at
        self._since = _Since(now)
        if self.metrics is None:
            return
        counts, sums, tokens_per_second = taken.agreed.counts, totals[:-2], float(totals[-2]) / elapsed_s
        losses = sums / counts.clamp_min(1)
        training = engine.training
        values = {
            "train/loss": float((sums * taken.scales).sum()),
            **{
                f"train/loss_{name}": float(loss)
                for name, loss, n in zip(training.objectives, losses, counts, strict=True)
                if n
            },
            "train/learning_rate": taken.rate,
            "train/gradient_norm": float(taken.norm),
            "train/skipped_steps": engine.health.skipped,
            "perf/tokens_per_second": tokens_per_second,
            "perf/step_s": elapsed_s / max(since.steps, 1),
            "perf/data_wait_share": float(totals[-1]) / self.ranks.world / elapsed_s,
            "perf/checkpoint_share": since.saved_s / elapsed_s,
            "perf/workers": self.ranks.world,
            **training.points(engine.step),
            # MLflow keeps floats: 64 bits take two of them.
            "data/fingerprint_high": float(taken.agreed.fingerprint >> 32),
            "data/fingerprint_low": float(taken.agreed.fingerprint & 0xFFFFFFFF),
        }
        if self._peak_flops and training.flops_per_token:
            needed = tokens_per_second * training.flops_per_token
            values["perf/mfu"] = needed / (self._peak_flops * self.ranks.world)
        self.log(engine.step, values)
        if jump := engine.health.jump(engine.step, values["train/loss"]):
            self.warn(jump)

    def log(self, step: int, values: dict[str, float]) -> None:
        """A point of metrics; rank 0's is kept."""
        if self.metrics:
            self.metrics.log(step, values)
            self.post(Point(step, values))

    def publish(self) -> None:
        """Copy the log to its object store, where the run lies on one: before a checkpoint, or its points are lost."""
        if self.metrics and self._path != self._url:
            storage.write_bytes(self._url, Path(self._path).read_bytes())

    def close(self) -> None:
        if self.metrics:
            self.publish()
            self.metrics.close()
            if self._path != self._url:
                shutil.rmtree(Path(self._path).parent)

    def _open_log(self, job: Job, step: int) -> MetricLog:
        """Appends to the run's folder, or to a local copy of it where that is an object store (which cannot append)."""
        if not storage.is_local(self._url):
            self._path = str(Path(tempfile.mkdtemp(prefix="glm-metrics-")) / "metrics.jsonl")
            if step and storage.exists(self._url):
                Path(self._path).write_bytes(storage.read_bytes(self._url))
        return MetricLog(self._path, job.tracking, resume_step=step)
