"""A model on every row of a table.

    <to>/<file>-<shard>-<key>.parquet     rows in the order of the input: its columns, then ours
         _manifest.json                   written last: what the files follow from, and their rows

The key is a hash of all that decides the file (`plan`). So whatever is there is right, whoever made it, and a
prediction that was stopped continues behind it. Law 22: no row vanishes.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from infra import storage
from infra.console import Console, counted, duration, human
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.questions.rows import SHOWN, check_bad
from workflows.evaluation.workers import Workers
from workflows.prediction.blocks import ROWS, Block
from workflows.prediction.config import PredictConfig
from workflows.prediction.inputs import Shard, read_shards
from workflows.prediction.plan import Plan, check_lost

MANIFEST = "_manifest.json"  # readers of folders of Parquet skip names that begin so


def predict(options: PredictConfig, plan: Plan, workers: Workers, screen: Console) -> None:
    """Answer the shards that are not there, and write the manifest.

    Raises DataError where more files than `max_lost` cannot be read, when the others are answered.
    """
    have, lost = check_place(options.to, plan), dict(plan.lost)
    shards = _Shards(options, plan, have, lost)
    began, answered = time.perf_counter(), 0
    with screen.progress("predicting", plan.rows) as live:
        for number, found, _ in workers.answers(shards.blocks()):
            answered += len(found)
            per_s = answered / (time.perf_counter() - began)
            live.update(shards.skipped + answered, f"{human(per_s)} rows/s")
            if whole := shards.take(number, found):
                parquet.write_table(storage.join(options.to, whole.file), _table(whole, plan))
        live.update(shards.skipped + answered)
    seconds = time.perf_counter() - began
    if answered:
        screen.line(f"{_rate(answered, seconds)}, {_cost(options, workers, seconds)}")
    check_lost(lost, len(plan.urls), options)
    if plan.lost != lost:
        raise DataError(f"{options.input} changed while it was read", try_="run the same command again: it continues")
    storage.write_json(storage.join(options.to, MANIFEST), _manifest(options.to, plan))


def check_place(to: str, plan: Plan) -> set[str]:
    """The files that are there. Raises UserError where others are: readers would take them for rows of this input."""
    have = {info.path for info in storage.list_files(to)} if storage.exists(to) else set()
    if have - {MANIFEST, *plan.files}:
        raise UserError(
            f"{to} holds something else",
            why="predictions of another model, of other rows or columns (a file that was mended may bring new ones), "
            "or by other settings, or other files",
            try_="give another --to, or remove this one",
        )
    return have


def is_finished(to: str, plan: Plan, have: set[str]) -> bool:
    """Whether all that a plan says is there. have: as `check_place` found it."""
    if not have.issuperset([MANIFEST, *plan.files]):
        return False
    done = storage.read_json(storage.join(to, MANIFEST))
    return [part["file"] for part in done["parts"]] == plan.files and done["lost"] == plan.lost


def check_answers(to: str, options: PredictConfig) -> None:
    """Raises DataError where more of the rows than `max_bad` have a reason instead of an answer, unless such rows were
    to be skipped.
    """
    done = storage.read_json(storage.join(to, MANIFEST))
    if options.overlong == "skip" or done["without_answer"] <= options.max_bad * done["rows"]:
        return
    reason, bad = done["names"]["reason"], list[str]()
    for part in done["parts"]:
        if part["without_answer"] and len(bad) <= SHOWN:
            told = parquet.read_table(storage.join(to, part["file"]), [reason])[reason].drop_null()
            bad += told[: SHOWN + 1].to_pylist()
    check_bad(bad, done["rows"], count=done["without_answer"], limit=options.max_bad, of=to, setting="max_bad")


@dataclass
class _Open:
    """A shard whose blocks are being answered."""

    shard: Shard
    file: str
    """Its output file."""
    found: list[pa.RecordBatch | None]
    """Our columns of each block."""


@dataclass
class _Shards:
    """The shards that are not there yet, handed out as blocks, and put together again."""

    options: PredictConfig
    plan: Plan
    have: set[str]
    lost: dict[str, str]
    """Gets the files that cannot be read any more."""
    skipped: int = 0
    """Rows that were passed over, because they are there."""
    _waiting: dict[int, tuple[_Open, int]] = field(default_factory=dict)
    """Number of a block that is out -> its shard, and its place there."""

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Numbered blocks of rows; a shard is read when its first one is asked for."""
        total = 0
        for shard, file in self._todo():
            starts = range(0, len(shard.rows), ROWS)
            opened = _Open(shard, file, [None] * len(starts))
            for place, start in enumerate(starts):
                self._waiting[total] = opened, place
                yield total, shard.rows[start : start + ROWS]
                total += 1

    def take(self, number: int, found: pa.RecordBatch) -> _Open | None:
        """Keep what was found for a block. Returns its shard when that is whole."""
        opened, place = self._waiting.pop(number)
        opened.found[place] = found
        return opened if all(one is not None for one in opened.found) else None

    def _todo(self) -> Iterator[tuple[Shard, str]]:
        for url, names in self.plan.outputs.items():
            if self.have.issuperset(names):
                self.skipped += self.plan.sizes[url]
                continue
            count = 0
            for count, shard in enumerate(self._read(url), start=1):
                file = self.plan.file(url, count - 1, shard.digest)
                if names[count - 1 : count] != [file]:
                    raise _changed(url)
                if file in self.have:
                    self.skipped += len(shard.rows)
                else:
                    yield shard, file
            if count != len(names) and url not in self.lost:
                raise _changed(url)

    def _read(self, url: str) -> Iterator[Shard]:
        try:
            yield from read_shards(url, self.options.shard_rows, columns=self.plan.header)
        except (DataError, OSError) as error:
            self.lost[url] = str(error).splitlines()[0]


def _changed(url: str) -> DataError:
    return DataError(f"{url} changed while it was read", try_="run the same command again")


def _table(whole: _Open, plan: Plan) -> pa.Table:
    columns: dict[str, Any] = {name: whole.shard.column(name, kind) for name, kind in plan.types.items()}
    found = pa.Table.from_batches([one for one in whole.found if one is not None])
    return pa.table(columns | {plan.names[name]: found[name] for name in found.column_names})


def _rate(rows: int, seconds: float) -> str:
    return f"{counted(rows, 'row')} in {duration(seconds)}: {human(rows / seconds)} rows/s"


def _cost(options: PredictConfig, workers: Workers, seconds: float) -> str:
    """What a prediction took, of this process from its start."""
    cores = (time.process_time() + workers.cpu_s) / 3600
    gpus = f" and {options.num_workers * seconds / 3600:.3g} GPU-hours" if options.use_gpu else ""
    return f"{cores:.3g} core-hours of CPU time{gpus}"


def _manifest(to: str, plan: Plan) -> dict[str, Any]:
    """What the files hold, counted in the files."""
    cut, reason = (plan.names[name] for name in ("tokens_cut", "reason"))
    parts = []
    for file in plan.files:
        table = parquet.read_table(storage.join(to, file), [cut, reason])
        told = {"rows": len(table), "without_answer": len(table) - table[reason].null_count}
        parts.append({"file": file, **told, "cut": sum(1 for tokens in table[cut].to_pylist() if tokens)})
    totals = {name: sum(part[name] for part in parts) for name in ("rows", "without_answer", "cut")}
    return {**plan.settings, **totals, "lost": plan.lost, "parts": parts}
