"""items.parquet: what a model answered to every item of a split, from which scores follow without the model.

A row is an item, in the order of ids. Bad rows of the file, and items that could not be asked, come last with their
reason. Nothing in it depends on when, where or in which order it was made; times are in timing.parquet.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pipelines.metrics.choices import count_choices

SCHEMA = pa.schema(
    [
        ("item", pa.string()),  # its id; of a row that is no item, its file and line
        ("group", pa.string()),
        ("question", pa.string()),  # as it is shown, with its mask
        ("candidates", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),  # of each candidate, in nats
        ("tokens", pa.list_(pa.int32())),  # how many tokens of each candidate are counted
        ("choice", pa.int32()),  # number of a candidate; null: none
        ("gold", pa.int32()),  # null: not known
        ("tied", pa.bool_()),  # whether another candidate is exactly as likely as the best one
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


def gold_and_choice(table: pa.Table, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Both int64 [N], of judged items; a choice of -1 is none.

    classes: of the task. 0: items have candidates of their own, whose numbers mean nothing across items; what counts is
    whether the choice was right: gold is 1, and the choice 1 or 0.
    """
    gold = table["gold"].to_numpy().astype(np.int64)
    choice = table["choice"].fill_null(-1).to_numpy().astype(np.int64)
    return (gold, choice) if classes else (np.ones_like(gold), (gold == choice).astype(np.int64))


def group_counts(table: pa.Table, classes: int) -> np.ndarray:
    """Counts of choices [G, K, K + 1] of each group of judged items; an item without a group is one of its own."""
    gold, choice = gold_and_choice(table, classes)
    names = [group or f"\0{row}" for row, group in enumerate(table["group"].to_pylist())]
    found, numbers = np.unique(np.array(names, dtype=object), return_inverse=True)
    size = classes or 2
    counts = np.zeros((len(found), size, size + 1), np.int64)
    for number, one, other in zip(numbers, gold, choice, strict=True):
        counts[number, one, other if other >= 0 else size] += 1
    return counts


def all_counts(table: pa.Table, classes: int) -> np.ndarray:
    """Counts of choices [K, K + 1] of all judged items."""
    return count_choices(*gold_and_choice(table, classes), classes or 2)
