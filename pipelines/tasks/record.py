"""ReCoRD: which of the entities that a passage names belongs in the gap of a query?

Data: SuperGLUE's ReCoRD (train.jsonl, val.jsonl, test.jsonl: a passage with its queries in a row); Apache 2.0.
Paper: Zhang et al. (2018); pattern of Du et al. (ACL 2022), tasks/superglue/pvp.py. Candidates are the entities, each
spelling once, scored whole with their end; ends of spans are inclusive.
Metrics, as ReCoRD's official script: exact match and F1 of words, each with the nearest of the right answers.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipelines.document import content_key
from pipelines.questions.nested import nested, part, part_of_row, parts
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
CONTEXT = ("passage",)
METRICS = ("f1", "em")
PATTERNS = (Pattern("{passage~} {before}{mask}{behind}"),)
_GAP = "@placeholder"
_WRONG = 9  # candidates beside the right one that an item is trained with, as in the authors' code


def unpack(row: Row) -> Iterator[Row]:
    """A row for each query about the passage, with the texts of entities and answers."""
    (number,) = take(row, "idx")
    passage = nested(row, "passage", dict)
    (text,) = part(passage, "text", of="the passage")
    entities = [_entity(text, span) for span in parts(passage, "entities", of="the passage")]
    for asked in nested(row, "qas", list):
        query, query_number = part(asked, "query", "idx", of="a query")
        answers = asked.get("answers") or []
        yield part_of_row(
            row,
            passage=text.replace("@highlight\n", "- "),
            query=query,
            entities=[*dict.fromkeys(entities)],
            answers=[part(answer, "text", of=f"an answer to the query {query_number}")[0] for answer in answers],
            idx=f"{number}/{query_number}",
        )


def item(row: Row) -> Item:
    """Raises ValueError for a query without its gap, and for an answer that is none of the entities."""
    passage, query, idx = take(row, "passage", "query", "idx")
    entities, answers = nested(row, "entities", list), nested(row, "answers", list)
    before, gap, behind = query.partition(_GAP)
    if not gap or _GAP in behind:
        raise ValueError(f"the query {query!r:.60} needs {_GAP} once, which stands for the answer")
    if unknown := [answer for answer in answers if answer not in entities]:
        where = "an entity of the passage" if unknown[0] in passage else "found in the passage"
        raise ValueError(f"the answer {unknown[0]!r:.60} is not {where}")
    golds = tuple(dict.fromkeys(entities.index(answer) for answer in answers))
    return Item(
        id=idx,
        fields={"passage": passage, "before": f"{before.rstrip()} " if before.strip() else "", "behind": behind},
        gold=str(golds[0]) if golds else None,
        golds=golds if len(golds) > 1 else (),
        candidates=tuple(entities),
        group=idx.rpartition("/")[0],
    )


def train_items(item: Item) -> Iterator[Item]:
    """An item for each right answer, with at most nine wrong ones, drawn by its id."""
    golds = item.golds or (int(item.gold or 0),)
    right = [item.candidates[number] for number in golds]
    wrong = [name for name in item.candidates if name not in right]
    drawn = sorted(wrong, key=lambda name: content_key(f"{item.id} {name}"))[:_WRONG]
    chosen = [name for name in wrong if name in drawn]
    for gold in golds:
        candidates = (item.candidates[gold], *chosen)
        yield replace(item, id=f"{item.id}/{gold}", gold="0", golds=(), candidates=candidates)


def _entity(passage: str, span: object) -> str:
    start, end = part(span, "start", "end", of="an entity")
    if not 0 <= start <= end < len(passage):
        raise ValueError(f"an entity from {start} to {end} lies outside the passage of {len(passage):,} characters")
    return passage[start : end + 1]
