"""FlexAttention's mask: intervals and blocks against the dense rule; forward on a CPU, where it has no backward."""

import pytest
import torch

from glm_model.attention import attention, make_mask
from glm_model.attention.flex import BLOCK, block_mask, blocks_of, visible_interval
from glm_model.attention.trial import trial_batch

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def batches() -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    segment_ids, context_end = trial_batch(torch.device("cpu"))
    return {
        "trial": (segment_ids, context_end),
        "odd length": (segment_ids[:, :300], context_end[:, :300].clamp_max(300)),
        "no context_end": (segment_ids, None),
        "one block": (segment_ids[1:2, :90], context_end[1:2, :90].clamp_max(90)),
    }


def visible(segment_ids, context_end) -> torch.Tensor:
    """bool [B, L, L] by the dense rule, but that padding sees itself alone."""
    allowed = make_mask(segment_ids, context_end, tuple(segment_ids.shape), "cpu", backend="dense").allowed[:, 0]
    padded = (segment_ids < 0)[:, :, None]
    return torch.where(padded, torch.eye(segment_ids.shape[1], dtype=torch.bool), allowed)


@pytest.mark.parametrize("case", batches())
def test_the_keys_of_a_query_are_one_interval(case):
    segment_ids, context_end = batches()[case]
    first, stop = visible_interval(segment_ids, context_end)
    place = torch.arange(segment_ids.shape[1])
    assert torch.equal((place >= first[..., None]) & (place < stop[..., None]), visible(segment_ids, context_end))


@pytest.mark.parametrize("case", batches())
def test_blocks_miss_no_visible_pair_and_are_full_only_where_all_is_visible(case):
    segment_ids, context_end = batches()[case]
    seen = visible(segment_ids, context_end)
    touched, full = blocks_of(*visible_interval(segment_ids, context_end))
    fill = -seen.shape[1] % BLOCK
    grid = torch.nn.functional.pad(seen, (0, fill, 0, fill)).unflatten(1, (-1, BLOCK)).unflatten(3, (-1, BLOCK))
    some, everything = grid.any(4).any(2), grid.all(4).all(2)
    assert not (some & ~touched).any()
    # A last block that is filled up may count as full in its queries; its keys never do.
    assert torch.equal(full[:, : seen.shape[1] // BLOCK], everything[:, : seen.shape[1] // BLOCK])
    assert (touched & ~some).sum() <= touched.sum() * 0.2


def test_the_lists_of_a_row_of_two_segments_in_full():
    segment_ids = (torch.arange(512) >= 384).long()[None]
    context_end = torch.where(segment_ids == 0, 256, 512)
    mask = block_mask(segment_ids, context_end)
    # Segment 0: context is blocks 0 and 1, its blanks block 2; segment 1: all context, block 3.
    assert mask.full_kv_num_blocks[0, 0].tolist() == [2, 2, 2, 1]
    assert [row[:n] for row, n in zip(mask.full_kv_indices[0, 0].tolist(), [2, 2, 2, 1], strict=True)] == [
        [0, 1],
        [0, 1],
        [0, 1],
        [3],
    ]
    assert mask.kv_num_blocks[0, 0].tolist() == [0, 0, 1, 0]
    assert mask.kv_indices[0, 0, 2, 0] == 2


@pytest.mark.parametrize("case", batches())
def test_law_5_forward_is_that_of_dense(case):
    segment_ids, context_end = batches()[case]
    rows, length = segment_ids.shape
    q, k, v = torch.randn(3, rows, length, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out, expected = (
            attention(q, k, v, make_mask(segment_ids, context_end, (rows, length), "cpu", backend=backend))
            for backend in ("flex", "dense")
        )
    real = segment_ids >= 0
    torch.testing.assert_close(out[real], expected[real], rtol=1e-5, atol=1e-5)
    assert torch.isfinite(out).all()
