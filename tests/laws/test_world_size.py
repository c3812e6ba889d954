"""Law 6, the part of the data: the examples of a step are the same for 1, 2, 3 and 4 workers."""

import pytest
from helpers import small

from pipelines.feed.micro_batches import RowReader, steps
from pipelines.feed.order import BatchPlan

STEPS, MICRO_BATCHES = 8, 4


def fingerprints(opened, tokenizer, *, world: int) -> list[dict[int, int]]:
    """Per step, index of the micro-batch -> its fingerprint, from `world` readers that share nothing."""
    settings = small.settings_of(opened, tokenizer)
    plan = BatchPlan(
        tuple(opened.train.group_rows.tolist()), seed=5, micro_rows=2, micro_batches=MICRO_BATCHES, window=2
    )
    found: list[dict[int, int]] = [{} for _ in range(STEPS)]
    for rank in range(world):
        for item in steps(RowReader(opened.train, settings), plan, start=0, stop=STEPS, rank=rank, world=world):
            for index, micro in item.micro_batches:
                assert index not in found[item.step], "each micro-batch has one rank"
                found[item.step][index] = micro.fingerprint
    return found


@pytest.mark.parametrize("world", [2, 3, 4])
def test_world_size_is_invisible_to_the_examples(tiny_store, tiny_tokenizer, world):
    alone = fingerprints(tiny_store, tiny_tokenizer, world=1)
    assert [sorted(step) for step in alone] == [list(range(MICRO_BATCHES))] * STEPS
    assert len({f for step in alone for f in step.values()}) == STEPS * MICRO_BATCHES
    assert fingerprints(tiny_store, tiny_tokenizer, world=world) == alone
