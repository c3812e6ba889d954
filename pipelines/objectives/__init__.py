"""Objectives: which tokens of a segment are blanked, and in which order the blanks are predicted.

An objective is a module, found by its name: `token` is `pipelines.objectives.token`, a dotted name is the user's own.
It defines

    MASK: str                       the kind of mask in its context: "mask", "smask" or "gmask"
    Config                          a frozen dataclass of its settings, all with defaults
    spans(batch, config)            -> (spans int64 [S, 2], span_offsets int64 [N + 1])
    blank_moments(batch, config)    -> (mean, variance) of the number of blanks of each segment, both float [N]

and may define

    length_theory(config)           -> P(a blank has l tokens), l = 0, 1, ...: inspect_data.py shows it
    IN_PLACE = True                 tokens are replaced and predicted where they stand, nothing is appended. `Config`
                                    then has random_share and kept_share (`pipelines.blanks.ablations.InPlace`)

Spans are half-open (start, end), relative to their segment, in the order of prediction. Each segment gets at least one
non-empty span over its text; `[CLS]` is never blanked. What a segment gets depends on its tokens and its key alone, and
on nothing but `batch.keys` for randomness (`pipelines.keyed`). Packing reserves room by the moments: rows overflow and
are drawn again where they are too low.
"""

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from pipelines import plugins
from pipelines.token_classes import TokenClasses

_CONTRACT = {
    "MASK": 'MASK = "mask", "smask" or "gmask"',
    "Config": "a frozen dataclass Config",
    "spans": "spans(batch, config) -> (spans, span_offsets)",
    "blank_moments": "blank_moments(batch, config) -> (mean, variance)",
}


@dataclass(frozen=True, slots=True)
class SegmentBatch:
    """The segments that an objective sees: flat tokens [T], offsets [N + 1], and a uint64 key for each of them [N]."""

    tokens: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray
    token_classes: TokenClasses

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each segment, [N]."""
        return np.diff(self.offsets)

    @property
    def has_eos(self) -> np.ndarray:
        """Whether each segment is the last of its document, bool [N]."""
        return self.tokens[self.offsets[1:] - 1] == self.token_classes.eos

    @property
    def text_ends(self) -> np.ndarray:
        """Index one past the last text token of each segment, [N]; text begins at 1, behind `[CLS]`."""
        return self.lengths - self.has_eos


def find(name: str) -> ModuleType:
    """The objective's module. Raises UserError, which names the nearest, where there is none."""
    return plugins.find_module("objective", name, sys.modules[__name__], required=_CONTRACT)
