"""The past of a run: any batch that it trained on, rebuilt and checked against its log, and when it saw a document.

What a step shows the model is a function of the run's settings, its store and the step, so nothing was recorded but a
fingerprint, and nothing needs to be.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from infra import config, storage
from infra.console import Console
from infra.errors import DataError, UserError
from infra.tracking.metric_log import Point, read_points
from pipelines.feed.micro_batches import RowReader, fingerprint
from pipelines.feed.order import BatchPlan, RowPlaces
from pipelines.keyed import MASK64
from pipelines.ragged import Blanks, RowBatch, concatenate_rows
from pipelines.store import lineage
from workflows.runs.moved import find_again
from workflows.runs.record import read_record
from workflows.runs.run import find_run
from workflows.runs.setup import Setup, resolve_setup
from workflows.settings.budget import batch_plan
from workflows.settings.recipe import Recipe


@dataclass(frozen=True)
class Past:
    """A run as it was, and the order in which it read its store."""

    url: str
    setup: Setup
    plan: BatchPlan

    @property
    def name(self) -> str:
        return storage.base_name(self.url)


@dataclass(frozen=True)
class Batch:
    """A global batch."""

    places: list[RowPlaces]
    """Where its rows lie, by micro-batch."""
    rows: RowBatch
    blanks: Blanks
    fingerprint: int


class Sighting(NamedTuple):
    """A time that a run reads a document."""

    epoch: int
    step: int
    """Counted from 1."""
    micro_batch: int
    segments: tuple[int, ...]
    """Which of the document's, counted from 0."""


def open_past(run: str, *, store: str | None = None) -> Past:
    """The run of this folder, URL, name or MLflow id. store: where its store lies now, if it moved alone.

    Raises DataError when the run or its store is gone, and when it has not begun to train.
    """
    url = find_run(run)
    record = read_record(url)
    if record.store_url is None or record.model is None:
        raise DataError(f"the run {run} has not begun to train", try_="start its pretrain.py")
    recipe = config.from_yaml(Recipe, storage.read_bytes(storage.join(url, "config.yaml")).decode())
    opened = find_again(replace(record, store_url=store or record.store_url), url, root=recipe.data.root)
    if opened is None:
        raise DataError(
            f"{store or record.store_url} is not the store that this run was trained on, or is gone",
            why=f"its digest is {str(record.store_digest)[:12]}",
            try_="give the place where it lies now: --store=<folder>",
        )
    setup = resolve_setup(recipe, opened, Console(), shape=record.model, steps=record.steps)
    return Past(url, setup, batch_plan(setup.budget, opened, recipe))


def batch_of(past: Past, step: int) -> Batch:
    """The global batch of a step, counted from 1. Raises UserError for one that the run does not have."""
    steps = past.setup.budget.steps
    if not 1 <= step <= steps:
        raise UserError(f"the run has no step {step}", why=f"its steps are 1 to {steps:,}", try_=f"--step={steps}")
    # `Setup.feed` names no stored blanks: all are drawn again, so that the fingerprint checks the stored ones too.
    reader = RowReader(past.setup.store.train, past.setup.feed)
    places = [past.plan.micro_batch(step - 1, index) for index in range(past.plan.micro_batches)]
    parts = [reader.read(place) for place in places]
    rows, blanks = concatenate_rows(parts)
    return Batch(places, rows, blanks, sum(fingerprint(*part) for part in parts) & MASK64)


def read_log(run_url: str) -> list[Point]:
    """All points that the run in this folder has logged so far (`infra.tracking.metric_log.read_points`), read once."""
    return list(read_points(storage.join(run_url, "metrics.jsonl")))


def fingerprints(points: Iterable[Point]) -> dict[int, int]:
    """Step -> fingerprint of its batch, of each step that has one among a run's points: every `train.log_every`."""
    return {
        point.step: int(values["data/fingerprint_high"]) << 32 | int(values["data/fingerprint_low"])
        for point in points
        if "data/fingerprint_low" in (values := point.values)
    }


def last_step(points: Iterable[Point]) -> int:
    """The last step among a run's points; 0 before the first."""
    return max((point.step for point in points), default=0)


def sightings(past: Past, document: str) -> Iterator[Sighting]:
    """Each time that the run reads a document, by epoch and step, up to its last step, reached or not.

    document: its id, 32 hexadecimal digits. Raises UserError for another text.
    """
    if not re.fullmatch("[0-9a-fA-F]{32}", document):
        raise UserError(
            f"--document={document} is not a document id",
            why="an id has 32 hexadecimal digits",
            try_="take one of those that --step lists",
        )
    plan = past.plan
    places = lineage.rows_of(past.setup.store.train, bytes.fromhex(document))
    last = past.setup.budget.steps * plan.step_rows
    for epoch in itertools.count():
        reads = sorted((plan.position(epoch, place.group, place.row), place.segments) for place in places)
        reads = [(position, segments) for position, segments in reads if position < last]
        if not reads:
            return
        for position, segments in reads:
            step, micro_batch = divmod(position // plan.micro_rows, plan.micro_batches)
            yield Sighting(epoch, step + 1, micro_batch, segments)


def origins(past: Past, batch: Batch) -> list[lineage.Origin]:
    """Where each segment of a batch comes from, in the order of the batch."""
    groups = np.unique(np.concatenate([place.group for place in batch.places])).tolist()
    return lineage.origins(past.setup.store.train, groups, batch.rows.ids)


def documents_of(found: list[lineage.Origin]) -> list[tuple[str, str, str, int, str]]:
    """Each document once, in the order of the batch, with its segments in it."""
    segments: dict[lineage.Origin, list[int]] = {}
    for origin in found:
        segments.setdefault(origin._replace(segment=0), []).append(origin.segment + 1)
    return [
        (o.document, o.source, o.path, o.offset, f"{', '.join(map(str, sorted(numbers)))} of {o.segments}")
        for o, numbers in segments.items()
    ]


def verdict(past: Past, step: int, batch: Batch) -> str:
    """What the run's log says of the fingerprint of a step's batch."""
    points = read_log(past.url)
    if step > last_step(points):
        return "to come: the run has not logged this step yet"
    logged = fingerprints(points).get(step)
    if logged is None:
        return f"not logged at this step (every {past.setup.recipe.train.log_every} are)"
    return "as the run logged it" if batch.fingerprint == logged else f"but the run logged {logged:016x}"
