"""Tables of answered items, as items.parquet has them."""

from typing import Any

import pyarrow as pa

from pipelines.metrics.items import SCHEMA

_DEFAULTS: dict[str, Any] = {"group": "", "joint": "", "question": "?", "candidates": [], "logprobs": [], "tokens": []}


def table(*rows: dict[str, Any]) -> pa.Table:
    """Rows with what is left out: numbers as ids, one right answer."""
    return pa.Table.from_pylist([_row(number, row) for number, row in enumerate(rows)], schema=SCHEMA)


def labelled(gold: list[int], choice: list[int], **columns: list[Any]) -> pa.Table:
    """Items of a task with labels; a choice of -1 is none."""
    several = {name: iter(values) for name, values in columns.items()}
    return table(
        *(
            {"gold": one, "choice": None if other < 0 else other, **{name: next(v) for name, v in several.items()}}
            for one, other in zip(gold, choice, strict=True)
        )
    )


def _row(number: int, given: dict[str, Any]) -> dict[str, Any]:
    return {**_DEFAULTS, "item": str(number), "golds": None, "tied": False, "cut": 0, "reason": None, **given}
