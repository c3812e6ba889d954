"""The recipe: one configuration that every workflow reads, each taking the sections that it needs.

So a store and the run that trains on it cannot disagree, and `--print_config` shows everything that decides a result.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from glm_model.train import OptimConfig
from infra import storage
from infra.cluster import ClusterConfig
from infra.config import Count, config_digest, flatten
from infra.console import ConsoleConfig
from infra.errors import UserError
from infra.ray_train import WorkersConfig
from infra.tracking import TrackingConfig
from pipelines.blanks import BlanksConfig
from pipelines.data_config import DataConfig


@dataclass
class ModelConfig:
    size: str = "tiny"
    """tiny, mini, base, large, 410m, 515m, 2b or 10b."""
    positions: int | None = None
    """Rows of the position tables; default: data.sequence_length."""
    dropout: float = 0.1
    """On embeddings, attention and the outputs of both sublayers."""


@dataclass
class TrainConfig(WorkersConfig):
    tokens: Count | None = None
    """Source tokens to train on."""
    steps: int | None = None
    """Optimizer steps; given, they decide and not the tokens."""
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
    log_every: int = 10
    """Steps between logged points."""
    eval_every: int = 200
    """Steps between validations; one at the start and one at the end in any case."""
    eval_rows: int = 64
    """Validation rows that are used, at most."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one at the end in any case."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, besides the best."""


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
    "train.log_every",
    "train.keep_checkpoints",
    "data.root",
    "data.unit_bytes",
    "data.plan_epochs",
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
    return recipe.run.name or f"{recipe_name}-{identity(recipe)[:8]}"


def settle_paths(recipe: Recipe, *, in_job: bool) -> None:
    """Make local paths absolute, so that workers mean the same places; inside a Ray job relative ones are refused."""
    places: list[tuple[str, Any, str]] = [
        ("run.storage_path", recipe.run, "storage_path"),
        ("data.root", recipe.data, "root"),
    ]
    if recipe.data.store:
        places.append(("data.store", recipe.data, "store"))
    if recipe.data.tokenizer.url:
        places.append(("data.tokenizer.url", recipe.data.tokenizer, "url"))
    places += [(f"data.sources[{i}].url", s, "url") for i, s in enumerate(recipe.data.sources) if s.url]
    for key, owner, name in places:
        value = getattr(owner, name)
        absolute = storage.absolute(value)
        if in_job and absolute != value and not value.startswith("file:"):
            raise UserError(
                f"{key}={value} is a relative path",
                why="inside a Ray job it would lie in the job's own folder, which vanishes with the job",
                try_="an absolute path or URL that all nodes can reach, for example "
                f"--{key.split('[')[0]}=/shared/{value.removeprefix('./')}",
            )
        setattr(owner, name, absolute)
