"""BLiMP: is the grammatical sentence of a minimal pair more probable than the other, each read from left to right?

Data: one JSON lines file of pairs; CC BY. Paper: Warstadt et al., BLiMP (TACL 2020).
Metric: accuracy over all pairs, and by paradigm (the group). A pair whose sentences are equal cannot be decided and
counts as wrong: 4 of the 33,500 even pairs.
"""

from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
KIND = "read"
ZERO_SHOT = True
PATTERNS = (Pattern("{gmask}"),)


def item(row: Row) -> Item:
    """The good sentence is the first candidate."""
    good, bad, paradigm, pair = take(row, "sentence_good", "sentence_bad", "UID", "pairID")
    return Item(id=f"{paradigm}/{pair}", fields={}, gold="0", candidates=(good, bad), group=paradigm)
