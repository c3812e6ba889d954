"""Questions and their answers as rows of items.parquet, which metrics read."""

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from pipelines.metrics.items import SCHEMA
from pipelines.questions.question import Question
from workflows.answering.answers import Answer
from workflows.answering.writing import WRITTEN, right_texts, written_columns

_ANSWER = ("logprobs", "tokens", "choice", "tied")
_ANSWERS = pa.schema([*(SCHEMA.field(name) for name in _ANSWER), ("written", pa.list_(WRITTEN))])


def answer_table(answers: Sequence[Answer]) -> pa.Table:
    """What answers hold, a row each."""
    rows = [
        {
            "logprobs": one.logprobs,
            "tokens": one.tokens,
            "choice": one.choice,
            "tied": one.is_tied,
            "written": [asdict(part) for part in one.written],
        }
        for one in answers
    ]
    return pa.Table.from_pylist(rows, schema=_ANSWERS)


def item_rows(questions: Sequence[Question], answers: pa.Table) -> pa.Table:
    """All columns. answers: as `answer_table` gives them, in the order of the questions."""
    columns = {
        "item": [one.item.id for one in questions],
        "group": [one.item.group for one in questions],
        "joint": [one.item.joint for one in questions],
        "question": [one.text for one in questions],
        "candidates": [right_texts(one) for one in questions],
        "gold": [one.gold for one in questions],
        "golds": [one.item.golds or None for one in questions],
        "words": [one.item.words for one in questions],
        "source": [one.item.source for one in questions],
        **written_columns(questions, answers["written"].to_pylist()),
        "cut": [one.cut for one in questions],
        "reason": [None] * len(questions),
        **{name: answers[name] for name in _ANSWER},
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
