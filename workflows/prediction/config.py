"""The settings of a prediction."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from infra.cluster.connect import ClusterConfig
from infra.console import ConsoleConfig


@dataclass
class PredictConfig:
    model: str = ""
    """Required. A fine-tuned model: its run, its model folder, or a checkpoint of the run: runs/a@step=2000."""
    input: str = ""
    """Required. A file (.csv, .tsv, .jsonl or .parquet, also compressed), a folder or a glob of them, at any URL. Files
    are read in the order of their names.
    """
    to: str = ""
    """Required. Folder or URL for the predictions: Parquet files in the order of the input, and _manifest.json, which
    is written last.
    """
    columns: list[str] | None = None
    """Names of the columns of CSV and TSV files; [] where files have a header. Default: as in the fine-tuning."""
    overlong: Literal["cut", "skip", "error"] = "cut"
    """What becomes of rows longer than the model: cut as the pattern says, left without a label, or refused."""
    max_bad: Annotated[float, Ge(0), Le(1)] = 0.01
    """Share of the rows that may be damaged or lack a field; more of them end the command with exit code 3 before the
    model answers.
    """
    shard_rows: Annotated[int, Ge(1)] = 4096
    """Rows of an output file: a prediction that was stopped loses the answers to fewer than these."""
    num_workers: Annotated[int, Ge(1)] = 1
    """Processes that answer. One works inside this command; more are Ray actors, on the Ray of RAY_ADDRESS or on one
    that is started here.
    """
    use_gpu: bool = False
    """Answer on GPUs, one for each worker."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
