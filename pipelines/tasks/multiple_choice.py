"""Multiple choice of other data sets, in the forms in which they are published: which candidate answers a question?

Data: JSON lines; licence: theirs. A row has one of

    {"query", "choices": [text, ...], "gold": number}                               llm-foundry
    {"inputs_pretokenized", "choices_pretokenized": [text, ...], "label": number}   Du et al. (ACL 2022); a [MASK] may
                                                                                    stand anywhere in the input
    {"question", "choices": {"label": [...], "text": [...]}, "answerKey": label}    ARC, CommonsenseQA

Metric: accuracy; by the sum of log p, per token, and per byte of the candidate. Equal candidates are right together.
"""

from typing import Any

from pipelines.questions.nested import nested, part
from pipelines.questions.rows import Row, kind_of
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Item, take
from pipelines.tasks._shared import multiple_choice

VERSION = 1
COUNT_END = False
METRICS = multiple_choice.METRICS
PATTERNS = multiple_choice.PATTERNS
_MASKS = ("[MASK]", "[sMASK]", "[gMASK]")


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, kind_of)


def item(row: Row) -> Item:
    """Raises ValueError for a row of none of these forms."""
    number = row.fields.get("id") or str(row.line)
    if "query" in row.fields:
        (query,) = take(row, "query")
        gold = multiple_choice.number(row.fields.get("gold", ""), of="gold")
        return multiple_choice.item(number, _asked(query), _texts(nested(row, "choices", list)), gold)
    if "inputs_pretokenized" in row.fields:
        (text,) = take(row, "inputs_pretokenized")
        mask = next((mask for mask in _MASKS if mask in text), "")
        before, _, behind = text.partition(mask) if mask else (text.rstrip(), "", "")
        candidates = _texts(nested(row, "choices_pretokenized", list))
        gold = multiple_choice.number(row.fields.get("label", ""))
        return multiple_choice.item(number, before, candidates, gold, behind=behind)
    question, key = take(row, "question", "answerKey")
    names, texts = part(nested(row, "choices", dict), "label", "text", of="choices")
    if key and key not in names:
        raise ValueError(f"answerKey={key!r:.40} is not one of the choices {', '.join(map(str, names))}")
    return multiple_choice.item(
        number, _asked(f"Question: {question.strip()}"), _texts(texts), names.index(key) if key else None
    )


def _asked(query: str) -> str:
    query = query.rstrip()
    return f"{query}\nAnswer:" if query.startswith("Question:") else query


def _texts(choices: list[Any]) -> list[str]:
    return [str(choice) for choice in choices]
