"""BoolQ: is the answer to a question about a passage yes, or no?

Data: SuperGLUE's BoolQ (train.jsonl, val.jsonl, test.jsonl); CC BY-SA 3.0.
Paper: Clark et al. (NAACL 2019); patterns and words of Du et al. (ACL 2022), tasks/superglue/pvp.py.
Metric: accuracy, as SuperGLUE's official evaluation. Passages of one article are a group.
"""

from pipelines.document import content_key
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
LABELS = ("false", "true")
CONTEXT = ("passage",)
DEFAULT_PATTERN = 4
PATTERNS = tuple(
    Pattern(text, words)
    for text in (
        "{passage~} Question: {question~}? Answer: {mask}.",
        "{passage~} Based on the previous passage, {question~}? {mask}.",
        "Based on the following passage {question~}? {mask}. {passage~}",
    )
    for words in ({"false": "No", "true": "Yes"}, {"false": "false", "true": "true"})
)


def item(row: Row) -> Item:
    """A passage begins with the title of its article: "Title -- Text"."""
    passage, question, idx = take(row, "passage", "question", "idx")
    title, mark, _ = passage.partition(" -- ")
    return Item(
        id=idx,
        fields={"passage": passage, "question": question.rstrip().rstrip("?")},
        gold=row.fields.get("label") or None,
        group=title if mark else f"{content_key(passage):016x}",
    )
