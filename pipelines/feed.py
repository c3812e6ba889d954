"""The training feed: a prefetching reader in each train worker that turns planned rows into micro-batches.

Its whole state is the step: rows come from `BatchPlan`, blanks from stored plans or drawn online (the same bytes). A
background thread reads, draws and lays out ahead of training; numpy releases the interpreter lock for most of it.
Why this is not Ray Data's `streaming_split`: docs/decisions/training-feed.md.
"""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from glm_model.layout import Example, Marks
from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines import blanks, examples, keyed, plans
from pipelines.batches import BatchPlan, RowPlaces
from pipelines.blanks import Blanks, BlanksConfig, Mixture, RowBatch
from pipelines.store import Split, TokenStore
from pipelines.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Recipe:
    """What decides how rows become examples. plan_key: folder of stored plans to use where they exist, or None."""

    split_name: str
    mixture: Mixture
    vocabulary: Vocabulary
    marks: Marks
    seed: int
    width: int
    sequence_length: int
    plan_key: str | None


def recipe_of(
    opened: TokenStore, tokenizer: Tokenizer, config: BlanksConfig, *, split: str = "train", plan_key: str | None = None
) -> Recipe:
    """How a run with these blanks reads a store."""
    special, settings = tokenizer.special, opened.manifest["settings"]
    return Recipe(
        split_name=split,
        mixture=blanks.resolve(config),
        vocabulary=Vocabulary.of(tokenizer),
        marks=Marks(sop=special.sop, eop=special.eop, pad=special.pad),
        seed=config.seed,
        width=settings["row_width"],
        sequence_length=settings["sequence_length"],
        plan_key=plan_key,
    )


@dataclass
class MicroBatch:
    """One micro-batch. counts: targets per objective [O]; blank_bytes: UTF-8 bytes of the blanked text per objective
    [O].
    """

    example: Example
    tokens: int
    counts: np.ndarray
    blank_bytes: np.ndarray
    fingerprint: int

    def tensors(self, device: "torch.device | str" = "cpu") -> "dict[str, torch.Tensor]":
        import torch

        return {
            name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in self.example.arrays().items()
        }


@dataclass
class Step:
    """The micro-batches of one rank at one step. waited_s: how long training waited for them."""

    step: int
    micro_batches: list[tuple[int, MicroBatch]]
    waited_s: float = 0.0

    @property
    def counts(self) -> np.ndarray:
        """Targets per objective of this rank, int64 [O]."""
        return (
            np.sum([m.counts for _, m in self.micro_batches], axis=0) if self.micro_batches else np.zeros(0, np.int64)
        )


class Reader:
    """Rows and their blanks by place, keeping the row groups of about two windows decoded."""

    def __init__(self, split: Split, recipe: Recipe, *, cached_groups: int = 16) -> None:
        self.split, self.recipe = split, recipe
        self._cache: OrderedDict[tuple[int, int], tuple[RowBatch, Blanks]] = OrderedDict()
        self._plan_files: dict[tuple[int, int], pq.ParquetFile | None] = {}
        self._cached_groups = cached_groups

    def micro_batch(self, places: RowPlaces) -> MicroBatch:
        """Lay out the rows at `places` as one micro-batch."""
        rows, drawn = self.rows(places)
        recipe = self.recipe
        example = examples.lay_out(
            rows,
            drawn,
            recipe.mixture,
            recipe.vocabulary,
            width=recipe.width,
            marks=recipe.marks,
            length=recipe.sequence_length,
        )
        counts, blank_bytes = _blank_totals(rows, drawn, self.recipe)
        return MicroBatch(example, len(rows.tokens), counts, blank_bytes, fingerprint(rows, drawn))

    def rows(self, places: RowPlaces) -> tuple[RowBatch, Blanks]:
        """The rows at `places` and their blanks, in that order."""
        taken = [
            _take_row(*self._group(int(epoch), int(group)), int(row))
            for epoch, group, row in zip(places.epoch, places.group, places.row, strict=True)
        ]
        return concatenate(taken)

    def _group(self, epoch: int, group: int) -> tuple[RowBatch, Blanks]:
        key = (epoch, group)
        if key not in self._cache:
            rows = self.split.read_group(group)
            self._cache[key] = (rows, self._blanks(epoch, group, rows))
            while len(self._cache) > self._cached_groups:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _blanks(self, epoch: int, group: int, rows: RowBatch) -> Blanks:
        shard, index = self.split.group_places[group]
        file = self._plan_file(epoch, shard)
        if file is not None:
            return plans.read_plan(file, index, rows)
        recipe = self.recipe
        drawn, _ = blanks.draw_rows(
            recipe.mixture, rows, recipe.vocabulary, seed=recipe.seed, epoch=epoch, width=recipe.width
        )
        return drawn

    def _plan_file(self, epoch: int, shard: int) -> pq.ParquetFile | None:
        key = (epoch, shard)
        if key not in self._plan_files:
            self._plan_files[key] = None
            if self.recipe.plan_key:
                path = plans.plan_path(
                    self.recipe.plan_key, self.recipe.split_name, epoch, self.split.shards[shard].path
                )
                url = storage.join(self.split.base(shard), path)
                if storage.exists(url):
                    self._plan_files[key] = storage.open_parquet(url)
        return self._plan_files[key]


def steps(
    reader: Reader, plan: BatchPlan, *, start: int, stop: int, rank: int, world: int, prefetch: int = 4
) -> Iterator[Step]:
    """The steps start .. stop - 1 of one rank, prepared ahead by a background thread. Errors surface here."""
    ready: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=prefetch)
    stopped = threading.Event()

    def put(item: Step | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in range(start, stop):
                mine = range(rank, plan.micro_batches, world)
                item = Step(step, [(index, reader.micro_batch(plan.micro_batch(step, index))) for index in mine])
                if not put(item):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="glm-feed", daemon=True)
    thread.start()
    try:
        while True:
            asked_at = time.perf_counter()
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            item.waited_s = time.perf_counter() - asked_at
            yield item
    finally:
        stopped.set()
        thread.join(timeout=10)


def fingerprint(rows: RowBatch, drawn: Blanks) -> int:
    """64-bit identity of what a micro-batch asks of the model: its segments and their blanks, in order."""
    counts = np.diff(drawn.span_offsets).astype(np.uint64)
    parts = (rows.ids, drawn.objective.astype(np.uint64), counts, drawn.spans.ravel().astype(np.uint64))
    flat = np.concatenate(parts)
    return int(keyed.mix(flat + keyed.mix(np.arange(len(flat), dtype=np.uint64))).sum(dtype=np.uint64))


def _blank_totals(rows: RowBatch, drawn: Blanks, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Per objective [O]: targets (blanked tokens and one [eop] per appended blank), and the bytes of their text.

    The bytes of a segment are shared out by the blanked share of its text tokens; eos is no text.
    """
    sizes = drawn.spans[:, 1] - drawn.spans[:, 0]
    num_blanks = np.diff(drawn.span_offsets)
    blanked = np.add.reduceat(sizes, drawn.span_offsets[:-1]) if len(num_blanks) else np.zeros(0, np.int64)
    has_eos = rows.tokens[rows.offsets[1:] - 1] == recipe.vocabulary.eos
    lengths = np.diff(rows.offsets)
    reaches_end = (
        np.maximum.reduceat(drawn.spans[:, 1], drawn.span_offsets[:-1]) == lengths if len(lengths) else has_eos
    )
    share = (blanked - (has_eos & reaches_end)) / np.maximum(lengths - 1 - has_eos, 1)
    objectives = len(recipe.mixture.names)
    targets = blanked if recipe.mixture.form.in_place else blanked + num_blanks
    counts = np.bincount(drawn.objective, weights=targets, minlength=objectives)
    return counts.astype(np.int64), np.bincount(drawn.objective, weights=share * rows.num_bytes, minlength=objectives)


def _take_row(rows: RowBatch, drawn: Blanks, row: int) -> tuple[RowBatch, Blanks]:
    """One row of a row group, as views."""
    first, last = int(rows.row_offsets[row]), int(rows.row_offsets[row + 1])
    begin, end = int(rows.offsets[first]), int(rows.offsets[last])
    span_begin, span_end = int(drawn.span_offsets[first]), int(drawn.span_offsets[last])
    taken = RowBatch(
        rows.tokens[begin:end],
        rows.offsets[first : last + 1] - begin,
        rows.ids[first:last],
        rows.num_bytes[first:last],
        np.array([0, last - first]),
    )
    spans = drawn.spans[span_begin:span_end]
    return taken, Blanks(drawn.objective[first:last], spans, drawn.span_offsets[first : last + 1] - span_begin)


def concatenate(parts: list[tuple[RowBatch, Blanks]]) -> tuple[RowBatch, Blanks]:
    """Rows and their blanks, one part after the other."""
    rows, drawn = [p[0] for p in parts], [p[1] for p in parts]
    batch = blanks.concatenate_rows(rows)
    return batch, Blanks(
        np.concatenate([b.objective for b in drawn]),
        np.concatenate([b.spans for b in drawn]),
        blanks.join_offsets([b.span_offsets for b in drawn]),
    )
