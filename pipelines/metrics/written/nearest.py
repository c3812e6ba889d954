"""What is written beside its right texts: of several of them the nearest counts."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa


def nearest(items: pa.Table, likeness: Callable[[str, str], float]) -> np.ndarray:
    """How like what is written is to the nearest right text, [N]. likeness: of (right, written); NaN where it cannot
    say, which does not count while another right text can be compared.
    """
    rows = items.select(["candidates", "written"]).to_pylist()
    return np.array([_best([likeness(right, row["written"]) for right in row["candidates"]]) for row in rows])


def _best(values: list[float]) -> float:
    return max((value for value in values if value == value), default=np.nan)
