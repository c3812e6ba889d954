"""BatchPlan (law 9): a permutation per epoch, bounded by the window, cut into steps that are equal for all workers."""

import copy
import hashlib
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.feed.order import BatchPlan, RowPlaces
from pipelines.store.format import Part

GROUPS = (4, 4, 4, 2, 4, 4, 1, 4, 3)  # short row groups at the ends of shards
PLANS = st.builds(
    BatchPlan,
    group_rows=st.lists(st.integers(0, 6), min_size=1, max_size=25).filter(sum).map(tuple),
    seed=st.integers(0, 2**64 - 1),
    micro_rows=st.integers(1, 7),
    micro_batches=st.integers(1, 5),
    window=st.integers(1, 9),
)


MIX = BatchPlan((4, 3, 5, 2, 2, 7, 1), 1, micro_rows=2, micro_batches=3, window=2, parts=(Part(3, 0.7), Part(4, 0.3)))


def places(rows: RowPlaces) -> list[tuple[int, int, int]]:
    return list(zip(rows.epoch.tolist(), rows.group.tolist(), rows.row.tolist(), strict=True))


def all_rows(group_rows) -> list[tuple[int, int]]:
    return [(group, row) for group, rows in enumerate(group_rows) for row in range(rows)]


@given(PLANS)
def test_each_epoch_is_a_permutation_of_all_rows(plan):
    n = plan.epoch_rows
    run = places(plan.places(0, 3 * n))
    for epoch in range(3):
        part = run[epoch * n : (epoch + 1) * n]
        assert {e for e, _, _ in part} == {epoch}
        assert sorted((g, r) for _, g, r in part) == all_rows(plan.group_rows)


@given(PLANS, st.integers(0, 200), st.integers(1, 60))
def test_any_part_of_the_run_is_what_the_whole_run_holds_there(plan, first, count):
    assert places(plan.places(first, count)) == places(plan.places(0, first + count))[first:]


@given(PLANS, st.integers(0, 20))
def test_micro_batches_follow_each_other_across_epoch_borders(plan, step):
    b, m = plan.micro_rows, plan.micro_batches
    rows = [p for index in range(m) for p in places(plan.micro_batch(step, index))]
    assert rows == places(plan.places(step * b * m, b * m))
    assert plan.step_rows == b * m


@given(PLANS)
def test_a_row_group_appears_within_one_window_and_windows_follow_each_other(plan):
    """So each row group is read once per epoch, and no more than a window of them is kept."""
    groups = [g for _, g, _ in places(plan.places(0, plan.epoch_rows))]
    order = list(dict.fromkeys(groups))
    at = 0
    seen: set[int] = set()
    while at < len(groups):
        members = window_from(groups, at, plan, seen)
        size = sum(plan.group_rows[g] for g in members)
        assert len(members) <= plan.window
        assert sorted(groups[at : at + size]) == sorted(g for g in members for _ in range(plan.group_rows[g]))
        seen |= members
        at += size
    assert seen == set(order)


def window_from(groups: list[int], at: int, plan: BatchPlan, seen: set[int]) -> set[int]:
    """The smallest run of groups that starts at `at` and is closed: all rows of its groups, none of others."""
    members: set[int] = set()
    for count, group in enumerate(groups[at:], start=1):
        assert group not in seen, "a group does not come back in a later window"
        members.add(group)
        if count == sum(plan.group_rows[g] for g in members):
            return members
    raise AssertionError("the last window is not closed")


def test_rows_of_a_window_are_mixed_and_windows_are_not_always_the_same():
    plan = BatchPlan((64,) * 32, seed=3, micro_rows=8, micro_batches=4, window=8)
    groups = [g for _, g, _ in places(plan.places(0, 8 * 64))]
    assert len(set(groups)) == 8
    assert sum(a == b for a, b in itertools.pairwise(groups)) < 0.25 * len(groups)
    epochs = [frozenset(g for _, g, _ in places(plan.places(epoch * plan.epoch_rows, 8 * 64))) for epoch in range(6)]
    assert len(set(epochs)) == 6


def test_epochs_and_seeds_have_other_orders():
    plan = BatchPlan(GROUPS, seed=3, micro_rows=2, micro_batches=4)
    n = plan.epoch_rows
    orders = [[p[1:] for p in places(plan.places(epoch * n, n))] for epoch in range(4)]
    orders.append([p[1:] for p in places(BatchPlan(GROUPS, seed=4, micro_rows=2, micro_batches=4).places(0, n))])
    assert len({tuple(order) for order in orders}) == 5


def test_the_order_does_not_depend_on_how_it_is_cut_into_batches():
    n = sum(GROUPS)
    cuts = [(1, 1), (2, 4), (5, 2)]
    plans = [BatchPlan(GROUPS, seed=3, micro_rows=b, micro_batches=m) for b, m in cuts]
    assert len({tuple(places(plan.places(0, 2 * n))) for plan in plans}) == 1


def test_a_batch_larger_than_an_epoch():
    plan = BatchPlan((2, 1), seed=0, micro_rows=8, micro_batches=1)
    epochs = [e for e, _, _ in places(plan.micro_batch(0, 0))]
    assert epochs == [0, 0, 0, 1, 1, 1, 2, 2]


def test_first_places_are_uniform():
    """Every row comes first equally often over seeds: 4.5 sigma."""
    first = [
        places(BatchPlan(GROUPS, seed=s, micro_rows=1, micro_batches=1, window=3).places(0, 1))[0][1]
        for s in range(1500)
    ]
    # A row group comes first in proportion to its rows in its window; all equal-sized ones alike.
    counts = np.bincount(first, minlength=len(GROUPS))[[g for g, n in enumerate(GROUPS) if n == 4]]
    mean = counts.mean()
    assert (np.abs(counts - mean) < 4.5 * np.sqrt(mean)).all()


@pytest.mark.parametrize(
    "wrong", [{"micro_rows": 0}, {"micro_batches": 0}, {"window": 0}, {"group_rows": ()}, {"group_rows": (0,)}]
)
def test_empty_plans_are_refused(wrong):
    with pytest.raises(ValueError, match="a plan needs rows and sizes of at least 1"):
        BatchPlan(**{"group_rows": (2,), "seed": 0, "micro_rows": 1, "micro_batches": 1, **wrong})


@pytest.mark.parametrize("plan", [replace(MIX, parts=()), MIX])
def test_the_position_of_a_row_is_where_it_comes(plan):
    places = plan.places(0, 200)
    for position in range(0, 200, 7):
        place = (int(array[position]) for array in places)
        assert plan.position(*place) == position
    with pytest.raises(IndexError):
        plan.position(0, 7, 0)


def test_the_order_is_the_one_of_every_run_so_far():
    """Values written down once: a run of another version continues with the rows that it would have had."""
    plan = BatchPlan(GROUPS, seed=3, micro_rows=2, micro_batches=4, window=3)
    assert [array.tolist() for array in plan.places(24, 12)] == [
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        [0, 7, 7, 8, 7, 7, 2, 5, 0, 5, 2, 5],
        [1, 0, 2, 1, 3, 1, 3, 0, 1, 1, 1, 2],
    ]
    assert [array.tolist() for array in MIX.places(10, 12)] == [
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0],
        [1, 5, 0, 0, 0, 4, 0, 2, 5, 2, 1, 5],
        [0, 3, 2, 0, 1, 1, 3, 4, 0, 3, 1, 4],
    ]
    large = BatchPlan(tuple(100 + i % 7 for i in range(300)), seed=2**63 + 5, micro_rows=8, micro_batches=16)
    two_epochs = np.stack(large.places(0, 2 * large.epoch_rows)).astype("<i8")
    digest = hashlib.sha256(two_epochs.tobytes()).hexdigest()
    assert digest == "33badc73a863efdbc51a75a5d1c4b16fa1525703ad3f5cd7fc8d26113aadc520"


class Watched(tuple):
    """A tuple that notes each time it, or a part of it, is hashed, compared, walked through, or read from."""

    touched: list[str]

    def __new__(cls, values):
        made = super().__new__(cls, values)
        made.touched = []
        return made

    def __hash__(self):
        self.touched.append("hash")
        return super().__hash__()

    def __eq__(self, other):
        self.touched.append("eq")
        return super().__eq__(other)

    def __iter__(self):
        self.touched.append("iter")
        return super().__iter__()

    def __getitem__(self, index):
        self.touched.append("getitem")
        found = super().__getitem__(index)
        if isinstance(index, slice):
            found = Watched(found)
            found.touched = self.touched
        return found


@pytest.mark.parametrize("parts", [(), (Part(200, 0.7), Part(300, 0.3))])
def test_a_look_up_costs_the_same_for_any_number_of_row_groups(parts):
    """Once the order of its window is known, it goes through the row groups no more, not even to hash them."""
    groups = Watched((4,) * 500)
    plan = BatchPlan(groups, seed=1, micro_rows=4, micro_batches=2, parts=parts)
    before = places(plan.micro_batch(0, 0))
    assert groups.touched, "the first one has to"
    groups.touched.clear()
    assert [places(plan.micro_batch(0, index)) for index in (0, 1)] == [before, places(plan.places(4, 4))]
    assert groups.touched == []


@pytest.mark.parametrize("plan", [BatchPlan(GROUPS, seed=3, micro_rows=2, micro_batches=4), MIX])
def test_a_plan_is_a_value_whatever_it_was_asked_before(plan):
    used, fresh = replace(plan), replace(plan)
    expected = places(used.places(0, 100))
    assert used == fresh
    assert (hash(used), repr(used), pickle.dumps(used)) == (hash(fresh), repr(fresh), pickle.dumps(fresh))
    for again in (pickle.loads(pickle.dumps(used)), copy.copy(used), copy.deepcopy(used)):
        assert again == plan
        assert places(again.places(0, 100)) == expected
    other = replace(used, seed=plan.seed + 1)
    assert other != used
    assert places(other.places(0, 100)) != expected
