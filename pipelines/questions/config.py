"""The settings that name a task and its data. Light: a recipe is read without pyarrow."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TaskConfig:
    name: str = "classification"
    """A task of pipelines/tasks, or an importable module of your own. `classification` and `pair_classification` take
    your own files.
    """
    data: str | None = None
    """A folder with a file for each split (train, dev or val, test), or one file: .csv, .tsv, .jsonl or .parquet, also
    compressed. One file is cut by what its rows hold.
    """
    splits: dict[str, str] = field(default_factory=dict)
    """Split -> file, where their names do not say it: {train: a.csv, dev: b.csv}. Relative ones lie in `data`."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 8.0, "dev": 1.0, "test": 1.0})
    """How one file is cut."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of CSV and TSV files without a header."""
    text: str = "text"
    """The column that holds the text (own files)."""
    second: str = "text2"
    """The column with the second text of a pair (pair_classification)."""
    label: str = "label"
    """The column that holds the label (own files)."""
    id: str | None = None
    """A column of unique ids. Default: the number of the line (own files)."""
    words: dict[str, str] = field(default_factory=dict)
    """Label -> what the model writes for it, in the order of classes: {0: terrible, 1: great}. Default: made of the
    labels that the data has, where those are words (own files).
    """
    pattern: str | None = None
    """The number of one of the task's patterns, or one of your own: '{text~} It was {mask}.' shows the column `text`,
    whose end may be cut, and where the model writes. Default: the reference's.
    """
    head: bool = False
    """Answer by a classification head instead of writing into the mask: the ablation of the paper, for fine-tuning. It
    reads the fields of the pattern without the words between them, or a pattern of your own without a mask:
    '{premise~}{|}{hypothesis~}'. It needs no label words.
    """
    metrics: list[str] = field(default_factory=list)
    """accuracy, macro_f1, mcc, f1a and others of docs/tasks.md; the first one selects. Default: the task's."""
    overlong: Literal["cut", "skip", "error"] = "cut"
    """What becomes of items longer than the model: cut as the pattern says, left out with a reason, or refused."""
    max_bad: float = 0.01
    """Share of a split's rows that may be no item; more of them end the command with exit code 3."""
