"""The settings of an evaluation."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from infra.cluster.connect import ClusterConfig
from infra.console import ConsoleConfig
from infra.tracking import TrackingConfig
from pipelines.questions.config import TaskConfig


@dataclass
class EvaluateConfig:
    models: list[str] = field(default_factory=list)
    """Required. Runs, model folders, or checkpoints of runs: runs/a runs/b@step=2000 'runs/c@*' (all checkpoints)."""
    task: TaskConfig = field(default_factory=TaskConfig)
    tasks: list[str] = field(default_factory=list)
    """Several tasks by name, each with its files in a folder of `data`: rte in <data>/rte or <data>/RTE. Default: the
    task of `task.name`, whose files `task.data` names.
    """
    data: str | None = None
    """The folder that holds a folder, or a file, for each of `tasks`."""
    split: str = "dev"
    """What is asked: train, dev, test, or another name of `task.splits`."""
    patterns: str = "default"
    """Which patterns ask: `default` (task.pattern, or else the reference's), `all`, or numbers: 0,3. A table shows each
    pattern by itself, and never picks the best.
    """
    without_context: bool = True
    """Ask again without what was public before, such as RTE's premise or BoolQ's passage: a score that is no lower then
    does not come from reading it.
    """
    limit: Annotated[int, Ge(1)] | None = None
    """Ask so many items alone, drawn by their ids, and those that are judged together with them, such as the answers to
    a question.
    """
    contamination: Literal["auto", "on", "off"] = "auto"
    """Look for what is asked in the cleaned text that the model was trained on. auto: where that is there and has at
    most 4 GB.
    """
    compare: list[str] = field(default_factory=list)
    """Two models that were evaluated: are they told apart by their answers to the same items? By their names, and of
    several seeds by a pattern: 'sst2-seed*' 'cola-seed*'. Asks no model.
    """
    to: str = "runs/evaluations"
    """Folder or URL for the results."""
    num_workers: Annotated[int, Ge(1)] = 1
    """Processes that answer. One works inside this command; more are Ray actors, on the Ray of RAY_ADDRESS or on one
    that is started here.
    """
    use_gpu: bool = False
    """Answer on GPUs, one for each worker."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
