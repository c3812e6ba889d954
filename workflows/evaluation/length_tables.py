"""Tables of the lengths of what was generated, for the page of an evaluation."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipelines.metrics.written.lengths import lengths


def length_tables(items: pa.Table, table: Callable[[Sequence[str], Sequence[Sequence[object]]], str]) -> str:
    """HTML: how many texts the model did not end, how often each length comes, and how well lengths fit. table: makes
    HTML of columns and rows.
    """
    found = lengths(items)
    if found is None:
        return ""
    share = 100 * found.without_end / found.blanks
    told = (
        f"<p>{found.without_end:,} of {found.blanks:,} texts ({share:.1f} %) have no end of the model's: they were cut "
        "at the most tokens that it may write.</p>"
    )
    counts = [[one.tokens, one.written, one.right] for one in found.histogram]
    told += f"<details><summary>Lengths in tokens</summary>{table(['tokens', 'written', 'right'], counts)}</details>"
    if not found.calibration:
        return told
    rows = [
        [one.tokens, one.n, f"{one.right:.1f}", f"{one.written:.1f}", f"{one.equal:.1f}"] for one in found.calibration
    ]
    columns = ["right length", "n", "mean right length", "mean written length", "equal, %"]
    return f"{told}<h3>Lengths that are written, for each right length</h3>{table(columns, rows)}"
