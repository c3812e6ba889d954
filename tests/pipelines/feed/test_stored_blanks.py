"""Stored plans: the blanks that training would draw, row group by row group."""

import numpy as np
import pyarrow.parquet as pq
from helpers import small

from pipelines.blanks import draw
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed import stored_blanks
from pipelines.ragged import Segments, concatenate_segments
from pipelines.store import format
from pipelines.token_classes import TokenClasses


def test_a_plan_has_the_row_groups_of_its_shard_and_the_blanks_of_each(tmp_path, tiny_store, tiny_tokenizer):
    token_classes, mixture = TokenClasses.of(tiny_tokenizer), resolve(BlanksConfig())
    split, url = tiny_store.train, str(tmp_path)
    group = 0
    for shard, entry in enumerate(split.shards):
        told = stored_blanks.write_blanks(
            url, split, shard, mixture, token_classes, key="k", name="train", seed=3, epoch=2, width=160
        )
        file = pq.ParquetFile(tmp_path / stored_blanks.blanks_path("k", "train", 2, entry.path))
        assert file.num_row_groups == len(entry.groups)
        assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == list(entry.groups)
        num_blanks = 0
        for index in range(len(entry.groups)):
            rows = split.read_group(group)
            online, _ = draw.draw_rows(mixture, rows, token_classes, seed=3, epoch=2, width=160)
            assert small.contents(stored_blanks.read_blanks(file, index, rows)) == small.contents(online)
            num_blanks += len(online.spans)
            group += 1
        assert told == {"redrawn_rows": 0, "blanks": num_blanks, "segments": entry.segments}


def test_redrawn_rows_are_stored_as_redrawn_and_counted(tmp_path, tiny_store, tiny_tokenizer):
    """A width that a row exceeds now and then, so that its blanks come from another draw."""
    token_classes, mixture = TokenClasses.of(tiny_tokenizer), resolve(BlanksConfig(mixture="glm"))
    split = tiny_store.train
    rows = split.read_group(0)
    once = draw.draw(mixture, rows, token_classes, seed=3, epoch=0)
    sizes = np.diff(rows.offsets) + 2 * np.diff(once.span_offsets)
    width = int(np.add.reduceat(sizes, rows.row_offsets[:-1]).max()) - 1
    told = stored_blanks.write_blanks(
        str(tmp_path), split, 0, mixture, token_classes, key="k", name="train", seed=3, epoch=0, width=width
    )
    file = pq.ParquetFile(tmp_path / stored_blanks.blanks_path("k", "train", 0, split.shards[0].path))
    online, redraws = draw.draw_rows(mixture, rows, token_classes, seed=3, epoch=0, width=width)
    assert redraws.any()
    assert told["redrawn_rows"] >= (redraws > 0).sum()
    stored_blanks.write_blanks(
        str(tmp_path), split, 1, mixture, token_classes, key="k", name="train", seed=3, epoch=0, width=10 * width
    )
    assert stored_blanks.redrawn_rows(f"{tmp_path}/plans/k") == told["redrawn_rows"], (
        "the second shard's rows all fitted"
    )
    assert small.contents(stored_blanks.read_blanks(file, 0, rows)) == small.contents(online)


def test_segments_past_65536_tokens_are_planned_beside_short_ones(tmp_path):
    """Starts need four bytes then, in every row group of the shard."""
    token_classes = small.golden_classes()
    rows = small.numbers([10, 70_000, 10], [True, False, True])
    segments = Segments(rows.tokens, rows.offsets, rows.ids, rows.num_bytes)
    for number, order in enumerate(([[0], [1], [2]], [[1], [0], [2]])):
        path = f"train/shard-{number:05d}.parquet"
        shard = format.write_shard(
            f"{tmp_path}/{path}",
            segments,
            [np.array(row) for row in order],
            dtype=np.dtype("<u2"),
            rows_per_group=1,
            expected_fill=0.5,
            path=path,
        )
        split, mixture = format.Split(str(tmp_path), [shard], np.dtype("<u2")), resolve(BlanksConfig(mixture="glm_doc"))
        for epoch in range(3):
            stored_blanks.write_blanks(
                str(tmp_path),
                split,
                0,
                mixture,
                token_classes,
                key="k",
                name="train",
                seed=3,
                epoch=epoch,
                width=90_000,
            )
            file = pq.ParquetFile(tmp_path / stored_blanks.blanks_path("k", "train", epoch, path))
            for group in range(3):
                batch = split.read_group(group)
                online, _ = draw.draw_rows(mixture, batch, token_classes, seed=3, epoch=epoch, width=90_000)
                stored = stored_blanks.read_blanks(file, group, batch)
                assert small.contents(stored) == small.contents(online), (order, epoch, group)


def test_a_plan_takes_about_80_bytes_per_512_token_segment(tmp_path):
    rows = small.numbers([510] * 400, [True] * 400)
    segments = Segments(rows.tokens, rows.offsets, rows.ids, rows.num_bytes)
    shard = format.write_shard(
        f"{tmp_path}/a.parquet", segments, [np.arange(i, i + 8) for i in range(0, 400, 8)],
        dtype=np.dtype("<u2"), rows_per_group=50, expected_fill=0.5, path="a.parquet",
    )  # fmt: skip
    split = format.Split(str(tmp_path), [shard], np.dtype("<u2"))
    mixture = resolve(BlanksConfig(mixture="glm"))
    stored_blanks.write_blanks(
        str(tmp_path), split, 0, mixture, small.golden_classes(), key="k", name="train", seed=1, epoch=0, width=8192
    )
    size = (tmp_path / stored_blanks.blanks_path("k", "train", 0, "a.parquet")).stat().st_size
    assert 40 < size / 400 < 110


def test_a_shard_without_rows_has_a_plan_without_rows(tmp_path):
    shard = format.write_shard(
        f"{tmp_path}/a.parquet",
        concatenate_segments([]),
        [],
        dtype=np.dtype("<u2"),
        rows_per_group=4,
        expected_fill=0.0,
        path="a.parquet",
    )
    split = format.Split(str(tmp_path), [shard], np.dtype("<u2"))
    told = stored_blanks.write_blanks(
        str(tmp_path), split, 0, resolve(BlanksConfig()), small.golden_classes(),
        key="k", name="train", seed=1, epoch=0, width=160,
    )  # fmt: skip
    assert (shard.groups, shard.rows, split.rows) == ((), 0, 0)
    assert told == {"redrawn_rows": 0, "blanks": 0, "segments": 0}


def key(config: BlanksConfig, *, seed: int = 1, width: int = 160) -> str:
    return stored_blanks.blanks_key(config, resolve(config), seed=seed, width=width)


def test_a_plan_is_named_by_all_that_decides_its_blanks():
    base = key(BlanksConfig())
    others = [
        key(BlanksConfig(), seed=2),
        key(BlanksConfig(), width=161),
        key(BlanksConfig(mixture="glm")),
        key(BlanksConfig(mixture={"token": 0.5, "sentence": 0.2, "document": 0.3})),
        key(BlanksConfig(mixture={"sentence": 0.3, "token": 0.5, "document": 0.2})),
        key(BlanksConfig(settings={"token": {"ratio": 0.3}})),
        key(BlanksConfig(order="left_to_right")),
    ]
    assert len({base, *others}) == 8
    assert key(BlanksConfig(mixture={"token": 0.5, "sentence": 0.3, "document": 0.2})) == base, (
        "by content, not by name"
    )
    assert key(BlanksConfig(settings={"token": {"ratio": 0.15}})) == base
    assert key(BlanksConfig(mask_tokens="sentinel", noise=0.1)) == base, "which blanks, not what they look like"
    assert (
        stored_blanks.blanks_path("k", "train", 3, "train/shard-00007.parquet")
        == "plans/k/train/epoch-00003/shard-00007.parquet"
    )
