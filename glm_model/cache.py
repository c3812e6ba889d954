"""Keys and values of what was read so far: a new token costs one position, and a short row's padding is never seen.

Rows are ragged: row b holds `lengths[b]` positions in its first slots, however many the others hold. Memory: 2 * layers
* rows * capacity * width numbers.

Shapes: B rows, L new positions, T slots up to the longest row, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glm_model.attention.cached_rows import Groups, attend_groups, plan_groups
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
        # A head's positions lie side by side: with the heads of a position side by side, attention of one new position
        # to 64 rows of 288 takes twice as long (`mini`, AMD EPYC).
        shape = (config.layers, rows, config.heads, capacity, config.head_width)
        # Zeros, not what the memory held: a hidden slot has weight 0, and 0 * nan is nan.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = np.zeros(rows, np.int64)
        """Positions in each row, [B]."""
        self._slots = np.arange(rows)
        """Where the rows lie in keys and values, [B]."""
        self._after = self.lengths
        self._groups = Groups((), None)
        self._into: tuple[Any, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def begin(self, length: int, counts: Sequence[int] | None = None) -> Tensor | None:
        """Prepare to append `length` positions to each row, of which the first counts[b] are real, the rest padding.

        Returns the flat places of the real ones among the B * L; None where all are. Raises ValueError when a row is
        full, or begins without a real position.
        """
        new = np.full(self.rows, length) if counts is None else np.asarray(counts, np.int64)
        self._check(new, length)
        device = self.keys.device
        self._after = self.lengths + new
        self._groups = plan_groups(self._slots, self.lengths, new, device)
        starts = np.cumsum(new) - new
        slot = np.repeat(self._slots, new)
        place = np.arange(len(slot)) + np.repeat(self.lengths - starts, new)
        self._into = (torch.from_numpy(slot).to(device), slice(None), torch.from_numpy(place).to(device))
        if (new == length).all():
            return None
        return torch.from_numpy(np.flatnonzero(np.arange(length) < new[:, None])).to(device)

    def attend(self, layer: int, q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, *, dropout_p: float = 0.0) -> Tensor:
        """Store a layer's new keys and values, and attend to all that it holds: [B, L, H, K], the shape of q, which
        holds the real positions of all rows, one row after the other.
        """
        self.store(layer, k_BLHK, v_BLHK)
        keys, values = self.keys[layer], self.values[layer]
        return attend_groups(q_BLHK.flatten(0, 1), keys, values, self._groups, dropout_p=dropout_p).view(q_BLHK.shape)

    def store(self, layer: int, k_BLHK: Tensor, v_BLHK: Tensor) -> None:
        """Store a layer's new keys and values of the real positions."""
        for stored, new in ((self.keys[layer], k_BLHK), (self.values[layer], v_BLHK)):
            stored[self._into] = new.flatten(0, 1).to(stored.dtype)

    def commit(self) -> None:
        """Take over the lengths that `begin` prepared, now that every layer has appended."""
        self.lengths = self._after

    def select(self, rows: Sequence[int], *, since: Sequence[int] | None = None) -> None:
        """Row i becomes what row rows[i] was: rows are repeated, dropped or put in another order.

        Only repeated rows are copied. since: where the number of rows stays the same, as many rows of a text are
        repeated as dropped, and they are equal in the first since[i] positions, which are not copied.
        """
        wanted = np.asarray(rows, np.int64)
        _, first = np.unique(wanted, return_index=True)
        again = np.setdiff1d(np.arange(len(wanted)), first)
        free = self._slots[np.setdiff1d(np.arange(self.rows), wanted)]
        if len(again) > len(free):
            self._spread(wanted)
        else:
            slots = self._slots[wanted]
            for row, slot in zip(again.tolist(), free.tolist(), strict=False):
                used = slice(0 if since is None else since[row], int(self.lengths[wanted[row]]))
                for stored in (self.keys, self.values):
                    stored[:, slot, :, used] = stored[:, int(slots[row]), :, used]
                slots[row] = slot
            self._slots = slots
        self.lengths = self.lengths[wanted]
        if 2 * self.rows <= self.keys.shape[1]:
            self._close_up()

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first lengths[b] positions of each row."""
        self.lengths = np.minimum(self.lengths, np.asarray(lengths, np.int64))

    def _spread(self, rows: np.ndarray) -> None:
        """More slots than there are: row rows[i] in slot i."""
        used, index = slice(0, int(self.lengths.max(initial=0))), torch.from_numpy(self._slots[rows])
        for name in ("keys", "values"):
            stored = getattr(self, name)
            into = stored.new_zeros(stored.shape[0], len(rows), *stored.shape[2:])
            for new, old in zip(into, stored, strict=True):  # layer by layer: the copies in between are small
                new[:, :, used] = old[:, :, used][index.to(old.device)]
            setattr(self, name, into)
        self._slots = np.arange(len(rows))

    def _close_up(self) -> None:
        """Rows that are far apart since others were dropped move together, in their order."""
        order = np.argsort(self._slots)
        used, index = slice(0, int(self.lengths.max(initial=0))), torch.from_numpy(self._slots[order])
        for name in ("keys", "values"):
            stored = getattr(self, name)
            for layer in stored:
                layer[: len(order), :, used] = layer[:, :, used][index.to(layer.device)]
            setattr(self, name, stored[:, : len(order)])
        self._slots = np.argsort(order)

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
