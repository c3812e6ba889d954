"""The recipe: one configuration that every workflow reads, each taking the sections that it needs.

So a store and the run that trains on it cannot disagree, and `--print_config` shows everything that decides a result.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from glm_model.train import LossOptions, OptimConfig
from infra import storage, tracking
from infra.cluster import capacity
from infra.cluster.connect import ClusterConfig
from infra.cluster.train_workers import WorkersConfig
from infra.config import Count, config_digest, flatten
from infra.console import ConsoleConfig
from infra.errors import UserError
from infra.tracking import TrackingConfig
from pipelines.blanks.draw import BlanksConfig
from pipelines.config import DataConfig
from pipelines.corpus.sources import local_places
from pipelines.prepare import find_store


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


_TASK = {"CPU": 1.0}  # what a task of a preparation takes

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


def settle_paths(recipe: Recipe, *, in_job: bool) -> None:
    """Make local paths absolute, so that workers mean the same places; inside a Ray job relative ones are refused."""
    places: list[tuple[str, Any, str]] = [
        ("run.storage_path", recipe.run, "storage_path"),
        ("data.root", recipe.data, "root"),
    ]
    if recipe.data.store:
        places.append(("data.store", recipe.data, "store"))
    if recipe.model.init_from:
        places.append(("model.init_from", recipe.model, "init_from"))
    if recipe.data.cache:
        places.append(("data.cache", recipe.data, "cache"))
    if recipe.data.tokenizer.url:
        places.append(("data.tokenizer.url", recipe.data.tokenizer, "url"))
    if in_job and (given := tracking.relative_database(recipe.tracking)):
        raise UserError(
            f"{given} is a relative path",
            why="inside a Ray job it would lie in the job's own folder, which vanishes with the job",
            try_="four slashes and an absolute path, or a tracking server",
        )
    places += [(f"data.sources[{i}].url", s, "url") for i, s in enumerate(recipe.data.sources) if s.url]
    places += [(f"data.mix[{i}].store", member, "store") for i, member in enumerate(recipe.data.mix)]
    exams = recipe.data.select.decontaminate
    places += [(f"data.select.decontaminate[{i}].url", exam, "url") for i, exam in enumerate(exams)]
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


def check_shared(recipe: Recipe) -> None:
    """UserError when a node of a cluster of several does not see a place that all workers of a training need."""
    uri = tracking.resolve_uri(recipe.tracking, recipe.run.storage_path)
    if uri and uri.startswith("sqlite:"):
        raise UserError(
            f"MLflow's database {uri} is a file",
            why="the cluster has several nodes, and SQLite is for the processes of one",
            try_="mlflow server on one of them, and --tracking.uri=http://...; or --tracking.enabled=false",
        )
    written = {"run.storage_path": recipe.run.storage_path, "data.root": recipe.data.root}
    read = {
        "data.store": recipe.data.store,
        "data.tokenizer.url": recipe.data.tokenizer.url,
        "model.init_from": recipe.model.init_from,
    }
    read |= {f"data.mix[{i}].store": member.store for i, member in enumerate(recipe.data.mix)}
    for key, place in {**written, **read}.items():
        if not place or not storage.is_local(place):
            continue
        if blind := (capacity.nodes_without if key in written else capacity.nodes_blind_to)(place):
            raise _not_shared(f"{key}={place}", blind, f"a folder that all nodes share, or a URL: --{key}=s3://...")


def check_shared_data(recipe: Recipe) -> None:
    """UserError when a preparation is to run on several nodes of the connected Ray, and one that it may use does not
    see where it writes, or what it has to read: sources that a finished store holds are read no more.
    """
    data = recipe.data
    if data.store or data.mix or not capacity.several_nodes(_TASK, False):
        return
    if storage.is_local(data.root) and (blind := capacity.nodes_without(data.root, only=_TASK)):
        try_ = "a folder that all nodes share, or a URL: --data.root=s3://..."
        raise _not_shared(f"data.root={data.root}", blind, try_)
    local = local_places(data.sources)
    if not local or find_store(data, recipe.blanks):
        return
    for index, files in local.items():
        for file in files:
            if blind := capacity.nodes_blind_to(file, only=_TASK):
                source = data.sources[index]
                told = f"data.sources[{index}].url={source.url}" if source.url else f"the source {source.reader!r}"
                try_ = "a folder that all nodes have at the same path (a network file system does), or a URL: s3://..."
                raise _not_shared(told, blind, try_, sees=file)


def _not_shared(told: str, blind: list[str], try_: str, *, sees: str = "it") -> UserError:
    return UserError(
        f"{told} is a place of this machine only",
        why=f"{len(blind)} other node(s) do not see {sees}: {', '.join(blind[:4])}",
        try_=try_,
    )
