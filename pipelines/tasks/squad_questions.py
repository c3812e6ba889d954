"""Questions of SQuAD: ask what a part of a passage answers.

Data: as for the task `squad`. Questions that the passage does not answer are left out: there is nothing to ask for. Of
a long passage the part around the answer is shown; its number of words follows from `task.generation.max_source`.
Paper: Du et al. (ACL 2017); pattern of Du et al. (ACL 2022). Metrics: BLEU and chrF by sacrebleu, ROUGE-L.
"""

from collections.abc import Callable, Iterable, Iterator

from pipelines.questions.config import TaskConfig
from pipelines.questions.generation import generation_of
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Task
from pipelines.tasks._shared import squad

VERSION = 1
METRICS = ("sacrebleu", "rougeL", "chrf", "bits_per_byte")
READS = ()
CONTEXT = ("passage",)
PATTERNS = (Pattern("{passage~} Question: {mask} Answer: {answer}"),)
find_splits, read = squad.find_splits, squad.read
_TOKENS = 384  # of a context, where the recipe does not say
_WORDS = 0.6  # of a part for each token: words have 1.3 tokens, and the answer takes some


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    words = max(int(_WORDS * (config.generation.max_source or _TOKENS)), 2)

    def item(row: Row) -> Item:
        asked = squad.asked(row)
        if not asked.answers:
            raise ValueError("a question without an answer: there is nothing to ask for")
        answer = asked.answers[0]
        passage = squad.around(asked.passage, answer.start, answer.start + len(answer.text), words)
        return Item(
            id=asked.id,
            fields={"passage": passage, "answer": answer.text},
            gold="0",
            candidates=(asked.question,),
            group=asked.group,
        )

    return Task(
        name=config.name,
        version=VERSION,
        kind="generate",
        patterns=PATTERNS,
        item=item,
        unpack=_answered,
        metrics=METRICS,
        context=CONTEXT,
        count_end=True,
        generation=generation_of(config.generation, max_tokens=48),
    )


def _answered(row: Row) -> Iterator[Row]:
    """Nothing of a question that the passage does not answer."""
    if squad.asked(row).answers != ():
        yield row
