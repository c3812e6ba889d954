"""How long the texts are that a model wrote, beside how long the right ones are, and how many it did not end."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ALONE = 8  # lengths up to here stand by themselves, longer ones between powers of two


@dataclass(frozen=True)
class LengthCount:
    """How often texts have these lengths, in tokens."""

    tokens: str
    """A length, or a range."""
    written: int
    right: int


@dataclass(frozen=True)
class LengthCalibration:
    """What is written where the right text has these lengths, in tokens."""

    tokens: str
    n: int
    right: float
    """The mean of the right lengths."""
    written: float
    """The mean of the written ones."""
    equal: float
    """The share of written texts that are as long as the right one, on 0 to 100."""


@dataclass(frozen=True)
class Lengths:
    """The lengths of all blanks, or of all texts where an item has one."""

    blanks: int
    without_end: int
    """That the model did not end: they were cut at the most tokens that it may write."""
    histogram: tuple[LengthCount, ...]
    calibration: tuple[LengthCalibration, ...]
    """Empty where no right text is known."""


def lengths(items: pa.Table) -> Lengths | None:
    """Those in a table of items; None where nothing was generated."""
    blanks = pa.concat_arrays([chunk.flatten() for chunk in items["blanks"].chunks] or [pa.array([])])
    if not len(blanks):
        return None
    written_B = _numbers(blanks, "tokens")
    right_B = _numbers(blanks, "right_tokens")
    known = right_B >= 0
    names = _ranges(max(written_B.max(), right_B.max()))
    calibration = []
    for name, low, high in names:
        here = known & (low <= right_B) & (right_B <= high)
        if here.any():
            equal = 100 * float((written_B == right_B)[here].mean())
            means = float(right_B[here].mean()), float(written_B[here].mean())
            calibration.append(LengthCalibration(name, int(here.sum()), *means, equal))
    counts = (
        LengthCount(name, _between(written_B, low, high), _between(right_B[known], low, high))
        for name, low, high in names
    )
    ended = pc.struct_field(blanks, "ended")  # pyright: ignore[reportAttributeAccessIssue]
    return Lengths(
        blanks=len(blanks),
        without_end=len(blanks) - sum(ended.to_pylist()),
        histogram=tuple(one for one in counts if one.written or one.right),
        calibration=tuple(calibration),
    )


def _numbers(blanks: pa.Array, name: str) -> np.ndarray:
    """-1 where it is null."""
    return pc.struct_field(blanks, name).fill_null(-1).to_numpy().astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]


def _between(values: np.ndarray, low: int, high: int) -> int:
    return int(((low <= values) & (values <= high)).sum())


def _ranges(most: int) -> Iterable[tuple[str, int, int]]:
    """(name, first, last) up to this length."""
    found = [(str(n), n, n) for n in range(_ALONE + 1)]
    low = _ALONE + 1
    while low <= most:
        high = 2 * (low - 1)
        found.append((f"{low}-{high}", low, high))
        low = high + 1
    return found
