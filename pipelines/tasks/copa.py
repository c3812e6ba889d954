"""COPA: which of two alternatives is the cause, or the effect, of what the premise says?

Data: SuperGLUE's COPA (train.jsonl, val.jsonl, test.jsonl); BSD 2-Clause.
Paper: Roemmele et al. (2011); patterns of Du et al. (ACL 2022), tasks/superglue/pvp.py. The candidates are the
alternatives, each scored whole with its end. Metric: accuracy, as SuperGLUE's official evaluation.
"""

import string

from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
METRICS = ("accuracy",)
PATTERNS = (
    Pattern('"{choice1}" or "{choice2}"? {premise~}{joiner} {mask}.'),
    Pattern("{choice1} or {choice2}? {premise~}{joiner} {mask}."),
)
_JOINERS = {"cause": " because", "effect": ", so"}


def item(row: Row) -> Item:
    """Sentences lose their final mark and the alternatives their capital letter, as they continue the premise; but "I"
    stays "I".
    """
    premise, first, second, question, idx = take(row, "premise", "choice1", "choice2", "question", "idx")
    if question not in _JOINERS:
        raise ValueError(f"question={question!r} is neither cause nor effect")
    choices = (_continuing(first), _continuing(second))
    return Item(
        id=idx,
        fields={
            "premise": _without_end(premise),
            "choice1": choices[0],
            "choice2": choices[1],
            "joiner": _JOINERS[question],
        },
        gold=row.fields.get("label") or None,
        candidates=choices,
    )


def _without_end(sentence: str) -> str:
    return sentence.strip().rstrip(string.punctuation)


def _continuing(sentence: str) -> str:
    sentence = _without_end(sentence)
    is_i = sentence.split(" ")[0].split("'")[0] == "I"
    return sentence if is_i else sentence[:1].lower() + sentence[1:]
