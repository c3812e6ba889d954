"""Attention over cached rows in groups: what each row would get by itself, however rows are grouped."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glm_model.attention.cached_rows import attend_groups, plan_groups

CPU = torch.device("cpu")
HEADS, WIDTH, CAPACITY = 2, 8, 24


def alone(q_LHK, keys_HCK, values_HCK, before: int):
    """One row, computed by itself: positions of a context see each other, later ones themselves and all before."""
    new = len(q_LHK)
    end = torch.full((new,), new) if before == 0 else before + torch.arange(1, new + 1)
    allowed = torch.arange(before + new) < end[:, None]
    k, v = keys_HCK[:, : before + new], values_HCK[:, : before + new]
    return F.scaled_dot_product_attention(q_LHK.transpose(0, 1), k, v, attn_mask=allowed).transpose(0, 1)


@pytest.mark.parametrize("call", [1, 8, 64, 1 << 20])
@pytest.mark.parametrize(
    ("slots", "before", "new"),
    [
        ([0, 1, 2, 3], [0, 0, 0, 0], [3, 4, 9, 24]),
        ([0, 1, 2], [5, 5, 5], [1, 1, 1]),
        ([0, 1, 2, 3], [4, 5, 20, 21], [1, 1, 1, 1]),
        ([1, 3, 4, 7], [4, 5, 20, 21], [1, 1, 1, 1]),
        ([3, 0, 2, 5], [7, 3, 9, 1], [2, 1, 3, 2]),
        ([0, 1, 2, 3], [7, 3, 9, 1], [2, 0, 3, 0]),
        ([2, 0, 1], [0, 6, 3], [4, 2, 1]),
    ],
)
def test_every_row_gets_what_it_would_get_alone(slots, before, new, call):
    torch.manual_seed(0)
    keys, values = torch.randn(2, 8, HEADS, CAPACITY, WIDTH)
    q_NHK = torch.randn(sum(new), HEADS, WIDTH)
    plan = plan_groups(np.array(slots), np.array(before), np.array(new), CPU, call=call)
    got = attend_groups(q_NHK, keys, values, plan, dropout_p=0.0)
    rows = zip(q_NHK.split(new), slots, before, strict=True)
    expected = torch.cat([alone(q, keys[slot], values[slot], length) for q, slot, length in rows])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_rows_of_about_one_length_share_a_group_and_long_ones_have_their_own():
    before = np.array([10, 12, 14, 200, 205, 900])
    plan = plan_groups(np.arange(6), before, np.ones(6, np.int64), CPU, call=128)
    assert [(group.slots.start, group.slots.stop, group.end) for group in plan.groups] == [
        (0, 3, 15), (3, 5, 206), (5, 6, 901)
    ]  # fmt: skip
    assert plan_groups(np.arange(6), before, np.ones(6, np.int64), torch.device("meta")).groups[0].rows == 6


def test_even_rows_need_neither_a_mask_nor_an_index():
    (group,) = plan_groups(np.arange(4), np.full(4, 9), np.ones(4, np.int64), CPU).groups
    assert (group.visible, group.real, group.new) == (None, None, slice(0, 4))
