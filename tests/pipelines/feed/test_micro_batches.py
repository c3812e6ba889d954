"""The training feed: what it yields is a function of the step; its thread reports errors and ends with its consumer."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers import small

from glm_model.layout import Example, Marks, restore
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed.examples import FeedSettings
from pipelines.feed.micro_batches import RowReader, Step, fingerprint, make_micro_batches, steps
from pipelines.feed.order import BatchPlan
from pipelines.feed.stored_blanks import open_blanks
from pipelines.ragged import Blanks, RowBatch
from pipelines.token_classes import TokenClasses


@pytest.fixture
def plan(tiny_store) -> BatchPlan:
    return BatchPlan(tuple(tiny_store.train.group_rows.tolist()), seed=5, micro_rows=2, micro_batches=3, window=3)


@pytest.fixture
def reader(tiny_store, tiny_tokenizer) -> RowReader:
    settings = small.settings_of(tiny_store, tiny_tokenizer)
    return RowReader(tiny_store.train, settings)


def content(item: Step) -> tuple:
    return item.step, [
        (index, m.fingerprint, m.tokens, m.counts.tolist(), {k: v.tolist() for k, v in m.example.arrays().items()})
        for index, m in item.micro_batches
    ]


def run(reader: RowReader, plan: BatchPlan, start: int, stop: int, *, rank: int = 0, world: int = 1) -> list[tuple]:
    return [content(item) for item in steps(reader, plan, start=start, stop=stop, rank=rank, world=world)]


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "glm-feed"]


def test_steps_are_what_direct_calls_give(reader, plan):
    fed = run(reader, plan, 0, 12)  # 72 rows: into the second epoch of 47
    direct = [
        content(Step(step, [(i, reader.micro_batch(plan.micro_batch(step, i))) for i in range(3)]))
        for step in range(12)
    ]
    assert fed == direct
    assert len({f for _, micro in fed for _, f, *_ in micro}) == 36, "no two micro-batches alike, over epochs too"


def test_a_restart_at_any_step_continues_the_same_run(reader, plan, tiny_store):
    whole = run(reader, plan, 0, 12)
    for start in (1, 7, 11):
        fresh = RowReader(tiny_store.train, reader.settings, cached_groups=2)
        assert run(fresh, plan, start, 12) == whole[start:]


def test_ranks_share_out_the_micro_batches(reader, plan):
    whole = run(reader, plan, 0, 4)
    two = [run(reader, plan, 0, 4, rank=rank, world=2) for rank in (0, 1)]
    assert [[i for i, *_ in micro] for _, micro in two[0]] == [[0, 2]] * 4
    assert [[i for i, *_ in micro] for _, micro in two[1]] == [[1]] * 4
    for step in range(4):
        assert sorted([*two[0][step][1], *two[1][step][1]], key=lambda m: m[0]) == whole[step][1]
    assert run(reader, plan, 0, 2, rank=3, world=4) == [(0, []), (1, [])], "a rank without a micro-batch still steps"


def test_a_steps_counts_are_those_of_its_micro_batches(reader, plan):
    (item,) = steps(reader, plan, start=0, stop=1, rank=0, world=1)
    assert item.counts.tolist() == np.sum([m.counts for _, m in item.micro_batches], axis=0).tolist()
    assert item.counts.sum() == sum(m.example.loss_mask.sum() for _, m in item.micro_batches)
    assert item.waited_s >= 0
    assert Step(0, []).counts.tolist() == []


def test_micro_batches_hold_the_planned_rows(tiny_store, reader, plan, tiny_tokenizer):
    """Undone segment by segment: the tokens of the rows that the plan names, in the order of the plan."""
    places = plan.micro_batch(1, 2)
    micro = reader.micro_batch(places)
    assert micro.example.tokens.shape == (2, 160)
    total = 0
    for r, (group, row) in enumerate(zip(places.group.tolist(), places.row.tolist(), strict=True)):
        stored = tiny_store.train.read_group(group)
        for place, index in enumerate(range(stored.row_offsets[row], stored.row_offsets[row + 1])):
            here = np.flatnonzero(micro.example.segment_ids[r] == place)
            one = {name: array[r, here] for name, array in micro.example.arrays().items()}
            one["context_end"] = one["context_end"] - here[0]
            tokens = stored.tokens[stored.offsets[index] : stored.offsets[index + 1]]
            assert restore(Example(**one)).tolist() == tokens.tolist()
            total += len(tokens)
    assert micro.tokens == total


@pytest.mark.parametrize("micro_rows", [1, 2, 5])
def test_rows_laid_out_together_are_those_laid_out_alone(reader, plan, micro_rows):
    many = replace(plan, micro_rows=micro_rows, micro_batches=20)  # more than one call of the layout takes
    (item,) = steps(reader, many, start=0, stop=1, rank=0, world=1)
    alone = Step(0, [(index, reader.micro_batch(many.micro_batch(0, index))) for index in range(20)])
    assert content(item) == content(alone)
    assert item.micro_batches[7][1].example.tokens.shape == (micro_rows, 160)


def test_padding_of_micro_batches(reader, plan):
    example = reader.micro_batch(plan.micro_batch(0, 0)).example
    padding = example.segment_ids == -1
    assert padding.any()
    for name, array in example.arrays().items():
        wanted = {"segment_ids": -1, "tokens": reader.settings.marks.pad}.get(name, 0)
        assert (array[padding] == wanted).all(), name


@pytest.mark.parametrize("mixture", ["glm", "glm_multi", "gpt"])
def test_stored_blanks_give_the_bytes_of_online_blanks(tmp_path, tiny_tokenizer, mixture):
    opened = small.store(tmp_path, tiny_tokenizer)
    online = small.settings_of(opened, tiny_tokenizer, mixture=mixture)
    settings = small.store_blanks(opened, online)
    plan = BatchPlan(tuple(opened.train.group_rows.tolist()), seed=1, micro_rows=4, micro_batches=2)
    stored = RowReader(opened.train, settings)
    # Two epochs: the first from the files, the second drawn; the same as drawing both.
    assert run(stored, plan, 0, 8) == run(RowReader(opened.train, online), plan, 0, 8)
    for shard in range(2):
        there = [open_blanks(opened.train, shard, settings, epoch=epoch) is not None for epoch in (0, 1)]
        assert there == [True, False]


def test_an_error_in_the_reader_surfaces_in_the_consumer(reader, plan):
    class Broken(Exception):
        pass

    class Failing(RowReader):
        def micro_batches(self, places):
            if any(each.epoch[0] == 1 for each in places):
                raise Broken("row group 7")
            return super().micro_batches(places)

    failing = Failing(reader.split, reader.settings)
    got = []
    fed = (got.append(item.step) for item in steps(failing, plan, start=0, stop=100, rank=0, world=1))
    with pytest.raises(Broken, match="row group 7"):
        list(fed)
    assert got == list(range(8))  # 47 rows make an epoch: 48 are read, the next step begins in the second
    assert alive() == []


def test_the_thread_ends_when_the_consumer_stops(reader, plan):
    feeding = steps(reader, plan, start=0, stop=10**6, rank=0, world=1, prefetch=2)
    assert next(feeding).step == 0
    assert alive() == ["glm-feed"]
    feeding.close()
    assert alive() == []
    assert len(run(reader, plan, 0, 3)) == 3
    assert alive() == []


def test_prefetch_is_bounded(reader, plan):
    made = []
    enough = threading.Event()

    class Counting(RowReader):
        def micro_batches(self, places):
            made.extend(places)
            if len(made) == 3 * 3:
                enough.set()
            return super().micro_batches(places)

    feeding = steps(Counting(reader.split, reader.settings), plan, start=0, stop=1000, rank=0, world=1, prefetch=1)
    next(feeding)
    assert enough.wait(20), "the feed works ahead: one step taken, one ready, one in hand"
    feeding.close()
    assert len(made) <= 3 * 4


def test_each_row_group_is_decoded_once_per_epoch(tiny_store, reader, plan):
    read = []

    class Watching:
        shards, group_places = tiny_store.train.shards, tiny_store.train.group_places

        def read_group(self, group):
            read.append(group)
            return tiny_store.train.read_group(group)

    watching = RowReader(Watching(), reader.settings, cached_groups=2 * plan.window)
    n = plan.epoch_rows
    for first in range(0, 2 * n, 1):
        watching.micro_batch(plan.places(first, 1))
    assert sorted(read) == sorted(2 * list(range(len(tiny_store.train.group_rows))))


def two_segments(spans, objective=(0, 1)) -> tuple[RowBatch, Blanks]:
    rows = RowBatch(
        np.array([1, 20, 21, 22, 23, 0, 1, 30, 31]),
        np.array([0, 6, 9]),
        np.array([7, 8], np.uint64),
        np.array([40, 10]),
        np.array([0, 2]),
    )
    flat = [span for segment in spans for span in segment]
    return rows, Blanks(
        np.array(objective, np.uint8), np.array(flat), np.cumsum([0, *(len(segment) for segment in spans)])
    )


def settings_of(mixture) -> FeedSettings:
    resolved = resolve(BlanksConfig(mixture=mixture))
    token_classes = TokenClasses(1, 0, {"mask": 2, "smask": 3, "gmask": 4}, np.zeros(40, np.uint8))
    return FeedSettings("train", resolved, token_classes, Marks(38, 39, 0), 0, 40, 40, None)


def test_targets_are_blanked_tokens_and_an_eop_each():
    settings = settings_of({"token": 0.5, "document": 0.4, "sentence": 0.1})
    (micro,) = make_micro_batches(*two_segments([[(1, 2), (3, 5)], [(2, 3)]]), [1], settings)
    assert micro.counts.tolist() == [5, 2, 0]
    (micro,) = make_micro_batches(*two_segments([[(3, 6)], [(1, 3)]]), [1], settings)
    assert micro.counts.tolist() == [4, 3, 0], "eos is a target"


def test_a_fingerprint_is_of_segments_and_blanks_in_order():
    base = fingerprint(*two_segments([[(1, 2), (3, 5)], [(2, 3)]]))
    assert fingerprint(*two_segments([[(1, 2), (3, 5)], [(2, 3)]])) == base
    others = [
        two_segments([[(3, 5), (1, 2)], [(2, 3)]]),
        two_segments([[(1, 2)], [(3, 5), (2, 3)]]),
        two_segments([[(1, 2), (3, 4)], [(2, 3)]]),
        two_segments([[(1, 2), (3, 5)], [(2, 3)]], objective=(1, 0)),
    ]
    rows, blanks = two_segments([[(1, 2), (3, 5)], [(2, 3)]])
    others.append((replace(rows, ids=rows.ids[::-1]), blanks))
    assert len({base, *(fingerprint(*other) for other in others)}) == 6
    assert 0 <= base < 2**64


def test_each_micro_batch_is_finished_in_the_thread_that_prepares_it(reader, plan):
    threads = []

    def finish(micro):
        threads.append(threading.current_thread().name)
        return replace(micro, tokens=-micro.tokens)

    (plain,) = steps(reader, plan, start=3, stop=4, rank=0, world=1)
    (finished,) = steps(reader, plan, start=3, stop=4, rank=0, world=1, finish=finish)
    expected = [(index, -m.tokens, m.fingerprint) for index, m in plain.micro_batches]
    assert [(index, m.tokens, m.fingerprint) for index, m in finished.micro_batches] == expected
    assert threads == ["glm-feed"] * 3
