"""SQuAD: answer a question about a passage, in the passage's words; "N/A" where it does not say.

Data: SQuAD 1.1 or 2.0 as it is published (train-v1.1.json, dev-v2.0.json), or rows with `context`, `question` and
`answers`; CC BY-SA 4.0. A passage that is longer than a window is read in several, which overlap by half; how many
words they have follows from `task.generation.max_source`.
Paper: Rajpurkar et al. (EMNLP 2016; ACL 2018); pattern of Du et al. (ACL 2022). As there, a window without the answer
teaches "N/A", and the first window that says something else counts.
Metrics: EM and F1 as the official scripts; questions without an answer also by themselves.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pipelines.questions.config import TaskConfig
from pipelines.questions.generation import NO_ANSWER, generation_of
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Task
from pipelines.tasks._shared import squad

VERSION = 1
METRICS = ("squad_f1", "squad_em", "squad_f1_has_answer", "squad_em_no_answer")
READS = ()
CONTEXT = ("passage",)
PATTERNS = (Pattern("{question} {mask}. {passage~}"),)
find_splits, read = squad.find_splits, squad.read
_TOKENS = 384  # of a context, where the recipe does not say
_WORDS = 0.6  # of a window for each token: words have 1.3 tokens, and the question takes some


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    words = max(int(_WORDS * (config.generation.max_source or _TOKENS)), 2)

    return Task(
        name=config.name,
        version=VERSION,
        kind="generate",
        patterns=PATTERNS,
        item=item,
        unpack=lambda row: _windows(row, words),
        train_items=train_items,
        metrics=METRICS,
        context=CONTEXT,
        count_end=True,
        generation=generation_of(config.generation, max_tokens=64),
    )


def item(row: Row) -> Item:
    """A window of a passage, with the answers to the question, wherever they stand."""
    asked = squad.asked(row)
    passage = row.fields["window"]
    return Item(
        id=f"{asked.id}/{row.fields['number']}",
        fields={"question": asked.question, "passage": passage, "here": row.fields["here"]},
        gold=None if asked.answers is None else "0",
        golds=tuple(range(len(asked.texts))) if len(asked.texts) > 1 else (),
        candidates=() if asked.answers is None else asked.texts or (NO_ANSWER,),
        group=asked.group,
        joint=asked.id,
        source=passage,
    )


def train_items(item: Item) -> Iterator[Item]:
    """What a window says: the first answer that stands in it, or that there is none."""
    yield replace(item, candidates=(item.fields["here"] or NO_ANSWER,), golds=())


def _windows(row: Row, words: int) -> Iterator[Row]:
    """A row for each window of the passage, with what of the answers stands in it."""
    asked = squad.asked(row)
    for number, (begin, end) in enumerate(squad.windows(asked.passage, words)):
        inside = (one for one in asked.answers or () if begin <= one.start and one.start + len(one.text) <= end)
        here = next((one.text for one in inside), "")
        window = {"window": asked.passage[begin:end], "here": here, "number": str(number)}
        yield replace(row, fields={**row.fields, **window})
