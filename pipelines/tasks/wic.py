"""WiC: does a word have one meaning in two sentences?

Data: SuperGLUE's WiC (train.jsonl, val.jsonl, test.jsonl); CC BY-NC 4.0.
Paper: Pilehvar and Camacho-Collados (NAACL 2019); patterns and words of Du et al. (ACL 2022), tasks/superglue/pvp.py.
They show the word as the file gives it, so where it stands in the sentences plays no part.
Metric: accuracy, as SuperGLUE's official evaluation.
"""

from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
LABELS = ("false", "true")
DEFAULT_PATTERN = 1
_YES_NO = {"false": "No", "true": "Yes"}
PATTERNS = (
    Pattern('"{sentence1~}" / "{sentence2~}" Similar sense of "{word}"? {mask}.', _YES_NO),
    Pattern("{sentence1~} {sentence2~} Does {word} have the same meaning in both sentences? {mask}", _YES_NO),
    Pattern('{word} . Sense (1) (a) "{sentence1~}" ({mask}) "{sentence2}"', {"false": "2", "true": "b"}),
)


def item(row: Row) -> Item:
    first, second, word, idx = take(row, "sentence1", "sentence2", "word", "idx")
    return Item(
        id=idx,
        fields={"sentence1": first, "sentence2": second, "word": word},
        gold=row.fields.get("label") or None,
    )
