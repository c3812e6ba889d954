"""The recipe: one configuration that every workflow reads, each taking the sections that it needs.

So a store and the run that trains on it cannot disagree, and `--print_config` shows everything that decides a result.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from glm_model.config import LossOptions, OptimConfig
from infra.cluster.connect import ClusterConfig
from infra.cluster.train_workers import WorkersConfig
from infra.config import Count, config_digest, flatten
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
    """Begin with the weights of this model: a folder or URL that pretrain.py or export.py wrote. Its shape takes the
    place of `size`; its tables grow where the data needs more positions or tokens. The optimizer begins anew.
    """
    positions: int | None = None
    """Rows of the position tables; default: data.sequence_length, or those of `init_from` where they are more."""
    block_positions: bool = True
    """The second position, which counts inside a blank. false: an ablation of the paper."""
    dropout: float = 0.1
    """On embeddings, attention and the outputs of both sublayers."""

    def __post_init__(self) -> None:
        if self.positions is not None and self.positions < 1:
            raise ValueError(f"model.positions={self.positions} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout:g} must be at least 0 and below 1")


# The least that a number of TrainConfig may be; max_failures=-1 is Ray's word for no limit.
_LEAST = {
    **dict.fromkeys(("tokens", "steps", "batch_tokens", "micro_rows", "window", "log_every", "patience"), 1),
    **dict.fromkeys(("max_skipped", "eval_every", "eval_rows", "checkpoint_every", "hang_s"), 0),
    "keep_checkpoints": 1,
    "max_failures": -1,
}


@dataclass
class TrainConfig(WorkersConfig):
    tokens: Count | None = None
    """Source tokens to train on."""
    steps: int | None = None
    """Optimizer steps; given, they decide and not the tokens."""
    hours: float | None = None
    """Hours to train, validations included: at the start a few steps are timed on the workers, and the number of steps
    that comes to is the run's from then on. Given, they decide and not the tokens.
    """
    batch_tokens: Count = Count(32_768)
    """Source tokens of a step, over all workers; becomes a number of rows."""
    micro_rows: int = 1
    """Rows of a micro-batch: what one forward pass takes."""
    window: int = 8
    """Row groups that are shuffled together."""
    seed: int = 1234
    """Initial weights, order of rows, dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs and on CPUs with bf16 instructions, else fp32."""
    loss_weighting: Literal["objective", "token"] = "objective"
    """objective: each objective counts by its share of the mixture; token: one mean over all targets."""
    label_smoothing: float = 0.0
    """Share of the loss that goes to all tokens alike, in training (0.1 is usual; 0: none)."""
    z_loss: float = 0.0
    """Weight of the squared log of the softmax's sum, which keeps logits from drifting (1e-4 is usual; 0: none)."""
    compile: bool = False
    """Run the layers as compiled code: for GPUs; the first step takes a minute more, and dropout draws differ."""
    checkpoint_activations: bool = False
    """Compute each layer anew in backward instead of keeping its activations: less memory, a third more work."""
    exact: bool = False
    """Make a run of three workers and more that is resumed equal to an uninterrupted one to the last bit (on CPUs in
    fp32); of one and two it is in any case.
    """
    max_skipped: int = 3
    """Steps in a row that are skipped because their gradient is not finite; one more ends the run with exit code 4."""
    log_every: int = 10
    """Steps between logged points."""
    eval_every: int = 200
    """Steps between validations; one at the start and one at the end in any case."""
    eval_rows: int = 64
    """Validation rows that are used, at most."""
    patience: int | None = None
    """Validations in a row without a lower loss after which the run ends early, with the best checkpoint's model;
    default: it never does.
    """
    checkpoint_every: int = 500
    """Steps between checkpoints; one at the end in any case."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, besides the one with the lowest validation loss. (Steps at which both a
    validation and a checkpoint are due have one.)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"train.{name}={value} must be at least {least}")
        for name in ("hours", "resize_every_s", "hang_s"):
            value = getattr(self, name)
            if not math.isfinite(value or 0):
                raise ValueError(f"train.{name}={value:g} is not a finite number")
            if value is not None and value <= 0 and name != "hang_s":
                raise ValueError(f"train.{name}={value:g} must be above 0")
        for name, share in (self.resources_per_worker or {}).items():
            if not 0 <= share < math.inf:
                raise ValueError(f"train.resources_per_worker.{name}={share:g} must be at least 0")
        if not -(1 << 63) <= self.seed < 1 << 63:
            raise ValueError(f"train.seed={self.seed} does not fit into 64 bits")
        if self.patience is not None and (none := [n for n in ("eval_every", "eval_rows") if not getattr(self, n)]):
            raise ValueError(f"train.patience={self.patience} counts validations, and train.{none[0]}=0 leaves none")
        LossOptions(self.label_smoothing, self.z_loss)  # refuses what it cannot be


@dataclass
class RunConfig:
    name: str | None = None
    """Default: <recipe>-<8 hex of the configuration>. The same name continues an unfinished run."""
    storage_path: str = "./runs"
    """Folder or URL of runs; shared by all nodes of a cluster."""
    fresh: bool = False
    """Start anew even if a run of this name exists (its folder is removed)."""


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


# Settings that change where and how fast a run is, and not what it computes.
_NOT_IDENTITY = (
    "run",
    "tracking",
    "console",
    "cluster",
    "train.num_workers",
    "train.use_gpu",
    "train.resources_per_worker",
    "train.max_failures",
    "train.hang_s",
    "train.resize_every_s",
    "train.exact",
    "train.patience",
    "train.checkpoint_activations",
    "train.checkpoint_every",
    "train.max_skipped",
    "train.log_every",
    "train.keep_checkpoints",
    "data.root",
    "data.unit_bytes",
    "data.plan_epochs",
    "data.max_malformed",
    "data.cache",
    "data.cache_bytes",
)


def identity(recipe: Recipe) -> str:
    """Hex digest of the settings that decide what a run computes."""
    return config_digest(recipe, exclude=_NOT_IDENTITY)


def identity_settings(recipe: Recipe) -> dict[str, str]:
    """The settings behind `identity`, flat, to tell what differs between two runs of one name."""
    flat = flatten(recipe)
    return {
        key: value
        for key, value in flat.items()
        if not any(key == out or key.startswith(f"{out}.") for out in _NOT_IDENTITY)
    }


def run_name(recipe: Recipe, recipe_name: str) -> str:
    """The name of the run's folder. Raises UserError for one that would be another place than a folder of its own."""
    name = recipe.run.name or f"{recipe_name}-{identity(recipe)[:8]}"
    if not re.fullmatch(r"\w[\w.+=-]*", name):
        raise UserError(
            f"run.name={name!r} cannot be a run's name",
            why="it names a folder in run.storage_path: letters, digits and _ . + = -, a letter or digit first",
        )
    return name
