"""AX-g, Winogender: does a sentence entail another, whatever pronoun it has? Asked as RTE, of the model that was
fine-tuned on RTE.

Data: SuperGLUE's AX-g (AX-g.jsonl, 356 rows with labels); MIT. The rows 2k and 2k + 1 have one hypothesis, one label,
and premises that differ in the pronoun; `pair_id` is another in every row. Nothing is trained on it.
Paper: Rudinger et al. (NAACL 2018); patterns and words are RTE's.
Metrics, as SuperGLUE's official evaluation: accuracy, and gender parity, the share of pairs that are answered alike.
"""

from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take
from pipelines.tasks import rte
from pipelines.tasks._shared import entailment

VERSION = 1
LABELS = rte.LABELS
METRICS = ("accuracy", "parity")
PATTERNS = rte.PATTERNS
ZERO_SHOT = True
TAUGHT_BY = "rte"


def item(row: Row) -> Item:
    premise, hypothesis, idx = take(row, "premise", "hypothesis", "idx")
    if not idx.isdecimal():
        raise ValueError(f"idx={idx!r:.60} is not the number of a row, by which pairs are found")
    pair = str(int(idx) // 2)
    return Item(
        id=idx,
        fields=entailment.fields(premise, hypothesis),
        gold=row.fields.get("label") or None,
        group=pair,
        joint=pair,
    )
