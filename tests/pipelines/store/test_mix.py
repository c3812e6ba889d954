"""Several stores in one run: shares, epochs of their own, the same rows from any point."""

from collections import Counter

import numpy as np
import pytest
from helpers import small

from infra.errors import UserError
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import BatchPlan, RowPlaces
from pipelines.store.config import Member
from pipelines.store.format import Part, TokenStore
from pipelines.store.mix import mix

PLAN = BatchPlan((4, 3, 5, 2, 2), seed=1, micro_rows=3, micro_batches=2, window=2, parts=(Part(3, 0.75), Part(2, 0.25)))


def test_rows_come_from_the_stores_by_their_weights_at_any_time():
    places = PLAN.places(0, 4000)
    second = places.group >= 3
    assert second.sum() == 1000
    ahead = np.cumsum(second) - 0.25 * np.arange(1, 4001)
    assert np.abs(ahead).max() <= 1, "spread evenly, not in blocks"


def test_each_store_has_epochs_of_its_own():
    places = PLAN.places(0, 64)  # 48 rows of the first store, which has 12, and 16 of the second, which has 4
    for groups, rows in (([0, 1, 2], [4, 3, 5]), ([3, 4], [2, 2])):
        own = np.isin(places.group, groups)
        every = [(g, r) for g, n in zip(groups, rows, strict=True) for r in range(n)]
        for epoch in range(4):
            at = own & (places.epoch == epoch)
            assert sorted(zip(places.group[at].tolist(), places.row[at].tolist(), strict=True)) == every
        assert places.epoch[own].tolist() == sorted(places.epoch[own].tolist())


@pytest.mark.parametrize(("first", "count"), [(0, 1), (7, 5), (990, 30), (123_456, 9)])
def test_a_position_does_not_depend_on_where_reading_began(first, count):
    whole, part = PLAN.places(first - first % 100, count + first % 100), PLAN.places(first, count)
    for name in ("epoch", "group", "row"):
        assert getattr(part, name).tolist() == getattr(whole, name)[first % 100 :].tolist()


def test_a_store_of_little_weight_is_not_forgotten():
    plan = BatchPlan((5, 5), seed=1, micro_rows=1, micro_batches=1, parts=(Part(1, 1.0), Part(1, 1e-9)))
    assert Counter(plan.places(0, 1000).group.tolist())[1] == 1


@pytest.fixture(scope="module")
def stores(tmp_path_factory, tiny_tokenizer) -> list[TokenStore]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    return [small.store(folder, tiny_tokenizer, rows_per_group=n) for folder, n in zip(folders, (4, 3), strict=True)]


def mixed(stores, tmp_path, *weights: float) -> TokenStore:
    return mix([Member(one.url, weight) for one, weight in zip(stores, weights, strict=True)], str(tmp_path))


def test_a_mix_is_a_store_that_reads_its_members_rows(stores, tmp_path, tiny_tokenizer):
    both = mixed(stores, tmp_path, 3, 1)
    assert [part.weight for part in both.parts] == [0.75, 0.25]
    assert sum(part.groups for part in both.parts) == len(both.train.group_rows)
    assert both.validation.rows == sum(one.validation.rows for one in stores)
    assert both.row_tokens == pytest.approx(
        sum(w * one.train.tokens / one.train.rows for w, one in zip((0.75, 0.25), stores, strict=True))
    )
    settings = small.settings_of(both, tiny_tokenizer)
    plan = BatchPlan(
        tuple(both.train.group_rows.tolist()), seed=5, micro_rows=2, micro_batches=2, window=2, parts=both.parts
    )
    reader = RowReader(both.train, settings)
    alone = [RowReader(one.train, settings) for one in stores]
    seen = set()
    for step in range(4):
        for index in range(2):
            places = plan.micro_batch(step, index)
            for at in range(2):
                place = RowPlaces(*(array[at : at + 1] for array in places))
                of = int(place.group[0] >= both.parts[0].groups)
                its = place._replace(group=place.group - of * both.parts[0].groups)
                assert reader.micro_batch(place).fingerprint == alone[of].micro_batch(its).fingerprint
                seen.add(of)
    assert seen == {0, 1}


def test_validation_takes_rows_of_each_member_in_turn(stores, tmp_path, tiny_tokenizer):
    from workflows.training.validation import validation_of

    both = mixed(stores, tmp_path, 3, 1)
    settings = small.settings_of(both, tiny_tokenizer, split="validation")
    (places,) = validation_of(both, settings, "one", rows=4, micro_rows=4).places
    of = [both.validation.base(both.validation.group_places[group][0]) for group in places.group]
    assert of == [stores[0].url, stores[1].url] * 2


def test_a_mix_of_a_mix_is_refused(stores, tmp_path):
    both = mixed(stores, tmp_path, 1, 1)
    with pytest.raises(UserError, match="is a mix itself"):
        mixed([stores[0], both], tmp_path, 1, 1)


def test_the_same_members_and_weights_give_the_same_store(stores, tmp_path):
    first = mixed(stores, tmp_path, 1, 1)
    assert mixed(stores, tmp_path / "elsewhere", 2, 2).digest == first.digest
    assert mixed(stores, tmp_path, 1, 2).digest != first.digest
    assert mixed(stores[::-1], tmp_path, 1, 1).digest != first.digest


def test_what_does_not_fit_is_refused(stores, tmp_path, tiny_tokenizer):
    with pytest.raises(UserError, match="the weight 0"):
        mixed(stores, tmp_path, 1, 0)
    longer = small.store(tmp_path / "longer", tiny_tokenizer, sequence_length=48)
    with pytest.raises(UserError, match="their sequence_length differ, 32 and 48"):
        mixed([stores[0], longer], tmp_path, 1, 1)


def test_a_store_twice_is_refused(stores, tmp_path):
    with pytest.raises(UserError, match="twice"):
        mixed([stores[0], stores[0]], tmp_path, 1, 1)
