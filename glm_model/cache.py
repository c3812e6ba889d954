"""Keys and values of what was read so far: a new token costs one position, and a short row's padding is never seen.

Rows are ragged: row b holds `lengths[b]` positions in its first slots, however many the others hold. Memory: 2 * layers
* rows * capacity * width numbers.

Shapes: B rows, L new positions, T slots up to the longest row, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from glm_model.config import GLMConfig


class Cache:
    """Filled by `GLM.hidden(..., cache=cache)`. The first call appends a row's context, whose positions all see each
    other; each later call appends positions that see themselves and all before them.
    """

    def __init__(
        self,
        config: GLMConfig,
        rows: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        """Room for `capacity` positions in each of `rows` rows; dtype, device: the model's."""
        shape = (config.layers, rows, capacity, config.heads, config.head_width)
        # Zeros, not what the memory held: a hidden slot has weight 0, and 0 * nan is nan.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = np.zeros(rows, np.int64)
        """Positions in each row, [B]."""
        self._after = self.lengths
        self._slots: tuple[Tensor, ...] | None = None

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    @property
    def length(self) -> int:
        """Positions in the longest row."""
        return int(self.lengths.max(initial=0))

    def begin(self, length: int, counts: Sequence[int] | None = None) -> Tensor | None:
        """Prepare to append `length` positions to each row, of which counts[b] are real and the rest padding.

        Returns who sees whom: bool [B or 1, 1, L, T], or None where everyone sees everything. With length 3:

            lengths[b]  counts[b]   slots that the three new positions see
            0           3           first 3, 3, 3    a context
            4           3           first 5, 6, 7    each itself and all before it
            4           1           first 5, 5, 5    two are padding: what they see is of no importance

        Raises ValueError when a row is full, or begins without a real position.
        """
        new = np.full(self.rows, length) if counts is None else np.asarray(counts, np.int64)
        self._check(new, length)
        before, self._after = self.lengths, self.lengths + new
        even = bool((new == length).all() and (before == before[0]).all())
        self._slots = None if even else self._ragged_slots(new, length)
        if even and (length == 1 or before[0] == 0):
            return None
        if even:
            before, new = before[:1], new[:1]
        seen = np.minimum(np.arange(1, length + 1), new[:, None])
        end_BL = np.where(before[:, None] == 0, new[:, None], before[:, None] + seen)
        slots = torch.arange(int(self._after.max()), device=self.keys.device)
        return (slots < torch.from_numpy(end_BL).to(self.keys.device)[..., None])[:, None]

    def append(self, layer: int, k_BLHK: Tensor, v_BLHK: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values. Returns all that it holds, [B, T, H, K]."""
        end = int(self._after.max())
        for stored, new in ((self.keys, k_BLHK), (self.values, v_BLHK)):
            if self._slots is None:
                stored[layer, :, end - new.shape[1] : end] = new
            else:
                row, slot, source = self._slots
                stored[layer, row, slot] = new.flatten(0, 1)[source].to(stored.dtype)
        keys, values = self.keys[layer, :, :end], self.values[layer, :, :end]
        return keys.to(k_BLHK.dtype), values.to(v_BLHK.dtype)

    def commit(self) -> None:
        """Take over the lengths that `begin` prepared, now that every layer has appended."""
        self.lengths = self._after

    def select(self, rows: Sequence[int], *, since: int = 0) -> None:
        """Row i becomes what row rows[i] was: rows are repeated, dropped or put in another order.

        since: rows that change places are equal in the slots before it, which are then not copied (only where the
        number of rows stays the same).
        """
        if list(rows) == list(range(self.rows)):
            return
        index = torch.tensor(list(rows), device=self.keys.device)
        used = slice(since if len(rows) == self.rows else 0, self.length)
        for name in ("keys", "values"):
            stored = getattr(self, name)
            into = stored[:, : len(rows)]
            if len(rows) > self.rows:
                into = stored.new_zeros(stored.shape[0], len(rows), *stored.shape[2:])
            for new, old in zip(into, stored, strict=True):  # layer by layer: the copies in between are small
                new[:, used] = old[index, used]
            setattr(self, name, into)
        self.lengths = self.lengths[list(rows)]

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first lengths[b] positions of each row."""
        self.lengths = np.minimum(self.lengths, np.asarray(lengths, np.int64))

    def _check(self, new: np.ndarray, length: int) -> None:
        if len(new) != self.rows or (new < 0).any() or (new > length).any():
            raise ValueError(
                f"counts={new.tolist()} for {self.rows} rows of {length} positions: give one count per row, each from "
                f"0 to {length}"
            )
        if ((self.lengths + new) == 0).any():
            row = int(np.flatnonzero((self.lengths + new) == 0)[0])
            raise ValueError(f"row {row} begins without a position: its context needs at least one token")
        if (self.lengths + new > self.capacity).any():
            row = int(np.argmax(self.lengths + new))
            room = self.capacity - self.lengths[row]
            raise ValueError(
                f"row {row} of the cache gets {new[row]} positions and has room for {room} more positions of "
                f"{self.capacity}: make the cache with the rows and the capacity that you need"
            )

    def _ragged_slots(self, new: np.ndarray, length: int) -> tuple[Tensor, ...]:
        """(row, slot, flat position among the B * L new ones) of each new position that is real."""
        row, column = np.nonzero(np.arange(length) < new[:, None])
        slot = self.lengths[row] + column
        return tuple(torch.from_numpy(x).to(self.keys.device) for x in (row, slot, row * length + column))
