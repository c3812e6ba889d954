"""The files that SuperGLUE's leaderboard takes: one for each task, an answer to each item of its test split."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

FILES: Mapping[str, str] = {
    "boolq": "BoolQ.jsonl",
    "cb": "CB.jsonl",
    "copa": "COPA.jsonl",
    "multirc": "MultiRC.jsonl",
    "record": "ReCoRD.jsonl",
    "rte": "RTE.jsonl",
    "wic": "WiC.jsonl",
    "wsc": "WSC.jsonl",
    "ax_b": "AX-b.jsonl",
    "ax_g": "AX-g.jsonl",
}
"""Task -> its file."""


def submission(task: str, items: pa.Table, *, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a task's file, in the order of items. items: as items.parquet has them; labels: of the task.

    Raises ValueError where an item has no answer: the leaderboard wants one for each.
    """
    rows = items.select(["item", "candidates", "choice", "reason"]).to_pylist()
    if missing := [row for row in rows if row["reason"] is not None or row["choice"] is None]:
        raise ValueError(f"{len(missing):,} of {len(rows):,} items have no answer, such as {missing[0]['item']}")
    if task == "multirc":
        return _by_passage(rows)
    return [_line(task, row, labels) for row in rows]


def _line(task: str, row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    number = int(row["item"].rpartition("/")[2])
    if task == "copa":
        return {"idx": number, "label": row["choice"]}
    if task == "record":
        return {"idx": number, "label": row["candidates"][row["choice"]]}
    label = labels[int(row["choice"])]
    return {"idx": number, "label": label.capitalize() if task == "wsc" else label}


def _by_passage(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    passages: dict[int, dict[int, list[dict[str, int]]]] = {}
    for row in rows:
        passage, question, answer = map(int, row["item"].split("/"))
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": row["choice"]})
    return [
        {
            "idx": passage,
            "passage": {"questions": [{"idx": one, "answers": answers} for one, answers in questions.items()]},
        }
        for passage, questions in passages.items()
    ]
