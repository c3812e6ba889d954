"""The layout on the training device is the numpy layout, bit for bit."""

import numpy as np
import pytest
import torch
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from glm_model import device_layout, layout
from glm_model.layout import Ragged, Sentinels

MARKS = small.GOLDEN_MARKS
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def assert_equal(batch: Ragged, row_offsets: np.ndarray, *, width: int, device: str) -> None:
    expected = layout.expand(batch, row_offsets, width=width, marks=MARKS).arrays()
    got = device_layout.expand(batch, torch.as_tensor(row_offsets), width=width, marks=MARKS, device=device)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == torch.int64, name
        assert np.array_equal(got[name].cpu().numpy(), array), name


@pytest.mark.parametrize("device", DEVICES)
@given(parts=small.blanked_segments(), slack=st.integers(0, 5))
def test_equal_to_numpy(device, parts, slack):
    cut = len(parts) // 2
    sizes = [len(tokens) + 2 * len(spans) for tokens, spans, _ in parts]
    batch = Ragged(
        np.concatenate([tokens for tokens, _, _ in parts]).astype(np.uint16),
        np.cumsum([0, *(len(tokens) for tokens, _, _ in parts)]),
        np.concatenate([spans for _, spans, _ in parts]),
        np.cumsum([0, *(len(spans) for _, spans, _ in parts)]),
        np.array([mask for _, _, mask in parts]),
        np.arange(len(parts)),
    )
    width = max(sum(sizes[:cut]), sum(sizes[cut:])) + slack
    assert_equal(batch, np.array([0, cut, len(parts)]), width=width, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_rows_without_any_segment_are_padding(device):
    empty = np.zeros(0, np.int64)
    nothing = Ragged(empty, np.zeros(1, np.int64), np.zeros((0, 2), np.int64), np.zeros(1, np.int64), empty, empty)
    assert_equal(nothing, np.array([0, 0]), width=3, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_that_does_not_fit_is_refused_in_the_same_words(device):
    one = Ragged(np.array([1, 5]), np.array([0, 2]), np.array([[1, 2]]), np.array([0, 1]), np.array([2]), np.array([0]))
    told = []
    for expand, options in ((layout.expand, {}), (device_layout.expand, {"device": device})):
        with pytest.raises(ValueError, match="row 0 needs 4 positions and has 3") as raised:
            expand(one, np.array([0, 1]), width=3, marks=MARKS, **options)
        told.append(str(raised.value))
    assert told[0] == told[1]


def test_ablations_stay_on_the_host():
    one = Ragged(np.array([1, 5]), np.array([0, 2]), np.array([[1, 2]]), np.array([0, 1]), np.array([2]), np.array([0]))
    numbered = one._replace(sentinels=Sentinels(np.array([993]), np.array([9]), 8))
    with pytest.raises(ValueError, match="laid out on the host"):
        device_layout.expand(numbered, torch.tensor([0, 1]), width=8, marks=MARKS)
