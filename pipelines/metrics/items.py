"""items.parquet: what a model answered to every item of a split, from which scores follow without the model.

A row is an item, in the order of ids. Bad rows of the file, and items that could not be asked, come last with their
reason. Nothing in it depends on when, where or in which order it was made; times are in timing.parquet.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pipelines.metrics.choices import count_choices
from pipelines.metrics.metric import recorded

FORMAT = 5
"""Version of the file and of the answers in it; raised where another version's would differ."""
BLANK = pa.struct(
    [
        ("right", pa.string()),  # null: nobody knows
        ("right_tokens", pa.int32()),
        ("written", pa.string()),
        ("tokens", pa.int32()),  # that were written, without the end
        ("ended", pa.bool_()),  # by the model; else cut at the most that it may write
    ]
)
"""A mask of a question of a task that generates."""
SCHEMA = pa.schema(
    [
        ("item", pa.string()),  # its id; of a row that is no item, its file and line
        ("group", pa.string()),
        ("joint", pa.string()),  # of items that are judged together; "": by itself
        ("question", pa.string()),  # as it is shown, with its mask
        ("candidates", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),  # of each candidate, in nats
        ("tokens", pa.list_(pa.int32())),  # how many tokens of each candidate are counted
        ("choice", pa.int32()),  # number of a candidate; null: none
        ("gold", pa.int32()),  # null: not known
        ("golds", pa.list_(pa.int32())),  # all right candidates, where there are several; null: one
        ("words", pa.int32()),  # of the right candidate as its file counts them; null: as its text has
        ("tied", pa.bool_()),  # whether another candidate is exactly as likely as the best one
        ("source", pa.string()),  # what the answer is compared with besides, where a metric does; "": none
        (
            "written",
            pa.string(),
        ),  # what was generated; of several masks the whole text with all of them filled
        ("blanks", pa.list_(BLANK)),  # each mask of what was generated
        ("cut", pa.int32()),  # tokens that the context lacks because it was too long
        ("reason", pa.string()),  # why there is no question; null: there is one
    ]
)


def without_question(rows: Iterable[tuple[str, str, str]]) -> pa.Table:
    """Rows of (item, group, reason)."""
    empty = {name: None for name in SCHEMA.names}
    return pa.Table.from_pylist(
        [{**empty, "item": item, "group": group, "reason": reason} for item, group, reason in rows], schema=SCHEMA
    )


def judged(table: pa.Table) -> pa.Table:
    """The items that were asked and whose gold answer is known."""
    return table.filter(pa.array(is_judged(table)))


def is_judged(table: pa.Table) -> np.ndarray:
    """Whether each item was asked, and its gold answer is known: bool [N]."""
    return table["reason"].is_null().to_numpy() & table["gold"].is_valid().to_numpy()


def group_numbers(table: pa.Table) -> np.ndarray:
    """The number of each item's group, int64 [N], counted from 0 in the order of names; an item without a group is one
    of its own, and items that are judged together are one.
    """
    several = zip(table["group"].to_pylist(), table["joint"].to_pylist(), table["item"].to_pylist(), strict=True)
    names = [group or f"\0{joint or item}" for group, joint, item in several]
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(np.int64)


def confusion(table: pa.Table, classes: int) -> np.ndarray:
    """How often each class was chosen (columns, the last one: none) for each gold one: [K, K + 1] of judged items."""
    gold = table["gold"].to_numpy().astype(np.int64)
    return count_choices(gold, recorded(table), classes)
