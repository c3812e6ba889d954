"""Pairs of texts of your own with a label each, from CSV, TSV, JSON lines or Parquet, by the columns of a recipe.

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
    """Texts that are held out are not learned from with another label."""
    return (config.text, config.second)


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    """See `pipelines.tasks`."""
    patterns = ('"{second~}"? {mask}, "{text~}"', "{text~} {second~} {mask}.")
    texts = (config.text, config.second)
    return own_files.define(config, rows, version=VERSION, texts=texts, patterns=patterns)
