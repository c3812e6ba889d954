"""The past of a run: any batch that it trained on, rebuilt and checked against its log, and when it saw a document.

What a step shows the model is a function of the run's settings, its store and the step, so nothing was recorded but a
fingerprint, and nothing needs to be.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glm_model.config import GLMConfig
from glm_model.tokenizer import Tokenizer
from infra import config, storage
from infra.console import Console
from infra.errors import DataError, UserError
from infra.tracking.metric_log import Point, read_points
from pipelines.blanks.mixture import resolve
from pipelines.feed.examples import feed_settings
from pipelines.feed.micro_batches import RowReader, fingerprint
from pipelines.feed.order import BatchPlan, RowPlaces
from pipelines.keyed import MASK64
from pipelines.ragged import Blanks, RowBatch, concatenate_rows
from pipelines.store import lineage
from pipelines.store.format import TokenStore
from pipelines.token_classes import TokenClasses
from pipelines.views import render
from workflows.runs.run import find_run
from workflows.settings.budget import Budget, batch_plan, make_budget
from workflows.settings.recipe import Recipe


@dataclass
class HistoryConfig:
    """What to look up of a run."""

    run: str
    """The run: its folder (of several, `runs/a-*`, the newest) or URL, its name in ./runs, or its id in MLflow."""
    step: int | None = None
    """Rebuild the batch of this optimizer step, counted from 1 as it is logged."""
    document: str | None = None
    """List the steps that saw this document: its id, 32 hexadecimal digits."""
    count: int = 3
    """Segments of the step to show with their blanks."""
    documents: int = 30
    """Documents of the step to list; 0: all."""
    html: str | None = None
    """Write those segments to this file instead of the screen."""


@dataclass
class Past:
    """A run as it was: its recipe and store, and the order in which it read it."""

    url: str
    recipe: Recipe
    store: TokenStore
    tokenizer: Tokenizer
    budget: Budget
    plan: BatchPlan


class Batch(NamedTuple):
    """A global batch: the places of its rows by micro-batch, its rows with their blanks, and its fingerprint."""

    places: list[RowPlaces]
    rows: RowBatch
    blanks: Blanks
    fingerprint: int


def main() -> None:
    wanted = config.parse(HistoryConfig, description="Rebuild what a run was shown at a step.").config
    if (wanted.step is None) == (wanted.document is None):
        raise UserError("say what to look up of the run: --step K, or --document ID")
    past, screen = open_past(wanted.run), Console()
    if wanted.document is not None:
        _show_document(past, wanted.document, screen)
    else:
        assert wanted.step is not None
        _show_step(past, wanted, wanted.step, screen)


def open_past(run: str) -> Past:
    """The run of this folder, URL, name or MLflow id. Raises DataError when it or its store is gone."""
    url = find_run(run)
    record = storage.read_json(storage.join(url, "run.json"))
    recipe = config.from_yaml(Recipe, storage.read_bytes(storage.join(url, "config.yaml")).decode())
    store = TokenStore.open(record["store_url"])
    if store.digest != record["store_digest"]:
        raise DataError(
            f"{store.url} is not the store that this run was trained on",
            why=f"its digest is {store.digest[:12]}, the run's {record['store_digest'][:12]}",
        )
    tokenizer = Tokenizer.load(store.url)
    shape = GLMConfig.from_dict(record["model"])
    budget = make_budget(recipe, store, shape, TokenClasses.of(tokenizer), steps=record["steps"])
    return Past(url, recipe, store, tokenizer, budget, batch_plan(budget, store, recipe))


def batch_of(past: Past, step: int) -> Batch:
    """The global batch of a step, counted from 1. Raises UserError for one that the run does not have."""
    if not 1 <= step <= past.budget.steps:
        raise UserError(f"the run has no step {step}", why=f"its steps are 1 to {past.budget.steps:,}")
    reader = _reader(past)
    places = [past.plan.micro_batch(step - 1, index) for index in range(past.plan.micro_batches)]
    parts = [reader.read(place) for place in places]
    return Batch(places, *concatenate_rows(parts), sum(fingerprint(*part) for part in parts) & MASK64)


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


def sightings(past: Past, document: str) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """(epoch, step counted from 1, micro-batch, segments) of each time the run reads a document, by epoch and
    step, up to its last step, reached or not.
    """
    split, plan = past.store.train, past.plan
    held = lineage.rows_of(split, bytes.fromhex(document))
    last = past.budget.steps * plan.step_rows
    for epoch in itertools.count():
        found = sorted((plan.position(epoch, place.group, place.row), place.segments) for place in held)
        found = [(position, segments) for position, segments in found if position < last]
        if not found:
            return
        for position, segments in found:
            micro_batch = position // plan.micro_rows
            yield epoch, micro_batch // plan.micro_batches + 1, micro_batch % plan.micro_batches, segments


# -- shown -------------------------------------------------------------------------------------------------------------


def _show_step(past: Past, wanted: HistoryConfig, step: int, screen: Console) -> None:
    batch, mixture = batch_of(past, step), resolve(past.recipe.blanks)
    points = read_log(past.url)
    logged, is_reached = fingerprints(points).get(step), step <= last_step(points)
    verdict = _verdict(batch.fingerprint, logged, is_reached=is_reached, every=past.recipe.train.log_every)
    segments = Counter(mixture.names[index] for index in batch.blanks.objective.tolist())
    screen.header(
        f"{storage.base_name(past.url)} · step {step:,} of {past.budget.steps:,}",
        [
            ("rows", f"{past.plan.step_rows} in {past.plan.micro_batches} micro-batches"),
            ("tokens", f"{len(batch.rows.tokens):,} in {len(batch.rows.ids):,} segments"),
            ("objectives", ", ".join(f"{name} {segments[name]:,}" for name in mixture.names)),
            ("fingerprint", f"{batch.fingerprint:016x}, {verdict}"),
        ],
    )
    named = _documents(_origins(past, batch))
    listed = named[: wanted.documents or len(named)]
    screen.table("documents", ["document", "source", "file", "byte", "segments"], listed)
    if len(listed) < len(named):
        screen.line(f"and {len(named) - len(listed):,} more: --documents=0 lists all")
    chosen = range(min(wanted.count, len(batch.rows.ids)))
    settings = feed_settings(past.store, past.tokenizer, past.recipe.blanks)
    examples = render.view_segments(batch.rows, batch.blanks, chosen, settings, past.tokenizer)
    if wanted.html:
        title = f"{storage.base_name(past.url)}, step {step:,}"
        Path(wanted.html).write_text(render.html(examples, title=title), encoding="utf-8")
        screen.line(f"wrote {wanted.html}")
        return
    for example in examples:
        screen.rich.print(render.terminal(example), soft_wrap=True)


def _show_document(past: Past, document: str, screen: Console) -> None:
    try:
        valid = len(bytes.fromhex(document)) == 16
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"--document={document} is no document id", why="an id has 32 hexadecimal digits")
    reached = last_step(read_log(past.url))
    found = [
        (epoch, step, index, ", ".join(str(number + 1) for number in segments), "" if step <= reached else "to come")
        for epoch, step, index, segments in sightings(past, document)
    ]
    if not found:
        raise DataError(
            f"the run saw no part of {document}",
            why=f"of the store {past.store.url} its training rows within {past.budget.steps:,} steps were searched",
            try_="look for it in the store's ledger.parquet (dropped) and documents/ (held out, or not reached)",
        )
    screen.table(f"steps that saw {document}", ["epoch", "step", "micro-batch", "segments", ""], found)


def _verdict(fingerprint: int, logged: int | None, *, is_reached: bool, every: int) -> str:
    if not is_reached:
        return "to come: the run has not logged this step yet"
    if logged is None:
        return f"not logged at this step (every {every} are)"
    return "as the run logged it" if fingerprint == logged else f"but the run logged {logged:016x}"


def _documents(origins: list[lineage.Origin]) -> list[tuple[str, str, str, int, str]]:
    """Each document once, in the order of the batch, with its segments in it."""
    segments: dict[lineage.Origin, list[int]] = {}
    for origin in origins:
        segments.setdefault(origin._replace(segment=0), []).append(origin.segment + 1)
    return [
        (o.document, o.source, o.path, o.offset, f"{', '.join(map(str, sorted(numbers)))} of {o.segments}")
        for o, numbers in segments.items()
    ]


def _origins(past: Past, batch: Batch) -> list[lineage.Origin]:
    groups = np.unique(np.concatenate([place.group for place in batch.places])).tolist()
    return lineage.origins(past.store.train, groups, batch.rows.ids)


def _reader(past: Past) -> RowReader:
    # No stored blanks: all are drawn anew, so that the fingerprint checks the stored ones too.
    return RowReader(past.store.train, feed_settings(past.store, past.tokenizer, past.recipe.blanks))
