"""Token ids as arrays: refused by name where they are no whole numbers, which a conversion would cut off silently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def as_ids(values: Any, name: str) -> np.ndarray:
    """int64 [n] of a list or array of whole numbers. Raises ValueError on anything else, with `name` as its subject."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} must be whole numbers, the ids of one text: {error}") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be whole numbers, the ids of one text; not {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


def check_known(ids: Iterable[int], limit: int, whose: str) -> None:
    """Raise ValueError when an id is not one of 0 .. limit - 1; whose: `an answer`, `stop`, ..."""
    ids = list(ids)
    if ids and not 0 <= min(ids) <= max(ids) < limit:
        bad = min(ids) if min(ids) < 0 else max(ids)
        raise ValueError(f"{whose} holds the id {bad}, and ids go from 0 to {limit - 1}: use the model's tokenizer")
