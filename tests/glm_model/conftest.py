"""Small models and packed batches for the tests of glm_model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from glm_model.attention import choice
from glm_model.config import GLMConfig
from glm_model.layout import Marks, Ragged, expand

Batch = dict[str, torch.Tensor]


@pytest.fixture(params=["dense", "segments"])
def each_backend(request, monkeypatch) -> None:
    """The test runs by each backend of CPUs, which would take `dense` for its short rows."""
    monkeypatch.setattr(choice, "PREFERENCE", {"cpu": (request.param,)})
    monkeypatch.setattr(choice, "_SEGMENTS_FROM", 0)


@pytest.fixture
def small() -> GLMConfig:
    """A shape without dropout: 64 tokens, positions 0 to 48."""
    return GLMConfig(layers=2, width=32, heads=2, vocab_size=64, positions=48, dropout=0.0, attention_dropout=0.0)


@pytest.fixture
def packed() -> Callable[..., Batch]:
    return _packed


def _packed(rows_of_segments, *, width: int, seed: int = 0) -> Batch:
    """Rows of segments of the given lengths; each has blanks of two and one tokens, the later one first."""
    rng = np.random.default_rng(seed)
    lengths = np.array([n for row in rows_of_segments for n in row])
    spans = np.array([[(n - 3, n - 1), (2, 3)] for n in lengths]).reshape(-1, 2)
    count = len(lengths)
    batch = Ragged(
        rng.integers(3, 50, lengths.sum()),
        np.concatenate(([0], np.cumsum(lengths))),
        spans,
        np.arange(0, 2 * count + 1, 2),
        np.full(count, 2),
        np.arange(count) % 2,
    )
    example = expand(
        batch, np.cumsum([0, *map(len, rows_of_segments)]), width=width, marks=Marks(sop=60, eop=61, pad=0)
    )
    return {name: torch.from_numpy(array) for name, array in example.arrays().items()}
