"""Segments and rows of different lengths as flat arrays with offsets: take, join, concatenate.

flat     [a b c | d | e f]      the values of all members, one after the other
offsets  [0       3   4    6]   member i is flat[offsets[i]:offsets[i + 1]]
"""

from typing import NamedTuple

import numpy as np


class RowBatch(NamedTuple):
    """Rows of whole segments: flat tokens, segment offsets [N+1], ids [N], byte counts [N], row_offsets [R+1] into
    segments.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    num_bytes: np.ndarray
    row_offsets: np.ndarray


def concatenate_rows(parts: list[RowBatch]) -> RowBatch:
    """The rows of several batches, one after the other."""
    return RowBatch(
        np.concatenate([part.tokens for part in parts]),
        join_offsets([part.offsets for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.num_bytes for part in parts]),
        join_offsets([part.row_offsets for part in parts]),
    )


def join_offsets(parts: list[np.ndarray]) -> np.ndarray:
    """Offsets of a concatenation of ragged arrays, each given by its own offsets from 0."""
    sizes = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate(([0], np.cumsum(sizes)))


def take_ragged(flat: np.ndarray, offsets: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members' slices of a ragged array, concatenated, and their offsets."""
    sizes = np.diff(offsets)[members]
    new = np.concatenate(([0], np.cumsum(sizes)))
    index = np.repeat(offsets[:-1][members] - new[:-1], sizes) + np.arange(new[-1])
    return flat[index], new


class Segments(NamedTuple):
    """Segments [S]: flat tokens, offsets [S+1], ids [S], UTF-8 bytes of their text [S], index of their document [S]."""

    tokens: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    num_bytes: np.ndarray
    document: np.ndarray
