"""The engine: one optimizer step over all workers, whatever is trained.

A kind of training says what is trained, on what, and how it is validated (`Training`); the engine takes its steps:

    agree      one small sum over the workers: targets, fingerprint, what rank 0 asks of all
    backward   gradients of this worker's micro-batches; their sum over the workers is the step's
    update     clip, optimizer

The micro-batch is the unit of determinism: gradients are sums over all micro-batches of a step divided by global
counts, and dropout is seeded per micro-batch, so neither the number of workers nor a restart changes what is computed.

Shapes: O objectives.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from glm_model.train import Precision, clip_gradients, loss_scales, make_optimizer, seed_dropout, set_learning_rates
from infra.checkpoint import Loaded
from infra.errors import UserError
from pipelines.keyed import MASK64
from workflows.settings.recipe import TrainConfig
from workflows.training.health import GradientHealth
from workflows.training.ranks import Ranks, as_signed


class MicroBatch(Protocol):
    """What one forward and backward pass takes."""

    @property
    def tokens(self) -> int:
        """Source tokens, for the rate that is shown."""
        ...

    @property
    def fingerprint(self) -> int:
        """64-bit hash of the examples. Those of a step are summed, so that any split over workers gives the same."""
        ...


class Step(Protocol):
    """The micro-batches of one worker at one step. A worker without any runs one whose loss is zero."""

    @property
    def step(self) -> int:
        """Counted from 0."""
        ...

    @property
    def micro_batches(self) -> Sequence[tuple[int, MicroBatch]]:
        """Each with its number in the step, which seeds its dropout."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """Targets of this worker's micro-batches per objective, int64 [O]."""
        ...

    @property
    def waited_s(self) -> float:
        """How long training waited for them."""
        ...


@dataclass(frozen=True)
class Training:
    """What a kind of training brings to the engine."""

    model: nn.Module
    """What checkpoints hold."""
    step: nn.Module
    """batch -> (summed losses float32 [O], numbers of targets [O]); DDP wraps it."""
    objectives: tuple[str, ...]
    """Names, for metrics."""
    shares: tuple[float, ...]
    """Weights of the objectives in the loss."""
    steps: Callable[[int, int], Iterator[Step]]
    """(start, stop) -> this worker's part of these steps."""
    to_device: Callable[[Any], Any]
    """micro-batch -> what `step` takes, on the worker's device."""
    validate: Callable[[], dict[str, float]] | None = None
    """Metrics of the held-out examples, and of tasks; all workers call it together. None: there are none."""
    score: Callable[[dict[str, float]], float | None] = lambda values: values["val/loss"]
    """Metrics of a validation -> what the best checkpoint has the least of; None where they do not tell."""
    points: Callable[[int], dict[str, float]] = lambda step: {}
    """step -> metrics that are logged beside the losses, such as `data/epoch`."""
    flops_per_token: float = 0.0
    """Useful work, for model FLOPs utilisation. 0: not known."""
    look_at: Callable[[int], str] = lambda step: f"that of step {step}"
    """step -> the command that shows its examples, for messages."""


class Place(NamedTuple):
    """Where a training begins."""

    ranks: Ranks
    precision: Precision
    """Agreed by all workers; that of a continued run is the one that it began with."""
    is_restored: bool
    """Whether a checkpoint's weights follow, so that initial ones need not be read."""
    beat: Callable[[], None]
    """To be called as work goes on: a worker that falls silent is restarted."""


class Agreed(NamedTuple):
    """What all workers know of a step before its backward."""

    counts: Tensor
    """Targets per objective, int64 [O]."""
    fingerprint: int
    stop: bool
    """Rank 0 was asked to stop: after this step."""
    look: bool
    """It is time to look whether a node is about to leave."""


class Taken(NamedTuple):
    """A step that was taken."""

    agreed: Agreed
    sums: Tensor
    """This worker's summed losses, float32 [O]."""
    norm: Tensor
    """The gradient's norm, before clipping."""
    rate: float
    is_skipped: bool
    """The gradient was not finite: the weights are as before."""
    scales: Tensor
    """w_o / N_o: what the summed losses over all workers are multiplied by."""


class Engine:
    """Weights, optimizer and number of steps of one worker."""

    def __init__(
        self, training: Training, train: TrainConfig, optim: Any, steps: int, place: Place, restored: Loaded | None
    ) -> None:
        self.training, self.train, self.optim, self.steps, self.place = training, train, optim, steps, place
        self.optimizer = make_optimizer(training.model, optim, share=place.ranks.share_out)
        rates = "--optim.lr" if optim.name == "adamw" else "--optim.matrix_lr and --optim.lr"
        self.health = GradientHealth(train.max_skipped, training.look_at, rates)
        self.step = 0
        if restored:
            _check_optimizer(restored.state.get("optimizer", "adamw"), optim.name)
            training.model.load_state_dict(restored.model)
            self.optimizer.load_state_dict(restored.optimizer)
            self.step = restored.state["step"]
            self.health.skipped, self.health.in_a_row = restored.state["skipped_steps"]
        self.module = place.ranks.distribute(training.step, exact=train.exact)
        self.shares = torch.tensor(training.shares)

    def take(self, item: Step, agreed: Agreed) -> Taken:
        """Forward and backward of this worker's micro-batches, and the optimizer's update. Raises DivergedError."""
        scales = loss_scales(agreed.counts, self.shares, self.train.loss_weighting)
        sums = self.backward(item, scales.to(self.place.ranks.device))
        rate, norm, is_skipped = self.update()
        self.step += 1
        return Taken(agreed, sums, norm, rate, is_skipped, scales)

    def agree(self, item: Step, *, stop: bool, look: bool) -> Agreed:
        """One small all-reduce. stop, look: what rank 0 asks; what others ask counts too."""
        own = torch.zeros(len(self.training.objectives) + 3, dtype=torch.int64)
        own[:-3] = torch.from_numpy(item.counts)
        own[-3] = as_signed(sum(micro_batch.fingerprint for _, micro_batch in item.micro_batches))
        own[-2], own[-1] = int(stop), int(look)
        total = self.place.ranks.sum(own)
        return Agreed(total[:-3], int(total[-3]) & MASK64, bool(total[-2]), bool(total[-1]))

    def backward(self, item: Step, scales: Tensor) -> Tensor:
        """Gradients of L = sum over objectives of w_o S_o / N_o with global N_o; returns this worker's S_o, [O]."""
        device, count = self.place.ranks.device, len(item.micro_batches)
        sums = torch.zeros(len(self.training.objectives), device=device)
        for number, (index, micro_batch) in enumerate(item.micro_batches, start=1):
            seed_dropout(self.train.seed, item.step, index)
            with contextlib.nullcontext() if number == count else self._unsynchronised():
                loss, _ = self.module(self.training.to_device(micro_batch))
                (loss * scales).sum().backward()
            sums += loss.detach()
            self.place.beat()
        return sums

    def update(self) -> tuple[float, Tensor, bool]:
        """One optimizer step: (learning rate, gradient norm before clipping, whether the step is skipped).

        A step without a finite norm is skipped; too many in a row raise DivergedError.
        """
        rate = set_learning_rates(self.optimizer, self.step, self.steps, self.optim)
        norm = clip_gradients(self.training.model.parameters(), self.optim.clip)
        is_skipped = self.health.skips(self.step + 1, float(norm))
        if not is_skipped:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return rate, norm, is_skipped

    def _unsynchronised(self) -> contextlib.AbstractContextManager[None]:
        """Gradients are summed over the workers once, in the backward of the step's last micro-batch."""
        ddp = self.module
        return ddp.no_sync() if isinstance(ddp, nn.parallel.DistributedDataParallel) else contextlib.nullcontext()


def _check_optimizer(before: str, now: str) -> None:
    if before != now:
        raise UserError(
            f"the checkpoint is one of optim.name={before}, and this run has optim.name={now}",
            why="what one optimizer knows of past gradients is of no use to another",
            try_=f"--optim.name={before} to continue it; another --run.name, or --run.fresh=true, to begin with {now}",
        )
