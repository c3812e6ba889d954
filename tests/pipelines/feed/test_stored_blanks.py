"""Stored blanks: those that training would draw, row group by row group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from helpers import small

from pipelines.blanks.draw import draw_blanks, draw_rows
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed.examples import FeedSettings, draw_epoch
from pipelines.feed.stored_blanks import (
    StoredBlanks,
    blanks_key,
    blanks_path,
    open_blanks,
    read_blanks,
    redrawn_rows,
    write_blanks,
)
from pipelines.ragged import Segments, concatenate_segments
from pipelines.store.format import Split, write_shard

U2 = np.dtype("<u2")


def golden(mixture: str, *, width: int) -> FeedSettings:
    return replace(small.golden_settings(resolve(BlanksConfig(mixture=mixture)), width=width), blanks_key="k")


def split_of(folder: Path, segments: Segments, rows: list[np.ndarray], *, rows_per_group: int) -> Split:
    """A split of one shard, train/shard-00000.parquet."""
    path = "train/shard-00000.parquet"
    shard = write_shard(
        f"{folder}/{path}", segments, rows, dtype=U2, rows_per_group=rows_per_group, expected_fill=0.5, path=path
    )
    return Split(str(folder), [shard], U2)


def test_stored_blanks_have_the_row_groups_of_their_shard_and_the_blanks_of_each(tmp_path, tiny_store, tiny_tokenizer):
    settings = replace(small.settings_of(tiny_store, tiny_tokenizer, seed=3), blanks_key="k")
    split = tiny_store.train
    group = 0
    for shard, entry in enumerate(split.shards):
        stored = write_blanks(str(tmp_path), split, shard, settings, epoch=2)
        file = pq.ParquetFile(tmp_path / blanks_path("k", "train", 2, entry.path))
        assert file.num_row_groups == len(entry.groups)
        assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == list(entry.groups)
        num_blanks = 0
        for index in range(len(entry.groups)):
            rows = split.read_group(group)
            online = draw_epoch(rows, settings, 2)
            assert small.contents(read_blanks(file, index, rows)) == small.contents(online)
            num_blanks += len(online.spans)
            group += 1
        assert stored == StoredBlanks(redrawn_rows=0, blanks=num_blanks, segments=entry.segments)


def test_redrawn_rows_are_stored_as_redrawn_and_counted(tmp_path, tiny_store, tiny_tokenizer):
    """A width that a row exceeds now and then, so that its blanks come from another draw."""
    settings = replace(small.settings_of(tiny_store, tiny_tokenizer, mixture="glm", seed=3), blanks_key="k")
    split, mixture, classes = tiny_store.train, settings.mixture, settings.token_classes
    rows = split.read_group(0)
    once = draw_blanks(mixture, rows, classes, seed=3, epoch=0)
    sizes = np.diff(rows.offsets) + 2 * np.diff(once.span_offsets)
    width = int(np.add.reduceat(sizes, rows.row_offsets[:-1]).max()) - 1
    stored = write_blanks(str(tmp_path), split, 0, replace(settings, width=width), epoch=0)
    file = pq.ParquetFile(tmp_path / blanks_path("k", "train", 0, split.shards[0].path))
    online, redraws = draw_rows(mixture, rows, classes, seed=3, epoch=0, width=width)
    assert redraws.any()
    assert stored.redrawn_rows >= (redraws > 0).sum()
    write_blanks(str(tmp_path), split, 1, replace(settings, width=10 * width), epoch=0)
    assert redrawn_rows(f"{tmp_path}/plans/k") == stored.redrawn_rows, "the second shard's rows all fitted"
    assert small.contents(read_blanks(file, 0, rows)) == small.contents(online)


def test_segments_past_65536_tokens_stand_beside_short_ones(tmp_path):
    """Starts need four bytes then, in every row group of the shard."""
    segments, settings = small.numbers([10, 70_000, 10], [True, False, True]), golden("glm_doc", width=90_000)
    for order in ([0, 1, 2], [1, 0, 2]):
        split = split_of(tmp_path, segments, [np.array([row]) for row in order], rows_per_group=1)
        for epoch in range(3):
            write_blanks(str(tmp_path), split, 0, settings, epoch=epoch)
            file = open_blanks(split, 0, settings, epoch=epoch)
            assert file is not None
            for group in range(3):
                rows = split.read_group(group)
                stored, online = read_blanks(file, group, rows), draw_epoch(rows, settings, epoch)
                assert small.contents(stored) == small.contents(online), (order, epoch, group)


def test_blanks_take_about_80_bytes_per_512_token_segment(tmp_path):
    segments = small.numbers([510] * 400, [True] * 400)
    split = split_of(tmp_path, segments, [np.arange(i, i + 8) for i in range(0, 400, 8)], rows_per_group=50)
    write_blanks(str(tmp_path), split, 0, golden("glm", width=8192), epoch=0)
    size = (tmp_path / blanks_path("k", "train", 0, split.shards[0].path)).stat().st_size
    assert 40 < size / 400 < 110


def test_a_shard_without_rows_has_a_file_without_rows(tmp_path):
    split, settings = split_of(tmp_path, concatenate_segments([]), [], rows_per_group=4), golden("glm", width=160)
    assert (split.shards[0].groups, split.rows) == ((), 0)
    assert open_blanks(split, 0, settings, epoch=0) is None
    assert write_blanks(str(tmp_path), split, 0, settings, epoch=0) == StoredBlanks(0, 0, 0)
    file = open_blanks(split, 0, settings, epoch=0)
    assert file is not None
    assert file.num_row_groups == 0
    assert open_blanks(split, 0, replace(settings, blanks_key=None), epoch=0) is None


def key(config: BlanksConfig, *, seed: int = 1, width: int = 160) -> str:
    return blanks_key(resolve(config), seed=seed, width=width)


def test_stored_blanks_are_named_by_all_that_decides_them():
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
    assert base == "4e3fc0360f435e7f", "stores that are there keep their names"
    by_shares = {"token": 0.5, "sentence": 0.3, "document": 0.2}
    assert key(BlanksConfig(mixture=by_shares)) == base, "by content, not by name"
    assert key(BlanksConfig(settings={"token": {"ratio": 0.15}})) == base
    assert key(BlanksConfig(mask_tokens="sentinel", noise=0.1)) == base, "which blanks, not what they look like"
    path = blanks_path("k", "train", 3, "train/shard-00007.parquet")
    assert path == "plans/k/train/epoch-00003/shard-00007.parquet"
