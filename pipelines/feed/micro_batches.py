"""The training feed: in each train worker the rows of the plan become micro-batches, ahead of training.

    BatchPlan        step -> places of its rows
    RowReader        places -> rows, and their blanks: stored ones, or drawn online (the same bytes)
    lay_out          rows and blanks -> what the model is asked

Its whole state is the step. A background thread reads, draws and lays out; numpy releases the interpreter lock for most
of it. A row of 8,192 positions costs a third of a millisecond of one core where the host lays it out, and a quarter
where a GPU does (docs/benchmarks.md). Why this is not Ray Data's `streaming_split`: docs/decisions/training-feed.md.
"""

import itertools
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow.parquet as pq

from glm_model.layout import Example, Packed
from pipelines import keyed
from pipelines.blanks.form import blanked_batch
from pipelines.feed.examples import FeedSettings, draw_epoch, lay_out
from pipelines.feed.order import BatchPlan, RowPlaces
from pipelines.feed.stored_blanks import open_blanks, read_blanks
from pipelines.ragged import Blanks, RowBatch, concatenate_rows, slice_rows
from pipelines.store.format import Split

# Rows in one call of the layout: array operations pay by the batch, and more rows leave the processor's cache.
_ROWS_TOGETHER = 8


@dataclass(frozen=True)
class MicroBatch:
    """What one pass through the model is asked."""

    inputs: Example | Packed
    """The rows laid out, or for the device to lay out."""
    tokens: int
    """Source tokens."""
    counts: np.ndarray
    """Targets per objective, int64 [O]."""
    fingerprint: int

    @property
    def example(self) -> Example:
        """The rows as the model is asked them, on the host."""
        return self.inputs.expand() if isinstance(self.inputs, Packed) else self.inputs


class Counted(Protocol):
    """A micro-batch of any kind."""

    @property
    def counts(self) -> np.ndarray:
        """Targets per objective, int64 [O]."""
        ...


B = TypeVar("B", bound=Counted)


@dataclass(frozen=True)
class Step(Generic[B]):
    """The part that one rank has in a step."""

    step: int
    micro_batches: list[tuple[int, B]]
    """Each with its number in the step."""
    waited_s: float = 0.0
    """How long training waited for them."""

    @property
    def counts(self) -> np.ndarray:
        """Targets per objective of this rank, int64 [O]."""
        counts = [micro_batch.counts for _, micro_batch in self.micro_batches]
        return np.sum(counts, axis=0) if counts else np.zeros(0, np.int64)


class RowReader:
    """Rows and their blanks by place. The last `cached_groups` row groups stay decoded, about those of two windows."""

    def __init__(self, split: Split, settings: FeedSettings, *, cached_groups: int = 16) -> None:
        self.split, self.settings = split, settings
        self._cache: OrderedDict[tuple[int, int], tuple[RowBatch, Blanks]] = OrderedDict()
        self._files: dict[tuple[int, int], pq.ParquetFile | None] = {}  # stored blanks, by epoch and shard
        self._cached_groups = cached_groups

    def micro_batch(self, places: RowPlaces) -> MicroBatch:
        """The rows at `places` as one micro-batch."""
        return self.micro_batches([places])[0]

    def micro_batches(self, places: list[RowPlaces]) -> list[MicroBatch]:
        """The rows at each of `places`, all laid out together, as a micro-batch each."""
        taken = [row for each in places for row in self._rows(each)]
        return make_micro_batches(*concatenate_rows(taken), [len(each.row) for each in places], self.settings)

    def read(self, places: RowPlaces) -> tuple[RowBatch, Blanks]:
        """The rows at `places` and their blanks, in that order."""
        return concatenate_rows(list(self._rows(places)))

    def _rows(self, places: RowPlaces) -> Iterator[tuple[RowBatch, Blanks]]:
        for epoch, group, row in zip(*(array.tolist() for array in places), strict=True):
            yield slice_rows(*self._group(epoch, group), row, row + 1)

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
        file = self._stored_blanks(epoch, shard)
        return draw_epoch(rows, self.settings, epoch) if file is None else read_blanks(file, index, rows)

    def _stored_blanks(self, epoch: int, shard: int) -> pq.ParquetFile | None:
        key = (epoch, shard)
        if key not in self._files:
            self._files[key] = open_blanks(self.split, shard, self.settings, epoch=epoch)
        return self._files[key]


def steps(
    reader: RowReader,
    plan: BatchPlan,
    *,
    start: int,
    stop: int,
    rank: int,
    world: int,
    prefetch: int = 4,
    finish: Callable[[MicroBatch], MicroBatch] | None = None,
) -> Iterator[Step[MicroBatch]]:
    """The steps start .. stop - 1 of one rank, prepared ahead by a background thread. Errors surface here.

    finish: what the thread does to each micro-batch last, such as moving it to page-locked memory.
    """
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
                indices = range(rank, plan.micro_batches, world)
                made = _micro_batches(reader, plan, step, indices)
                made = map(finish, made) if finish else made
                if not put(Step(step, list(zip(indices, made, strict=True)))):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="glm-feed", daemon=True)
    thread.start()
    try:
        while True:
            began_at = time.perf_counter()
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield replace(item, waited_s=time.perf_counter() - began_at)
    finally:
        stopped.set()
        thread.join(timeout=10)


def _micro_batches(reader: RowReader, plan: BatchPlan, step: int, indices: range) -> Iterator[MicroBatch]:
    together = max(_ROWS_TOGETHER // plan.micro_rows, 1)
    for first in range(0, len(indices), together):
        places = [plan.micro_batch(step, index) for index in indices[first : first + together]]
        yield from reader.micro_batches(places)


def make_micro_batches(rows: RowBatch, blanks: Blanks, sizes: list[int], settings: FeedSettings) -> list[MicroBatch]:
    """Rows and their blanks as consecutive micro-batches of so many rows each."""
    edges = list(itertools.pairwise(itertools.accumulate(sizes, initial=0)))
    parts = [slice_rows(rows, blanks, first, last) for first, last in edges]
    inputs: list[Example | Packed]
    if settings.expand_on_device and settings.mixture.form.on_device:
        inputs = [_packed(*part, settings) for part in parts]
    else:
        example = lay_out(rows, blanks, settings)
        inputs = [example.slice_rows(first, last) for first, last in edges]
    return [
        MicroBatch(each, len(part[0].tokens), _targets(part[1], settings), fingerprint(*part))
        for each, part in zip(inputs, parts, strict=True)
    ]


def _packed(rows: RowBatch, blanks: Blanks, settings: FeedSettings) -> Packed:
    batch = blanked_batch(rows, blanks, settings.layout.mask_ids)
    return Packed(batch, rows.row_offsets, settings.width, settings.marks)


def fingerprint(rows: RowBatch, blanks: Blanks) -> int:
    """64-bit identity of what a micro-batch asks of the model: its segments and their blanks, in order."""
    counts = blanks.counts.astype(np.uint64)
    parts = (rows.ids, blanks.objective.astype(np.uint64), counts, blanks.spans.ravel().astype(np.uint64))
    flat = np.concatenate(parts)
    return int(keyed.scramble(flat + keyed.scramble(np.arange(len(flat), dtype=np.uint64))).sum(dtype=np.uint64))


def _targets(blanks: Blanks, settings: FeedSettings) -> np.ndarray:
    """Targets per objective, int64 [O]."""
    targets, count = settings.mixture.form.targets(blanks), len(settings.mixture.names)
    return np.bincount(blanks.objective, weights=targets, minlength=count).astype(np.int64)
