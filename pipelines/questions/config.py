"""The settings that name a task and its data. Light: a recipe is read without pyarrow."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt


@dataclass
class GenerationConfig:
    """How an answer is written that is a text. What is not given is as a fine-tuned model was taught."""

    max_source: Annotated[int, Ge(8)] | None = None
    """Tokens of the text that is shown, with the words of the pattern: longer ones are cut as the pattern says, and
    counted. Default: as many as the model has positions.
    """
    max_tokens: Annotated[int, Ge(1)] | None = None
    """Tokens that the model writes into a mask at most. A longer target is cut where it is learned, and counted.
    Default: the task's.
    """
    min_tokens: Annotated[int, Ge(0)] | None = None
    """Tokens that it writes at least. Default: 1."""
    beams: Annotated[int, Ge(1)] | None = None
    """1, the default, writes the likeliest token each time; more keep so many beginnings."""
    length_penalty: Annotated[float, Ge(0)] | None = None
    """Beams are ranked by log p / tokens ** length_penalty. Default: 1."""
    no_repeat_ngram: Annotated[int, Ge(0)] | None = None
    """No n tokens in a row occur twice in what is written; 0, the default, allows it."""


@dataclass
class BlanksConfig:
    """Which words of a text become blanks (infilling), where it has no [MASK] of its own."""

    ratio: Annotated[float, Gt(0), Lt(1)] = 0.3
    """Share of the words that are drawn; those that stand side by side become one blank."""
    seed: int = 0
    """Random seed. What is drawn follows from it and the text."""
    draws: Annotated[int, Ge(1)] = 1
    """How often the words of a text are drawn that is learned from: each time it is an item of its own."""


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
    source: str = "source"
    """The column that holds what is shown (seq2seq): a text, or a JSON list of its sentences."""
    target: str = "target"
    """The column that holds what is to be written (seq2seq): a text, or a JSON list of several right ones."""
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
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    blanks: BlanksConfig = field(default_factory=BlanksConfig)
    overlong: Literal["cut", "skip", "error"] = "cut"
    """What becomes of items longer than the model: cut as the pattern says, left out with a reason, or refused."""
    max_bad: float = 0.01
    """Share of a split's rows that may be no item; more of them end the command with exit code 3."""
