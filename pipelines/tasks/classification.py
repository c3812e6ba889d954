"""Texts of your own with a label each, from CSV, TSV, JSON lines or Parquet, by the columns that a recipe names.

Data and licence: yours. The label words and the pattern are settings; without them the names of the labels are the
words. Metric: accuracy, macro_f1 or mcc, by scikit-learn.
"""

from collections.abc import Callable, Iterable

from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Task
from pipelines.tasks._shared import own_files

VERSION = 1


def together(config: TaskConfig) -> tuple[str, ...]:
    """A text that is held out is not learned from with another label."""
    return (config.text,)


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    """See `pipelines.tasks`."""
    patterns = ("{text~} It was {mask}.", "{mask}: {text~}", '"{text~}" In other words, {mask}.')
    return own_files.define(config, rows, version=VERSION, texts=(config.text,), patterns=patterns)
