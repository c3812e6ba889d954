"""WSC, the Winograd schema challenge: does a pronoun refer to a given span? The model writes what it refers to.

Data: SuperGLUE's WSC (train.jsonl, val.jsonl, test.jsonl); CC BY 4.0. Rows may have `candidates`, other spans, as those
that the authors trained on (they did not publish them).
Paper: Levesque et al. (KR 2012); patterns of Du et al. (ACL 2022), tasks/superglue/pvp.py. As there, the answer is true
where the model writes the span, token by token the likeliest; among candidates, where the span is the likeliest per
token. True rows alone are learned from: the span is what is to be written. Rows of one text are a group.
Metric: accuracy, as SuperGLUE's official evaluation.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from pipelines.document import content_key
from pipelines.questions.nested import nested, part
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
KIND = "write"
LABELS = ("false", "true")
DEFAULT_PATTERN = 2
COUNT_END = True
PATTERNS = (
    Pattern("{text~} The pronoun '*{pronoun}*' refers to {mask}."),
    Pattern("{text~} In the previous sentence, the pronoun '*{pronoun}*' refers to {mask}."),
    Pattern("{text~} Question: In the passage above, what does the pronoun '*{pronoun}*' refer to? Answer: {mask}."),
)
_OTHERS = 9  # candidates beside the span that an item is trained with, as in the authors' code


def item(row: Row) -> Item:
    """Where the span stands plays no part, so it is not checked. Raises ValueError where the pronoun stands neither at
    its index nor beside it.
    """
    text, idx = take(row, "text", "idx")
    span, pronoun, place = part(nested(row, "target", dict), "span1_text", "span2_text", "span2_index", of="the target")
    others = nested(row, "candidates", list) if row.fields.get("candidates") else []
    texts = [str(one["text"] if isinstance(one, dict) and "text" in one else one) for one in others]
    return Item(
        id=idx,
        fields={"text": _marked(text, str(pronoun), place), "pronoun": str(pronoun)},
        gold=row.fields.get("label") or None,
        candidates=tuple(dict.fromkeys((str(span), *texts))),
        group=f"{content_key(text):016x}",
    )


def train_items(item: Item) -> Iterator[Item]:
    """Nothing of a false row; of a true one with many candidates an item for every nine of them."""
    if item.gold != "true":
        return
    span, *others = item.candidates
    if len(others) <= _OTHERS:
        yield item
        return
    for first in range(0, len(others), _OTHERS):
        some = others[first : first + _OTHERS]
        full = some + others[: _OTHERS - len(some)]
        yield replace(item, id=f"{item.id}/{first}", candidates=(span, *full))


def _marked(text: str, pronoun: str, place: object) -> str:
    """The text with asterisks around the pronoun, which is the word of this number or one beside it."""
    words = list(re.finditer(r"\S+", text))
    if not isinstance(place, int) or isinstance(place, bool):
        raise ValueError(f"span2_index: expected a number, got {json.dumps(place)}")
    form = re.compile(rf"\W*?({re.escape(pronoun)})(?!\w)", re.IGNORECASE)
    for near in (place, place - 1, place + 1):
        found = form.match(text, words[near].start(), words[near].end()) if 0 <= near < len(words) else None
        if found:
            return f"{text[: found.start(1)]}*{found[1]}*{text[found.end(1) :]}"
    at = repr(words[place].group()) if 0 <= place < len(words) else f"none of {len(words)} words"
    raise ValueError(f"span2_index={place} points at {at}: expected the pronoun {pronoun!r} there or one word beside")
