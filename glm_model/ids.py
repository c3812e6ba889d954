"""Token ids as arrays. What is not a whole number is refused by name: a conversion would cut it off silently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def as_ids(values: Any, name: str) -> np.ndarray:
    """A list or array of whole numbers as int64 [n]. Raises ValueError on anything else, which it calls `name`."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name}: expected whole numbers, the ids of one text: {error}") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{name}: expected whole numbers, the ids of one text, got {got}")
    return array.astype(np.int64)


def check_known(ids: Iterable[int], limit: int, whose: str) -> None:
    """Raise ValueError when an id is not one of 0 .. limit - 1. whose: what holds them, such as "an answer"."""
    ids = list(ids)
    if ids and not 0 <= min(ids) <= max(ids) < limit:
        bad = min(ids) if min(ids) < 0 else max(ids)
        raise ValueError(f"{whose} holds the id {bad}, and ids go from 0 to {limit - 1}: use the model's tokenizer")
