"""What a prediction will write: the input is read once, before the model is loaded.

Each output file is named by its place and by a hash of all that decides it: model, kind, columns, and the rows of its
shard. A file that cannot be read to its end gives no output file, and does not move those of the others.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from infra.console import Console, counted
from infra.errors import DataError, UserError
from pipelines.questions.rows import SHOWN, check_bad
from workflows.answering.answers import POSITIONS
from workflows.evaluation.models import Model
from workflows.prediction.blocks import ROWS, shown_or_reason
from workflows.prediction.config import PredictConfig
from workflows.prediction.inputs import find_tables, merge_types, read_shards
from workflows.prediction.kind import Kind

FORMAT = 2  # of the output; raised where another version's would differ
_GPU_POSITIONS = 1 << 16


@dataclass(frozen=True)
class Plan:
    """What a prediction writes."""

    urls: list[str]
    """The files of the input."""
    outputs: dict[str, list[str]]
    """File of the input -> names of its output files, one for each shard."""
    sizes: dict[str, int]
    """File of the input -> its rows."""
    lost: dict[str, str]
    """File that cannot be read -> why."""
    header: list[str]
    """Names of the columns of files that have none."""
    types: dict[str, pa.DataType]
    """The input's columns."""
    names: dict[str, str]
    """Our columns -> their names in the output."""
    settings: dict[str, Any]
    """What decides the files, apart from the rows."""

    @property
    def rows(self) -> int:
        return sum(self.sizes.values())

    @property
    def files(self) -> list[str]:
        """Names of all output files, in their order."""
        return [name for several in self.outputs.values() for name in several]

    def file(self, url: str, shard: int, digest: str) -> str:
        """The output file of a shard. shard: its number in its file."""
        return _file(self.urls.index(url), shard, self.settings, digest)


def plan_prediction(options: PredictConfig, model: Model, kind: Kind, screen: Console) -> Plan:
    """Read the input: how many rows there are, their columns, and which of them cannot be asked.

    Raises DataError where there are no rows, where no file can be read, or too many rows cannot be asked.
    """
    taught = model.asked.get("settings", {}).get("columns") or []
    header = list(taught if options.columns is None else options.columns)
    urls = find_tables(options.input)
    surveys: dict[str, _Survey] = {}
    lost: dict[str, str] = {}
    with screen.progress("read rows") as live:
        for url in urls:
            try:
                surveys[url] = _survey(url, options, header, kind)
            except (DataError, OSError) as error:
                lost[url] = str(error).splitlines()[0]
            live.update(sum(one.rows for one in surveys.values()))
    if not surveys:
        raise DataError(next(iter(lost.values())), try_="write or copy it again")
    total = sum(one.rows for one in surveys.values())
    if not total:
        raise DataError(
            f"{options.input} has no rows", why=f"read: {counted(len(urls), 'file')}", try_="give another input"
        )
    bad = [text for one in surveys.values() for text in one.bad]
    count = sum(one.bad_rows for one in surveys.values())
    check_bad(bad, total, count=count, limit=options.max_bad, of=options.input, setting="max_bad")
    types: dict[str, pa.DataType] = {}
    for one in surveys.values():
        types = merge_types(types, one.types)
    names = own_names((*kind.columns, "tokens_cut", "reason"), types)
    settings = {
        "format": FORMAT,
        "kind": kind.name,
        "model": model.digest,
        **kind.settings,
        "overlong": options.overlong,
        "batch_positions": batch_positions(options),
        "block_rows": ROWS,
        "columns": {name: str(type_) for name, type_ in types.items()},
        "names": names,
    }
    outputs = {
        url: [_file(number, shard, settings, digest) for shard, digest in enumerate(surveys[url].digests)]
        for number, url in enumerate(urls)
        if url in surveys
    }
    sizes = {url: one.rows for url, one in surveys.items()}
    return Plan(urls, outputs, sizes, lost, header, types, names, settings)


def batch_positions(options: PredictConfig) -> int:
    return options.batch_positions or (_GPU_POSITIONS if options.use_gpu else POSITIONS)


def own_names(columns: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """The input's columns keep their names; one of ours that is taken gets `predicted_` before it."""
    names: dict[str, str] = {}
    for own in columns:
        name = own
        while name in {*taken, *names.values()}:
            name = f"predicted_{name}"
        names[own] = name
    return names


@dataclass
class _Survey:
    """What reading a file tells of it."""

    types: dict[str, pa.DataType] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    rows: int = 0
    bad: list[str] = field(default_factory=list)
    """Place and reason of the first rows that cannot be asked."""
    bad_rows: int = 0


def _survey(url: str, options: PredictConfig, header: list[str], kind: Kind) -> _Survey:
    found = _Survey()
    for shard in read_shards(url, options.shard_rows, columns=header):
        found.types = merge_types(found.types, shard.types)
        found.digests.append(shard.digest)
        found.rows += len(shard.rows)
        for row in shard.rows:
            reason = shown_or_reason(kind, row)
            if isinstance(reason, str):
                found.bad_rows += 1
                if len(found.bad) <= SHOWN:
                    found.bad.append(f"{row.place}: {reason}")
    return found


def _file(number: int, shard: int, settings: dict[str, Any], digest: str) -> str:
    key = hashlib.sha256(json.dumps([settings, digest], sort_keys=True).encode()).hexdigest()
    return f"{number:06}-{shard:06}-{key[:16]}.parquet"


def check_lost(lost: dict[str, str], files: int, options: PredictConfig) -> None:
    """Raises DataError where more of the files than `max_lost` could not be read. files: of the input."""
    if len(lost) <= options.max_lost * files:
        return
    raise DataError(
        f"{len(lost):,} of {files:,} files of {options.input} cannot be read; the others are answered",
        why="\n".join([*lost.values()][:SHOWN]) + ("\n..." if len(lost) > SHOWN else ""),
        try_="write or copy them again, then run the same command: it answers what is missing; or leave them out with "
        f"--max_lost={len(lost) / files + 0.005:.2f}",
    )


def check_given(options: PredictConfig) -> None:
    """Raises UserError for a place that is missing, and where predictions would lie in the input."""
    places = {"model": options.model, "input": options.input, "to": options.to}
    if missing := [name for name, value in places.items() if not value]:
        raise UserError(f"--{missing[0]} is missing", try_="--model runs/<run> --input new.csv --to predictions")
    if f"{options.to}/".startswith(f"{options.input.rstrip('/')}/"):
        raise UserError(
            f"--to {options.to} lies in the input", why="predictions would be read as rows", try_="give another --to"
        )
