"""Seq2seq: write a text for a text, such as the summary of an article.

Data: yours. Pair files train.source and train.target, or tables with the columns that `task.source` and `task.target`
name; a target may be a JSON list of several right texts, a source one of its sentences.
Paper: summarisation of Du et al. (ACL 2022). The mask stands behind the source; `front` is the form of the authors'
CNN/DM, XSum and Gigaword, which their checkpoints expect. Patterns 2 and 3 have [sMASK] instead, which pretraining
puts in the place of a sentence.
Metrics: ROUGE by rouge-score, BLEU and chrF by sacrebleu, and bits per byte of the right texts.
"""

from collections.abc import Callable, Iterable

from pipelines.questions.config import TaskConfig
from pipelines.questions.generation import generation_of
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Task, take
from pipelines.tasks._shared import texts

VERSION = 1
METRICS = texts.METRICS
READS = ("source", "target", "id")
PATTERN_NAMES = {"append": 0, "front": 1}
PATTERNS = (
    Pattern("{source~} {mask}"),
    Pattern("{mask} Content: {source~}"),
    Pattern("{source~} {smask}"),
    Pattern("{smask} Content: {source~}"),
)


def together(config: TaskConfig) -> tuple[str, ...]:
    """A text that is held out is not learned from with another target."""
    return (config.source,)


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    def item(row: Row) -> Item:
        (source,) = take(row, config.source)
        (name,) = take(row, config.id) if config.id else (str(row.line),)
        return texts.text_item(name, source, row.fields.get(config.target), is_compared="sari" in config.metrics)

    return Task(
        name=config.name,
        version=VERSION,
        kind="generate",
        patterns=PATTERNS,
        item=item,
        train_items=texts.one_for_each,
        metrics=METRICS,
        count_end=True,
        generation=generation_of(config.generation, max_tokens=128),
        baselines=texts.BASELINES,
    )
