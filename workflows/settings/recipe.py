"""The recipe: one configuration that every workflow reads, each taking the sections that it needs.

So a store and the run that trains on it cannot disagree, and `--print_config` shows everything that decides a result.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Lt

from glm_model.config import OptimConfig
from infra.cluster.connect import ClusterConfig
from infra.cluster.train_workers import WorkersConfig
from infra.config import Count
from infra.console import ConsoleConfig
from infra.errors import UserError
from infra.tracking import TrackingConfig
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig


@dataclass
class ModelConfig:
    size: str = "tiny"
    """tiny, mini, base, large, 410m, 515m, 2b or 10b."""
    init_from: str | None = None
    """Begin with the weights of this model: a run, or a folder or URL that pretrain.py or export.py wrote. Its shape
    replaces `size`, and its tokenizer is taken where no other is given; its tables grow where the data needs more
    positions or tokens. The optimizer starts from scratch.
    """
    positions: Annotated[int, Ge(1)] | None = None
    """Rows of the position tables; default: data.sequence_length, or those of `init_from` where they are more."""
    block_positions: bool = True
    """Whether tokens have a second position, which counts inside a blank. false: an ablation of the paper."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout rate on embeddings, attention and the outputs of both sublayers."""


@dataclass
class EvalTask:
    """A task that a model is asked while it is trained."""

    name: str
    """A task of pipelines/tasks, or an importable module of your own."""
    data: str
    """Its folder or file, as task.data of evaluate.py."""
    split: str = "dev"
    """What is asked of it."""


@dataclass
class TrainConfig(WorkersConfig):
    tokens: Annotated[Count, Ge(1)] | None = None
    """Source tokens to train on."""
    steps: Annotated[int, Ge(1)] | None = None
    """Optimizer steps. Overrides train.tokens."""
    hours: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    """Hours to train, validations included. Overrides train.tokens. A few steps are timed at the start; the resulting
    number of steps is then fixed for the run.
    """
    batch_tokens: Annotated[Count, Ge(1)] = Count(32_768)
    """Source tokens of a step, over all workers; becomes a number of rows."""
    micro_rows: Annotated[int, Ge(1)] = 1
    """Rows of a micro-batch: what one forward pass takes."""
    window: Annotated[int, Ge(1)] = 8
    """Row groups that are shuffled together."""
    seed: int = 1234
    """Random seed for initial weights, the order of rows and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs and on CPUs with bf16 instructions, else fp32."""
    loss_weighting: Literal["objective", "token"] = "objective"
    """objective: each objective counts by its share of the mixture; token: one mean over all targets."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the training loss that is spread over all tokens alike (0.1 is usual; 0: none)."""
    z_loss: Annotated[float, Ge(0), Lt(math.inf)] = 0.0
    """Weight of the squared log of the softmax's sum, which keeps logits from drifting (1e-4 is usual; 0: none)."""
    compile: bool = False
    """Compile the layers, for GPUs. The first step takes a minute longer, and dropout draws differ."""
    checkpoint_activations: bool = False
    """Recompute each layer in backward instead of keeping its activations: less memory, a third more work."""
    exact: bool = False
    """Make a resumed run equal to an uninterrupted one to the last bit with three or more workers too (on CPUs in
    fp32). With one or two workers it always is.
    """
    max_skipped: Annotated[int, Ge(0)] = 3
    """Steps in a row that are skipped because their gradient is not finite; one more ends the run with exit code 4."""
    log_every: Annotated[int, Ge(1)] = 10
    """Steps between logged points."""
    eval_every: Annotated[int, Ge(0)] = 200
    """Steps between validations. One runs at the start and one at the end in any case."""
    eval_rows: Annotated[int, Ge(0)] = 64
    """Maximum number of validation rows to use."""
    eval_tasks: list[EvalTask] = field(default_factory=list)
    """Zero-shot tasks that are asked beside each validation: {name: blimp, data: blimp.jsonl}. Their metrics are logged
    as eval/<task>/<metric>.
    """
    eval_items: Annotated[int, Ge(1)] = 500
    """Most items of each of train.eval_tasks: those that evaluate.py --limit asks, the same in every run."""
    patience: Annotated[int, Ge(1)] | None = None
    """Validations in a row without a lower loss after which the run ends early, with the best checkpoint's model.
    Default: it never does.
    """
    checkpoint_every: Annotated[int, Ge(0)] = 500
    """Steps between checkpoints. One is written at the end in any case."""
    keep_checkpoints: Annotated[int, Ge(1)] = 2
    """Number of newest checkpoints to keep, besides the one with the lowest validation loss (of the steps at which
    both a validation and a checkpoint are due).
    """
    keep_at_tokens: list[Annotated[Count, Ge(1)]] = field(default_factory=list)
    """Numbers of training tokens, such as [1M, 10M, 100M]: the checkpoint of the first step that has seen so many is
    written and stays, besides those of train.keep_checkpoints, and a validation runs there.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, share in (self.resources_per_worker or {}).items():
            if not 0 <= share < math.inf:
                raise UserError(
                    f"train.resources_per_worker.{name} must be at least 0, got {share:g}",
                    try_=f"--train.resources_per_worker.{name}=1",
                )
        if not -(1 << 63) <= self.seed < 1 << 63:
            default = TrainConfig.seed
            raise UserError(f"train.seed must fit into 64 bits, got {self.seed}", try_=f"--train.seed={default}")
        if self.patience is not None and (none := [n for n in ("eval_every", "eval_rows") if not getattr(self, n)]):
            raise UserError(
                f"train.patience={self.patience} counts validations, and train.{none[0]}=0 leaves none",
                try_=f"--train.{none[0]}={getattr(TrainConfig, none[0])} (the default), or --train.patience=null",
            )


@dataclass
class RunConfig:
    name: str | None = None
    """Default: <recipe>-<8 hex of the configuration>. The same name continues an unfinished run."""
    storage_path: str = "./runs"
    """Folder or URL of runs; shared by all nodes of a cluster."""
    fresh: bool = False
    """Start from scratch even if a run of this name exists (its folder is removed)."""


@dataclass
class Recipe:
    data: DataConfig = field(default_factory=DataConfig)
    blanks: BlanksConfig = field(default_factory=BlanksConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


R = TypeVar("R", bound=Recipe)
