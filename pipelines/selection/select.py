"""Which cleaned documents go into a store: all but those that are excluded, contaminated or duplicates.

Documents are judged by bucket: equal texts of all units lie in buckets of the same number (`pipelines.corpus.records`),
so exact duplicates are found by independent tasks that hold a sixteenth of the keys each. Of several copies the first
is kept, in the order of the sources, then of their units. What is dropped goes into one file per number of buckets, in
the form of the ledger:

    <text>/near-<version>/<unit>.parquet          signatures, once per unit
    <text>/contaminated-<sets>/<unit>.parquet     matches with evaluation sets, once per unit and sets
    <root>/selections/<key>/first-<bucket>.parquet  excluded, contaminated, exact duplicates
                            near-<bucket>.parquet   near duplicates
                            contamination.parquet   which documents match which entries
                            record.json             sums, last

so a store without some documents, or with more files, is made without reading the sources again.
"""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from infra import storage
from infra.errors import DataError, UserError
from pipelines.corpus.records import Unit
from pipelines.selection import contamination, dropped, near_duplicates
from pipelines.selection.config import SelectConfig, duplicates_of
from pipelines.selection.contamination import Entries, Matches, SetReport
from pipelines.selection.dropped import DropCount, NumberedBucket, SelectedText
from pipelines.selection.exclusion import Exclusions, excluded
from pipelines.stages import Runner, run_stage

VERSION = 1
_TASK_DOCUMENTS = 20_000  # some 50 ms of work: a task takes more numbers of buckets of a small corpus


@dataclass(frozen=True)
class Selection:
    """What decides which documents are left out: SelectConfig, resolved."""

    duplicates: Literal["off", "exact", "near"]
    similarity: float
    exclude: Exclusions
    entries: Entries | None
    """Those of the evaluation sets; None without any."""
    contaminated: Literal["drop", "flag"]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as JSON values: it names the selection, and stands in the manifest."""
        settings: dict[str, Any] = {"duplicates": self.duplicates, "exclude": self.exclude.names}
        if self.duplicates == "near":
            settings |= {"similarity": self.similarity, "signatures": near_duplicates.VERSION}
        if self.entries:
            settings |= {"evaluation_sets": self.entries.digest, "contaminated": self.contaminated}
        return settings


@dataclass(frozen=True)
class Selected:
    """The outcome of a selection."""

    units: list[Unit]
    """With the counts of what is left of each."""
    text: SelectedText
    contamination: tuple[SetReport, ...]


@dataclass(frozen=True)
class JudgeJob:
    """Judge the buckets of one number. contaminated: number of a document -> what it shares text with; out: URL of the
    list of what is dropped.
    """

    places: list[NumberedBucket]
    contaminated: dict[int, str]
    out: str


@dataclass(frozen=True)
class Judged:
    """What came of a JudgeJob."""

    documents: int
    dropped: int


def resolve(
    config: SelectConfig, *, preset: Literal["off", "light", "strict"], exclude: Exclusions | None = None
) -> Selection:
    """Check the settings and read the evaluation sets. Raises UserError and DataError.

    preset: data.clean.preset; exclude: what the entries of config.exclude name.
    """
    if not 0.5 <= config.similarity <= 1:
        raise UserError(
            f"data.select.similarity must be between 0.5 and 1, got {config.similarity:g}",
            why="less similar texts are not found by their signatures",
            try_="--data.select.similarity=0.8 (the default)",
        )
    return Selection(
        duplicates=duplicates_of(config, preset),
        similarity=config.similarity,
        exclude=exclude or Exclusions(),
        entries=contamination.read_entries(config.decontaminate) if config.decontaminate else None,
        contaminated=config.contaminated,
    )


def select(selection: Selection, units: list[Unit], text_url: str, out_url: str, runner: Runner) -> Selected:
    """Judge the documents of all units, where that was not done before. Raises DataError when nothing is left.

    text_url: folder of the cleaned text; out_url: folder of the selection. Nothing is written by a selection that
    leaves nothing out.
    """
    if selection.duplicates == "off" and not selection.exclude and not selection.entries:
        return Selected(units, SelectedText(text_url, None), ())
    record_url = storage.join(out_url, "record.json")
    if not storage.exists(record_url):
        _write_selection(selection, units, text_url, out_url, runner)
    counts, reports = _read_record(record_url)
    by_unit: dict[str, list[DropCount]] = {}
    for count in counts:
        by_unit.setdefault(count.unit, []).append(count)
    left = [_without(unit, by_unit.get(unit.path, [])) for unit in units]
    if not any(unit.kept for unit in left):
        reasons = sum((Counter(unit.dropped) for unit in left), Counter[str]())
        raise DataError(
            "data.select leaves no document",
            why="dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()),
            try_="shorten data.select.exclude, or keep contaminated documents: --data.select.contaminated=flag",
        )
    return Selected(left, SelectedText(text_url, out_url), reports)


def _write_selection(selection: Selection, units: list[Unit], text_url: str, out_url: str, runner: Runner) -> None:
    entries, reports = selection.entries, list[SetReport]()
    matches = contamination.match(entries, units, text_url, runner) if entries else None
    _judge(selection, matches, units, text_url, out_url, runner)
    if selection.duplicates == "near":
        near_duplicates.drop_near_duplicates(selection.similarity, units, text_url, out_url, runner)
    if entries and matches:
        reports = contamination.write_report(entries, matches, units, text_url, out_url)
    _write_record(storage.join(out_url, "record.json"), dropped.count_drops(out_url), reports)


# --- exclusion, contamination and exact duplicates: a task per number of buckets --------------------------------------


def _judge(
    selection: Selection, matches: Matches | None, units: list[Unit], text_url: str, out_url: str, runner: Runner
) -> None:
    exclude, duplicates = selection.exclude, selection.duplicates != "off"

    def task(job: JudgeJob) -> Judged:
        table = pa.concat_tables([dropped.read_numbered(text_url, place) for place in job.places])
        reasons, details = _reasons(table, exclude, job.contaminated, duplicates=duplicates)
        return Judged(len(table), dropped.write_drops(table, reasons, details, job.out))

    by_number: dict[int, list[NumberedBucket]] = {}
    for place in dropped.numbered(units):
        by_number.setdefault(place.bucket.number, []).append(place)
    dropping = selection.entries if selection.contaminated == "drop" else None
    jobs = []
    for number, places in sorted(by_number.items()):
        out = storage.join(out_url, f"first-{number:02d}.parquet")
        if not storage.exists(out):
            shared = contamination.contaminated(dropping, matches, places) if dropping and matches else {}
            jobs.append(JudgeJob(places, shared, out))
    documents = sum(place.bucket.documents for places in by_number.values() for place in places)
    run_stage(runner, "select", task, jobs, together=_TASK_DOCUMENTS * len(by_number) // max(1, documents))


def _reasons(
    table: pa.Table, exclude: Exclusions, contaminated: dict[int, str], *, duplicates: bool
) -> tuple[list[str | None], list[str]]:
    """Reason to drop, or None, and details, of every document. Excluded goes before contaminated before duplicate."""
    reasons: list[str | None] = [None] * len(table)
    details = [""] * len(table)
    if contaminated:
        numbers = table["number"].to_numpy()
        for row in np.flatnonzero(np.isin(numbers, list(contaminated))).tolist():
            reasons[row], details[row] = "contaminated", contaminated[int(numbers[row])]
    if exclude:
        for row, name in excluded(table, exclude):
            reasons[row], details[row] = "excluded", name
    if duplicates:
        left = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
        again, first = near_duplicates.repeats(table["key"].to_numpy()[left])
        ids = table["id"].take(pa.array(left[first])).to_pylist()
        for row, kept in zip(left[again].tolist(), ids, strict=True):
            reasons[row], details[row] = "duplicate", f"of {kept.hex()}"
    return reasons, details


# --- what is left -----------------------------------------------------------------------------------------------------


def _without(unit: Unit, counts: list[DropCount]) -> Unit:
    """The unit less what is dropped of it."""
    reasons, buckets = Counter(unit.dropped), {bucket.number: bucket for bucket in unit.buckets}
    for count in counts:
        reasons[count.reason] += count.documents
        bucket = buckets[count.bucket]
        left = {"documents": bucket.documents - count.documents, "num_bytes": bucket.num_bytes - count.num_bytes}
        buckets[count.bucket] = replace(bucket, **left)
    return replace(
        unit,
        kept=unit.kept - sum(count.documents for count in counts),
        num_bytes=unit.num_bytes - sum(count.num_bytes for count in counts),
        dropped=dict(sorted(reasons.items())),
        buckets=tuple(bucket for bucket in buckets.values() if bucket.documents),
    )


def _write_record(url: str, counts: list[DropCount], reports: list[SetReport]) -> None:
    """Write the sums of a selection. The format has another word for the number of a bucket: piece."""
    drops = [
        {
            "unit": count.unit,
            "piece": count.bucket,
            "reason": count.reason,
            "documents": count.documents,
            "num_bytes": count.num_bytes,
        }
        for count in counts
    ]
    storage.write_json(url, {"dropped": drops, "contamination": [asdict(report) for report in reports]})


def _read_record(url: str) -> tuple[list[DropCount], tuple[SetReport, ...]]:
    record = storage.read_json(url)
    counts = [
        DropCount(drop["unit"], drop["piece"], drop["reason"], drop["documents"], drop["num_bytes"])
        for drop in record["dropped"]
    ]
    return counts, tuple(SetReport(**report) for report in record["contamination"])
