"""The train worker: its model, optimizer, feed and logs, and what it does at each step.

The micro-batch is the unit of determinism: gradients are sums over all micro-batches of a step divided by global
counts, and dropout is seeded per micro-batch, so neither the number of workers nor a restart changes what is computed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from glm_model import GLM, Tokenizer
from glm_model.loss import LossOptions
from glm_model.mfu import peak_flops
from glm_model.train import TrainStep, clip_gradients, learning_rate, loss_scales, make_optimizer, seed_dropout
from infra import checkpoint, storage
from infra.checkpoint import Checkpoints
from infra.cluster.link import Link
from infra.cluster.train_workers import preemption_notice
from infra.cluster.watchdog import Watchdog
from infra.errors import UserError
from infra.tracking.metric_log import MetricLog
from pipelines import config as data_config
from pipelines.blanks import mixture
from pipelines.feed import micro_batches
from pipelines.feed.micro_batches import Reader, Step
from pipelines.keyed import MASK64
from pipelines.store.format import TokenStore
from workflows.settings.budget import batch_plan
from workflows.training.health import Patience, Watch
from workflows.training.initial_weights import initial_model
from workflows.training.job import Job
from workflows.training.ranks import Ranks, as_signed
from workflows.training.to_device import page_lock, to_device
from workflows.training.validation import evaluate, validation_of

_NOTICES_EVERY_S = 5.0  # Ray itself looks for nodes that go away every 5 s


class Agreed(NamedTuple):
    """What all ranks know of a step before its backward: targets per objective [O], fingerprint, whether to stop after
    it, and whether a node is about to leave, so that a checkpoint is due.
    """

    counts: torch.Tensor
    fingerprint: int
    stop: bool
    leaves: bool


@dataclass
class _Since:
    """Local totals since the last logged point; instants are of time.perf_counter."""

    started_at: float
    tokens: int = 0
    waited_s: float = 0.0
    saved_s: float = 0.0
    steps: int = 0


class Worker:
    """A rank's model, optimizer, feed and logs. Rank 0 also logs, saves and listens for a stop.

    ranks: this process's place, by default Ray Train's; a job whose link is None has no driver to tell.
    """

    def __init__(self, job: Job, ranks: Ranks | None = None) -> None:
        self.job = job
        self.recipe = job.recipe
        train = self.recipe.train
        self.budget = job.budget
        self.ranks = ranks or Ranks.of_ray_train(train.use_gpu)
        self.watchdog = Watchdog(train.hang_s)
        self.watchdog.beat()
        self.store = TokenStore.open(job.store_url, cache=data_config.cache_of(self.recipe.data))
        self.tokenizer = Tokenizer.load(job.store_url)
        self.mixture = mixture.resolve(self.recipe.blanks)
        self.plan = batch_plan(self.budget, self.store, self.recipe)
        windows = 2 * max(len(self.store.parts), 1)  # the one being read and the next, of each store
        self.reader = Reader(self.store.train, self._feed_recipe("train"), cached_groups=windows * train.window)
        self.validation = validation_of(
            self.store,
            self._feed_recipe("validation"),
            self.recipe.blanks.mask_tokens,
            rows=train.eval_rows,
            micro_rows=train.micro_rows,
        )

        found = self.found = checkpoint.latest(job.checkpoints_url)
        self.step, self.validated = 0, {}
        self.precision = self.ranks.precision(train.precision)  # that of a continued run is the one it began with
        self.watch, self.patience = Watch(train.max_skipped, job.run_url or ""), Patience(train.patience)
        self.model = self._model(restored=found is not None)
        self.optimizer = make_optimizer(self.model, self.recipe.optim)
        if found:
            self._restore(found)
        self.train_step = TrainStep(
            self.model,
            num_objectives=len(self.mixture.names),
            precision=self.precision,
            options=LossOptions(train.label_smoothing, train.z_loss),
            compiled=train.compile,
            checkpoint_activations=train.checkpoint_activations,
        )
        if not self.ranks.all_have(self.step):
            raise UserError(
                "the workers do not find the same checkpoint",
                why=f"this one is on {os.uname().nodename} and found that of step {self.step:,} in {job.run_url}",
                try_="a run.storage_path that all nodes see, those that join later too",
            )
        self.ddp = self.ranks.distribute(self.train_step, exact=train.exact)
        self.shares = torch.tensor(self.mixture.shares)
        self.link = Link.attach(job.link) if self.ranks.rank == 0 and job.link else None
        self.checkpoints = Checkpoints(job.checkpoints_url, keep=train.keep_checkpoints)
        self.metrics_url = self.metrics_path = storage.join(job.run_url or "", "metrics.jsonl")
        self.metrics = self._metric_log() if self.link and job.run_url else None
        self.peak_flops = peak_flops(self.ranks.device)
        self.since, self.asked_at, self.leaving = _Since(time.perf_counter()), time.perf_counter(), ""
        if self.link:
            skipped = found.skipped if found else []
            self.link.post({"began_at": self.step, "world_size": self.ranks.world, "skipped": skipped})

    def steps(self) -> Iterator[Step]:
        """This rank's part of the steps that are left."""
        stop = self.step if self.patience.is_over else self.budget.steps
        ranks = self.ranks
        return micro_batches.steps(
            self.reader,
            self.plan,
            start=self.step,
            stop=stop,
            rank=ranks.rank,
            world=ranks.world,
            finish=page_lock if ranks.device.type == "cuda" else None,
        )

    def owes_validation(self) -> bool:
        """At the start, and where a stop came before the one that was due."""
        return self.validated.get("step") != self.step and (self.step == 0 or self.every(self.recipe.train.eval_every))

    def every(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def advance(self, item: Step) -> Agreed:
        """One step: forward and backward of this rank's micro-batches, and the optimizer's update."""
        self.checkpoints.check()
        agreed = self.agree(item)
        self.sums = self.backward(item, agreed)
        self.norm = self.update()
        self.step += 1
        return agreed

    def agree(self, item: Step) -> Agreed:
        """One small all-reduce: the targets of the whole step, its fingerprint, and what rank 0 wants of all."""
        mine = torch.zeros(len(self.mixture.names) + 3, dtype=torch.int64)
        mine[:-3] = torch.from_numpy(item.counts)
        mine[-3] = as_signed(sum(m.fingerprint for _, m in item.micro_batches))
        if self.link:
            mine[-2] = 1 if self.link.stop_reason() else 0
            mine[-1] = 1 if time.perf_counter() - self.asked_at > _NOTICES_EVERY_S else 0
        total = self.ranks.sum(mine)
        leaves = bool(total[-1]) and self._leaves()
        return Agreed(total[:-3], int(total[-3]) & MASK64, bool(total[-2]), leaves)

    def backward(self, item: Step, agreed: Agreed) -> torch.Tensor:
        """Gradients of L = sum over objectives of w_o S_o / N_o with global N_o; returns this rank's S_o, [O]."""
        device = self.ranks.device
        scales = loss_scales(agreed.counts, self.shares, self.recipe.train.loss_weighting).to(device)
        sums = torch.zeros(len(self.mixture.names), device=device)
        for number, (index, micro_batch) in enumerate(item.micro_batches, start=1):
            seed_dropout(self.recipe.train.seed, item.step, index)
            if self.ranks.world > 1:  # what DDP's no_sync() sets; it is no tensor
                setattr(self.ddp, "require_backward_grad_sync", number == len(item.micro_batches))  # noqa: B010
            loss, _ = self.ddp(to_device(micro_batch, device))
            (loss * scales).sum().backward()
            sums += loss.detach()
            self.watchdog.beat()
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

    def log(self, item: Step, agreed: Agreed) -> None:
        since, now = self.since, time.perf_counter()
        mine = torch.tensor([since.tokens, since.waited_s], dtype=torch.float64)
        totals = self.ranks.sum(torch.cat((self.sums.double().cpu(), mine)))
        elapsed_s = now - since.started_at
        self.since = _Since(now)
        if self.metrics is None or self.link is None:
            return
        losses = totals[:-2] / agreed.counts.clamp_min(1)
        scaled = totals[:-2] * loss_scales(agreed.counts, self.shares, self.recipe.train.loss_weighting)
        named = zip(self.mixture.names, losses, agreed.counts, strict=True)
        tokens_per_second = float(totals[-2]) / elapsed_s
        values = {
            "train/loss": float(scaled.sum()),
            **{f"train/loss_{name}": float(loss) for name, loss, n in named if n},
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            "train/gradient_norm": float(self.norm),
            "train/skipped_steps": self.watch.skipped,
            "perf/tokens_per_second": tokens_per_second,
            "perf/step_s": elapsed_s / max(since.steps, 1),
            "perf/data_wait_share": float(totals[-1]) / self.ranks.world / elapsed_s,
            "perf/checkpoint_share": since.saved_s / elapsed_s,
            "perf/workers": self.ranks.world,
            "data/tokens": self.step * self.budget.step_tokens,
            "data/epoch": self.step / self.budget.epoch_steps,
            # MLflow keeps floats: 64 bits take two of them.
            "data/fingerprint_high": float(agreed.fingerprint >> 32),
            "data/fingerprint_low": float(agreed.fingerprint & 0xFFFFFFFF),
        }
        if self.peak_flops:
            needed = tokens_per_second * self.budget.flops_per_token
            values["perf/mfu"] = needed / (self.peak_flops * self.ranks.world)
        self.metrics.log(self.step, values)
        self.link.post({"step": self.step, **values})
        if jumped := self.watch.jump(self.step, values["train/loss"]):
            self._warn(jumped)

    def evaluate(self) -> None:
        if not self.validation.places:
            return
        values = evaluate(self.train_step, self.validation, self.ranks, beat=self.watchdog.beat)
        self.validated = {"step": self.step, **values}
        self.patience.see(self.step, values["val/loss"])
        if self.metrics and self.link:
            self.metrics.log(self.step, values)
            self.link.post({"step": self.step, **values})
        self.since = _Since(time.perf_counter())

    def save(self, *, final: bool = False, needed: bool = False) -> None:
        """Rank 0 writes a checkpoint in the background; replicas are equal, so the others need not. final: this worker
        takes no further step.

        One that is due while another is being written is left out, or all would wait for that; a needed one is not.
        """
        if self.ranks.rank != 0:
            return
        if self.checkpoints.is_writing and not (final or needed):
            self._warn(f"no checkpoint of step {self.step:,}: the one before is still being written")
            return
        if final:
            self.watchdog.close()  # nobody waits for this worker any more, and an upload may take its time
        began_at = time.perf_counter()
        self._publish_metrics()  # first: a checkpoint whose points are lost would be continued without them
        weights, moments = self.model.state_dict(), self.optimizer.state_dict()
        self.checkpoints.save(self.step, weights, moments, self._state(), score=self._score())
        if self.link:
            self.link.post({"checkpoint": self.step})
        self.since.saved_s += time.perf_counter() - began_at

    def save_validation(self) -> None:
        """Keep the validation of the weights that this worker began with: in their checkpoint, or a first one."""
        if self.found is None:
            self.save()
        elif self.ranks.rank == 0:
            checkpoint.amend(self.found.url, self._state(), score=self._score())

    def close(self) -> None:
        self.watchdog.close()
        self.checkpoints.wait()
        if self.metrics:
            self._publish_metrics()
            self.metrics.close()
            if self.metrics_path != self.metrics_url:
                shutil.rmtree(Path(self.metrics_path).parent)

    def _model(self, *, restored: bool) -> GLM:
        init_from = None if restored else self.recipe.model.init_from
        return initial_model(self.job.model, seed=self.recipe.train.seed, init_from=init_from).to(self.ranks.device)

    def _restore(self, found: checkpoint.Found) -> None:
        loaded = checkpoint.load(found.url)
        self.model.load_state_dict(loaded.model)
        self.optimizer.load_state_dict(loaded.optimizer)
        self.step, self.validated = loaded.state["step"], loaded.state["validated"]
        self.precision = loaded.state["precision"]
        self.watch.skipped, self.watch.in_a_row = loaded.state["skipped_steps"]
        self.patience = Patience.of(loaded.state, self.recipe.train.patience)

    def _state(self) -> dict[str, Any]:
        return {
            "validated": self.validated,
            "precision": self.precision,
            "skipped_steps": [self.watch.skipped, self.watch.in_a_row],
            "patience": asdict(self.patience),
            "identity": self.job.identity,
            "store_digest": self.store.digest,
            "world_size": self.ranks.world,
            "mlflow_run_id": self.job.tracking.run_id,
        }

    def _score(self) -> float | None:
        """The validation loss of the present weights."""
        return self.validated.get("val/loss") if self.validated.get("step") == self.step else None

    def _feed_recipe(self, split: str) -> micro_batches.Recipe:
        return micro_batches.recipe_of(
            self.store,
            self.tokenizer,
            self.recipe.blanks,
            split=split,
            plan_key=self.job.blanks_key,
            expand_on_device=self.ranks.device.type == "cuda",
        )

    def _metric_log(self) -> MetricLog:
        """Appends to the run folder, or to a local copy of it where that is an object store (which cannot append)."""
        if not storage.is_local(self.metrics_url):
            self.metrics_path = str(Path(tempfile.mkdtemp(prefix="glm-metrics-")) / "metrics.jsonl")
            if self.step and storage.exists(self.metrics_url):
                Path(self.metrics_path).write_bytes(storage.read_bytes(self.metrics_url))
        return MetricLog(self.metrics_path, self.job.tracking, resume_step=self.step)

    def _publish_metrics(self) -> None:
        if self.metrics and self.metrics_path != self.metrics_url:
            storage.write_bytes(self.metrics_url, Path(self.metrics_path).read_bytes())

    def _leaves(self) -> bool:
        """Whether a node of this run's workers is announced to leave that was not announced before. All ranks ask."""
        self.asked_at = time.perf_counter()
        notice = preemption_notice()
        if notice is None or notice == self.leaving:
            return False
        self.leaving = notice
        self._warn(f"{notice}; a checkpoint of step {self.step + 1:,} is written now")
        return True

    def _warn(self, text: str) -> None:
        if self.link:
            self.link.post({"warning": text})
