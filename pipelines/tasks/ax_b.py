"""AX-b, broad diagnostics: does one sentence entail the other? Asked as RTE, of the model that was fine-tuned on RTE.

Data: SuperGLUE's AX-b (AX-b.jsonl, 1,104 pairs with labels). Nothing is trained on it.
Paper: Wang et al., SuperGLUE (NeurIPS 2019); patterns and words are RTE's.
Metric: Matthews' correlation, as SuperGLUE's official evaluation.
"""

from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take
from pipelines.tasks import rte
from pipelines.tasks._shared import entailment

VERSION = 1
LABELS = rte.LABELS
METRICS = ("mcc", "accuracy")
PATTERNS = rte.PATTERNS
ZERO_SHOT = True
TAUGHT_BY = "rte"


def item(row: Row) -> Item:
    """The first sentence is the premise."""
    premise, hypothesis, idx = take(row, "sentence1", "sentence2", "idx")
    return Item(id=idx, fields=entailment.fields(premise, hypothesis), gold=row.fields.get("label") or None)
