"""The settings of a prediction."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from glm_model.decoding import Decoding
from infra.cluster.connect import ClusterConfig
from infra.console import ConsoleConfig

KindName = Literal["classify", "choose", "score", "fill", "embed"]


@dataclass
class PredictConfig:
    model: str = ""
    """Required. A run, a model folder, or a checkpoint of a run: runs/a@step=2000."""
    input: str = ""
    """Required. A file (.csv, .tsv, .jsonl or .parquet, also compressed), a folder or a glob of them, at any URL. Files
    are read in the order of their names.
    """
    to: str = ""
    """Required. Folder or URL for the predictions: Parquet files in the order of the input, and _manifest.json, which
    is written last.
    """
    kind: KindName | None = None
    """What the model does with a row. classify: give it one of the same labels; choose: take one of its own candidates;
    score: say how likely a text is, or a target behind its context; fill: write into the masks of a text; embed: make a
    vector of a text. Default: what the model was fine-tuned for.
    """
    text: str = "text"
    """The column that holds the text. [MASK], [sMASK] or [gMASK] in it is where the model writes (choose, fill, score
    with `target`).
    """
    pattern: str | None = None
    """A text made of the columns of a row, instead of `text`: '{question~} Answer: {mask}.' Where a text is longer than
    the model, the end of a field with ~ behind its name is cut. Default: a fine-tuned model is asked as it was taught.
    """
    words: dict[str, str] = field(default_factory=dict)
    """Label -> what the model writes for it (classify), where it was not fine-tuned: {bad: terrible, good: great}."""
    candidates: list[str] = field(default_factory=list)
    """The column with a list of the candidates (choose), in text a JSON list; or columns that hold one each."""
    target: str | None = None
    """The column with the text whose log-probability in place of the mask is wanted (score). Default: that of the whole
    text, from left to right.
    """
    decoding: Decoding = field(default_factory=Decoding)
    """How masks are filled (fill)."""
    order: str = "left_to_right"
    """In which order the masks of a text are filled: left_to_right or right_to_left."""
    columns: list[str] | None = None
    """Names of the columns of CSV and TSV files; [] where files have a header. Default: as in the fine-tuning."""
    overlong: Literal["cut", "skip", "error"] = "cut"
    """What becomes of rows longer than the model: cut as the pattern says, left without an answer, or refused."""
    max_bad: Annotated[float, Ge(0), Le(1)] = 0.01
    """Share of the rows that may be damaged or lack a field; more of them end the command with exit code 3 before the
    model answers.
    """
    max_lost: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the files that may be unreadable. The others are answered in any case; then more of them end the command
    with exit code 3.
    """
    shard_rows: Annotated[int, Ge(1)] = 4096
    """Rows of an output file: a prediction that was stopped loses the answers to fewer than these of each worker."""
    batch_positions: Annotated[int, Ge(1)] | None = None
    """Tokens that go through the model at once, padding included: more are faster on a GPU, and take more memory.
    Default: 4,096, and on GPUs 65,536.
    """
    num_workers: Annotated[int, Ge(1)] = 1
    """Processes that answer. One works inside this command; more are Ray actors, on the Ray of RAY_ADDRESS or on one
    that is started here.
    """
    use_gpu: bool = False
    """Answer on GPUs, one for each worker."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
