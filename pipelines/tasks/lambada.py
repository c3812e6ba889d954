"""LAMBADA: which word ends a passage? The model writes it, token by token the likeliest.

Data: JSON lines with `text` (OpenAI's form keeps case and quotes); CC BY 4.0. Nothing is trained on it.
Paper: Paperno et al. (ACL 2016); form of Du et al. (ACL 2022): the last word, as white space parts words, with all that
hangs on it. The end behind it is not asked for. Metrics: accuracy of greedy writing, and bits of the word, which tell
models apart that get none right.
"""

import re

from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row, kind_of
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Item, take

VERSION = 1
KIND = "write"
METRICS = ("accuracy", "bits")
COUNT_END = False
ZERO_SHOT = True
PATTERNS = (Pattern("{~before}{gmask}"), Pattern("{~before}{mask}"))
_LAST_WORD = re.compile(r"\s(\S+)\s*$")


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, kind_of)


def item(row: Row) -> Item:
    (text,) = take(row, "text")
    last = _LAST_WORD.search(text)
    if last is None or not text[: last.start()].strip():
        raise ValueError(f"the text {text!r:.60} needs two words: one to be asked for, and one before it")
    before, word = text[: last.start(1)].lstrip(), last[1]
    return Item(id=str(row.line), fields={"before": before}, gold="0", candidates=(word,))
