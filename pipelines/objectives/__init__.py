"""Objectives: which tokens of a segment are blanked, and in which order the blanks are predicted.

An objective is a module found by its name (`pipelines.objectives.token`, or a dotted name of the user's own) with

    MASK: str                       the kind of mask in its context: "mask", "smask" or "gmask"
    Config                          a frozen dataclass of its settings
    spans(batch, config)            -> (spans int64 [S, 2], span_offsets int64 [N + 1])
    blank_moments(batch, config)    -> (mean, variance) of the number of blanks of each segment, float [N]

    length_theory(config)           optional: P(a blank has l tokens), l from 0 on, for inspect_data.py

and, if it predicts in place instead of appending its blanks, IN_PLACE = True (only `masked_lm`).

Spans are half-open, relative to their segment, in the order of prediction. Each segment gets at least one non-empty
span over its text; `[CLS]` is never blanked. What a segment gets depends on its tokens and its key alone.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from infra.errors import UserError, nearest
from pipelines.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class SegmentBatch:
    """What an objective sees: flat tokens [T], offsets [N+1], one uint64 key per segment [N], and the vocabulary."""

    tokens: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each segment, [N]."""
        return np.diff(self.offsets)

    @property
    def has_eos(self) -> np.ndarray:
        """bool [N]: the segment is the last of its document."""
        return self.tokens[self.offsets[1:] - 1] == self.vocabulary.eos

    @property
    def text_ends(self) -> np.ndarray:
        """Index one past a segment's last text token [N]; text begins at 1, behind `[CLS]`."""
        return self.lengths - self.has_eos


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> ModuleType:
    """The objective's module. Raises UserError naming the nearest when there is none."""
    dotted = name if "." in name else f"{__name__}.{name}"
    if "." not in name and name not in names():
        raise UserError(f"unknown objective {name!r}{nearest(name, names())}")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        raise UserError(
            f"objective {name!r} cannot be imported: {error}",
            try_="name a module of pipelines/objectives, or one that Python can import (its folder on PYTHONPATH)",
        ) from error
