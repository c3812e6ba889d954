"""The recipe of a fine-tuning: a task, a model to begin with, and how to train."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from glm_model.config import OptimConfig
from infra.cluster.connect import ClusterConfig
from infra.cluster.train_workers import WorkersConfig
from infra.console import ConsoleConfig
from infra.errors import UserError
from infra.tracking import TrackingConfig
from pipelines.questions.config import TaskConfig
from workflows.settings.recipe import RunConfig, TrainConfig


@dataclass
class StartConfig:
    init_from: str | None = None
    """Required. The model to fine-tune: a run, a model folder, or what export.py made of another checkpoint."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout rate on embeddings, attention and the outputs of both sublayers."""
    random: bool = False
    """Begin with random weights of this model's shape, to see what pretraining is worth."""


@dataclass
class FinetuneConfig(WorkersConfig):
    epochs: Annotated[float, Gt(0), Lt(math.inf)] = 3.0
    """Passes over the training items."""
    steps: Annotated[int, Ge(1)] | None = None
    """Optimizer steps. Overrides train.epochs."""
    items: Annotated[int, Ge(1)] | None = None
    """Use only so many training items, drawn by train.seed: for curves over the number of labels."""
    batch: Annotated[int, Ge(1)] = 16
    """Items of a step, over all workers."""
    micro: Annotated[int, Ge(1)] = 8
    """Items of a micro-batch: what one forward pass takes."""
    loss: Literal["choice", "gold"] = "choice"
    """choice: cross-entropy over the candidates; where the answer is written, its language-model loss, and besides the
    cross-entropy per token where there are other candidates. gold: the language-model loss of the right one alone.
    """
    select_on: Literal["train", "dev", "none"] = "train"
    """Where the best checkpoint is chosen, by the first of task.metrics: on a part of the training items that is held
    out, on the split dev, or not at all: the last weights. Where fewer than 200 items would be held out of train, none
    are, and the last weights are taken.
    """
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the training items that select_on=train holds out."""
    seed: int = 1234
    """Random seed for the order of items, what is held out, and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs and on CPUs with bf16 instructions, else fp32."""
    exact: bool = False
    """Make a resumed run equal to an uninterrupted one to the last bit with three or more workers too (on CPUs in
    fp32). With one or two workers it always is.
    """
    log_every: Annotated[int, Ge(1)] = 10
    """Steps between logged points."""
    eval_every: Annotated[int, Ge(1)] | None = None
    """Steps between validations, each with a checkpoint. Default: those of an epoch."""
    patience: Annotated[int, Ge(1)] | None = None
    """Validations in a row without a better one after which the run ends early. Default: it never does."""
    keep_checkpoints: Annotated[int, Ge(1)] = 1
    """Number of newest checkpoints to keep, besides the best."""

    def training(self, steps_of_epoch: int) -> TrainConfig:
        """The settings that the engine reads. steps_of_epoch: steps between validations by default."""
        every = self.eval_every or max(steps_of_epoch, 1)
        return TrainConfig(
            num_workers=self.num_workers,
            use_gpu=self.use_gpu,
            resources_per_worker=self.resources_per_worker,
            max_failures=self.max_failures,
            hang_s=self.hang_s,
            resize_every_s=self.resize_every_s,
            seed=self.seed,
            precision=self.precision,
            exact=self.exact,
            log_every=self.log_every,
            eval_every=every,
            patience=self.patience,
            checkpoint_every=every,
            keep_checkpoints=self.keep_checkpoints,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        micro_batches = -(-self.batch // self.micro)
        if self.max_workers > micro_batches:
            raise UserError(
                f"{self.max_workers} workers for {micro_batches} micro-batches of a step: some would be idle",
                why=f"train.batch={self.batch} items are micro-batches of train.micro={self.micro}",
                try_="give a smaller train.micro, a larger train.batch, or fewer workers",
            )


@dataclass
class FinetuneRecipe:
    task: TaskConfig = field(default_factory=TaskConfig)
    model: StartConfig = field(default_factory=StartConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-4, betas=(0.9, 0.999), eps=1e-8, warmup_fraction=0.1, schedule="linear", floor_ratio=0.1
        )
    )
    train: FinetuneConfig = field(default_factory=FinetuneConfig)
    run: RunConfig = field(default_factory=RunConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.task.head and self.train.loss != "choice":
            raise UserError(
                f"train.loss={self.train.loss} does nothing with task.head",
                why="a classification head has no words whose language-model loss could be taken",
                try_="leave train.loss out",
            )
