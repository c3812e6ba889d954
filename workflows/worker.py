"""The train worker: what every worker process does, and what happens at each step.

The micro-batch is the unit of determinism: gradients are sums over all micro-batches of a step divided by global
counts, and dropout is seeded per micro-batch, so neither the number of workers nor a restart changes what is computed.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from glm_model import GLM, GLMConfig, Tokenizer
from glm_model.loss import LossOptions
from glm_model.train import TrainStep, clip_gradients, learning_rate, loss_scales, make_optimizer, seed_dropout
from infra import checkpoint, config, storage
from infra.checkpoint import Checkpoints
from infra.cluster import Link
from infra.errors import DivergedError, UserError
from infra.metrics import MetricLog
from infra.tracking import RunHandle
from pipelines import blanks, feed
from pipelines.feed import Reader, Step
from pipelines.store import TokenStore
from workflows import evaluation
from workflows.budget import Budget, batch_plan
from workflows.initial import initial_model
from workflows.recipe import Recipe
from workflows.watch import Watch

_MASK64 = (1 << 64) - 1


def train_worker(job: dict[str, Any]) -> None:
    """One worker of a run, from its last checkpoint (or the start) to its last step."""
    # oneDNN keeps 1,024 compiled bf16 products, one per shape, and packed rows bring new shapes at every step: 2.7 GB
    # for a tiny model after 120 steps, against 1.1 GB with 128 of them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    link = Link.attach(job["link"])
    if link.failure():  # Ray Train restarts after any error, and this one would come again
        return
    try:
        _train(Worker(job))
    except UserError as error:
        link.fail(error)
        if not isinstance(error, DivergedError):  # which all ranks find at the same step: they just end
            raise


def _train(w: "Worker") -> None:
    try:
        if w.step == 0:
            w.evaluate()
        for item in w.steps():
            agreed = w.agree(item)
            sums = w.backward(item, agreed)
            norm = w.update()
            w.step += 1
            last = w.step == w.budget.steps
            if last or w.step == 1 or w.every(w.recipe.train.log_every):
                w.log(item, sums, norm, agreed)
            if last or (w.every(w.recipe.train.eval_every) and not agreed.stop):  # a stop has seconds to be saved in
                w.evaluate()
            if last or agreed.stop or w.every(w.recipe.train.checkpoint_every):
                w.save()
            if agreed.stop:
                break
    finally:
        w.close()


class Agreed(NamedTuple):
    """What all ranks know of a step before its backward: targets per objective [O], fingerprint, and whether to stop
    after it.
    """

    counts: torch.Tensor
    fingerprint: int
    stop: bool


@dataclass
class _Since:
    """Local totals since the last logged point; instants are of time.perf_counter."""

    started_at: float
    tokens: int = 0
    waited_s: float = 0.0
    steps: int = 0


class Worker:
    """A rank's model, optimizer, feed and logs. Rank 0 also logs, saves and listens for a stop."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.recipe = config.from_yaml(Recipe, job["recipe"])
        self.budget = Budget(**job["budget"])
        self.rank, self.world, self.device = _place(self.recipe.train.use_gpu)
        self.store = TokenStore.open(job["store_url"])
        self.tokenizer = Tokenizer.load(job["store_url"])
        self.mixture = blanks.resolve(self.recipe.blanks)
        self.plan = batch_plan(self.budget, self.store, self.recipe)
        windows = 2 * max(len(self.store.parts), 1)  # the one being read and the next, of each store
        self.reader = Reader(
            self.store.train, self._feed_recipe("train"), cached_groups=windows * self.recipe.train.window
        )
        self.validation = {"blanks": Reader(self.store.validation, self._feed_recipe("validation"))}
        text = evaluation.unidirectional(self.validation["blanks"].recipe, self.recipe.blanks.mask_tokens)
        self.validation["text"] = Reader(self.store.validation, text)

        found = checkpoint.latest(job["checkpoints_url"])
        self.step, self.validated = 0, {}
        self.watch = Watch(self.recipe.train.max_skipped, job["run_url"])
        self.model = self._model(restored=found is not None)
        self.optimizer = make_optimizer(self.model, self.recipe.optim)
        if found:
            self._restore(found)
        train = self.recipe.train
        self.train_step = TrainStep(
            self.model,
            num_objectives=len(self.mixture.names),
            precision=train.precision,
            options=LossOptions(train.label_smoothing, train.z_loss),
            compiled=train.compile,
            checkpoint_activations=train.checkpoint_activations,
        )
        self.ddp = _distribute(self.train_step, self.world, self.device)
        self.shares = torch.tensor(self.mixture.shares)
        self.link = Link.attach(job["link"]) if self.rank == 0 else None
        self.checkpoints = Checkpoints(job["checkpoints_url"], keep=self.recipe.train.keep_checkpoints)
        self.metrics_url = self.metrics_path = storage.join(job["run_url"], "metrics.jsonl")
        self.metrics = self._metric_log() if self.rank == 0 else None
        self.since = _Since(time.perf_counter())
        if self.link and found:
            self.link.post({"resumed_from": self.step, "skipped": found.skipped})

    def steps(self):
        return feed.steps(
            self.reader, self.plan, start=self.step, stop=self.budget.steps, rank=self.rank, world=self.world
        )

    def every(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def agree(self, item: Step) -> Agreed:
        """One small all-reduce: the targets of the whole step, its fingerprint, and rank 0's wish to stop."""
        mine = torch.zeros(len(self.mixture.names) + 2, dtype=torch.int64)
        mine[:-2] = torch.from_numpy(item.counts)
        mine[-2] = _signed(sum(m.fingerprint for _, m in item.micro_batches))
        mine[-1] = 1 if self.link and self.link.stop_reason() else 0
        total = self._sum(mine)
        return Agreed(total[:-2], int(total[-2]) & _MASK64, bool(total[-1]))

    def backward(self, item: Step, agreed: Agreed) -> torch.Tensor:
        """Gradients of L = sum over objectives of w_o S_o / N_o with global N_o; returns this rank's S_o, [O]."""
        # DDP averages over ranks, and the loss is a sum over them.
        scales = (loss_scales(agreed.counts, self.shares, self.recipe.train.loss_weighting) * self.world).to(
            self.device
        )
        sums = torch.zeros(len(self.mixture.names), device=self.device)
        for number, (index, micro_batch) in enumerate(item.micro_batches, start=1):
            seed_dropout(self.recipe.train.seed, item.step, index)
            self._synchronise(number == len(item.micro_batches))
            loss, _ = self.ddp(micro_batch.tensors(self.device))
            (loss * scales).sum().backward()
            sums += loss.detach()
        self.since.tokens += sum(m.tokens for _, m in item.micro_batches)
        self.since.waited_s += item.waited_s
        self.since.steps += 1
        return sums

    def update(self) -> torch.Tensor:
        """One optimizer step; returns the gradient norm before clipping. A step without a finite one is skipped; too
        many in a row raise DivergedError.
        """
        rate = learning_rate(self.step, self.budget.steps, self.recipe.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = clip_gradients(self.model.parameters(), self.recipe.optim.clip)
        if self.watch.skips(self.step + 1, float(norm)):
            self.optimizer.zero_grad(set_to_none=False)
            self._warn(f"step {self.step + 1:,} is skipped: its gradient is not finite")
            return norm
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return norm

    def log(self, item: Step, sums: torch.Tensor, norm: torch.Tensor, agreed: Agreed) -> None:
        since, now = self.since, time.perf_counter()
        totals = self._sum(
            torch.cat((sums.double().cpu(), torch.tensor([since.tokens, since.waited_s], dtype=torch.float64)))
        )
        elapsed_s = now - since.started_at
        self.since = _Since(now)
        if self.metrics is None or self.link is None:
            return
        losses = totals[:-2] / agreed.counts.clamp_min(1)
        scaled = totals[:-2] * loss_scales(agreed.counts, self.shares, self.recipe.train.loss_weighting)
        tokens_per_second = float(totals[-2]) / elapsed_s
        values = {
            "train/loss": float(scaled.sum()),
            **{
                f"train/loss_{name}": float(loss)
                for name, loss, n in zip(self.mixture.names, losses, agreed.counts, strict=True)
                if n
            },
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            "train/gradient_norm": float(norm),
            "train/skipped_steps": self.watch.skipped,
            "perf/tokens_per_second": tokens_per_second,
            "perf/step_s": elapsed_s / max(since.steps, 1),
            "perf/data_wait_share": float(totals[-1]) / self.world / elapsed_s,
            "data/tokens": self.step * self.budget.step_tokens,
            "data/epoch": self.step / self.budget.epoch_steps,
            # MLflow keeps floats: 64 bits take two of them.
            "data/fingerprint_high": float(agreed.fingerprint >> 32),
            "data/fingerprint_low": float(agreed.fingerprint & 0xFFFFFFFF),
        }
        self.metrics.log(self.step, values)
        self.link.post({"step": self.step, **values})
        if jumped := self.watch.jump(self.step, values["train/loss"]):
            self._warn(jumped)

    def evaluate(self) -> None:
        if self.store.validation.rows == 0:
            return
        values = evaluation.evaluate(
            self.train_step,
            self.validation,
            rows=self.recipe.train.eval_rows,
            micro_rows=self.recipe.train.micro_rows,
            rank=self.rank,
            world=self.world,
            device=self.device,
        )
        self.validated = {"step": self.step, **values}
        if self.metrics and self.link:
            self.metrics.log(self.step, values)
            self.link.post({"step": self.step, **values})
        self.since = _Since(time.perf_counter())

    def save(self) -> None:
        """Rank 0 writes a checkpoint in the background; replicas are equal, so the others need not."""
        if self.rank != 0:
            return
        state = {
            "validated": self.validated,
            "skipped_steps": [self.watch.skipped, self.watch.in_a_row],
            "identity": self.job["identity"],
            "store_digest": self.store.digest,
            "world_size": self.world,
            "mlflow_run_id": self.job["tracking"]["run_id"],
        }
        score = self.validated.get("val/loss") if self.validated.get("step") == self.step else None
        self.checkpoints.save(self.step, self.model.state_dict(), self.optimizer.state_dict(), state, score=score)
        self._publish_metrics()
        if self.link:
            self.link.post({"checkpoint": self.step})

    def close(self) -> None:
        self.checkpoints.wait()
        if self.metrics:
            self._publish_metrics()
            self.metrics.close()

    def _model(self, *, restored: bool) -> GLM:
        shape = GLMConfig.from_dict(self.job["model"])
        init_from = None if restored else self.recipe.model.init_from
        return initial_model(shape, seed=self.recipe.train.seed, init_from=init_from).to(self.device)

    def _restore(self, found: checkpoint.Found) -> None:
        loaded = checkpoint.load(found.url)
        self.model.load_state_dict(loaded.model)
        self.optimizer.load_state_dict(loaded.optimizer)
        self.step, self.validated = loaded.state["step"], loaded.state["validated"]
        self.watch.skipped, self.watch.in_a_row = loaded.state["skipped_steps"]

    def _feed_recipe(self, split: str) -> feed.Recipe:
        key = self.job["plan_key"]
        return feed.recipe_of(self.store, self.tokenizer, self.recipe.blanks, split=split, plan_key=key)

    def _metric_log(self) -> MetricLog:
        """Appends to the run folder, or to a local copy of it where that is an object store (which cannot append)."""
        if not storage.is_local(self.metrics_url):
            self.metrics_path = str(Path(tempfile.mkdtemp(prefix="glm-metrics-")) / "metrics.jsonl")
            if self.step and storage.exists(self.metrics_url):
                Path(self.metrics_path).write_bytes(storage.read_bytes(self.metrics_url))
        return MetricLog(self.metrics_path, RunHandle(**self.job["tracking"]), resume_step=self.step)

    def _publish_metrics(self) -> None:
        if self.metrics and self.metrics_path != self.metrics_url:
            storage.write_bytes(self.metrics_url, Path(self.metrics_path).read_bytes())

    def _warn(self, text: str) -> None:
        if self.link:
            self.link.post({"warning": text})

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.world == 1:
            return tensor
        placed = tensor.to(self.device)
        dist.all_reduce(placed)
        return placed.cpu()

    def _synchronise(self, now: bool) -> None:
        if self.world > 1:
            setattr(self.ddp, "require_backward_grad_sync", now)  # noqa: B010 (what no_sync() sets; it is no tensor)


def _place(use_gpu: bool) -> tuple[int, int, torch.device]:
    """(rank, world size, device) of this worker."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    device = ray.train.torch.get_device() if use_gpu else torch.device("cpu")
    return context.get_world_rank(), context.get_world_size(), device


def _distribute(module: nn.Module, world: int, device: torch.device) -> nn.Module:
    if world == 1:
        return module
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)


def _signed(value: int) -> int:
    """A sum of 64-bit hashes as int64: all-reduce wraps around, as the hash's own sum does."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value
