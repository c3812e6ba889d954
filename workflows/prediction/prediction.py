"""A fine-tuned model on every row of a table.

    <to>/<shard>-<key>.parquet     rows in the order of the input: its columns, then ours
         _manifest.json            written last: what the files follow from, and their rows

The key is a hash of all that decides the file: model, task, columns, and the rows of the shard. So whatever is there is
right, whoever made it, and a prediction that was stopped continues behind it. Law 22: no row vanishes.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import Console
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.questions.question import Question, ask
from pipelines.questions.rows import BadRow, Row, check_bad
from pipelines.questions.task import Item, Task
from workflows.answering.answers import POSITIONS, Answer, batches
from workflows.evaluation.models import Model
from workflows.evaluation.workers import Workers
from workflows.prediction.config import PredictConfig
from workflows.prediction.inputs import Shard, find_tables, merge_types, read_shards

FORMAT = 1  # of the output; raised where another version's would differ
MANIFEST = "_manifest.json"  # readers of folders of Parquet skip names that begin so


@dataclass(frozen=True)
class Plan:
    """What a prediction writes."""

    urls: list[str]
    header: list[str]
    """Names of the columns of files that have none."""
    types: dict[str, pa.DataType]
    """The input's columns."""
    names: dict[str, str]
    """Our columns -> their names in the output."""
    settings: dict[str, Any]
    """What decides the files, apart from the rows."""
    files: list[str]
    """One for each shard."""
    rows: int


def plan_prediction(options: PredictConfig, model: Model, task: Task, screen: Console) -> Plan:
    """Read the input once: how many rows there are, their columns, and which of them cannot be asked.

    Raises DataError where there are no rows, or too many bad ones.
    """
    taught = model.asked["settings"].get("columns") or []
    header = list(taught if options.columns is None else options.columns)
    urls = find_tables(options.input)
    types: dict[str, pa.DataType] = {}
    digests, bad, total = [], [], 0
    with screen.progress("reading") as live:
        for shard in read_shards(urls, options.shard_rows, columns=header):
            types = merge_types(types, shard.types)
            digests.append(shard.digest)
            total += len(shard.rows)
            bad += [f"{row.place}: {reason}" for row in shard.rows if (reason := _reason(task, row))]
            live.update(total, "rows")
    if not total:
        raise DataError(f"{options.input} has no rows", why=f"{len(urls):,} files were read", try_="give another input")
    check_bad(bad, total, limit=options.max_bad, of=options.input, setting="max_bad")
    names = _own_names(task.labels, types)
    settings = {
        "format": FORMAT,
        "model": model.digest,
        "task": task.name,
        "task_digest": task.digest,
        "pattern": task.pattern().text,
        "words": dict(task.pattern().words),
        "overlong": options.overlong,
        "batch_positions": POSITIONS,
        "columns": {name: str(kind) for name, kind in types.items()},
        "names": names,
    }
    files = [_file(number, settings, digest) for number, digest in enumerate(digests)]
    return Plan(urls, header, types, names, settings, files, total)


def predict(options: PredictConfig, model: Model, task: Task, plan: Plan, workers: Workers, screen: Console) -> None:
    """Answer the shards that are not there, and write the manifest."""
    have = check_place(options.to, plan)
    tokenizer, positions, done = workers.tokenizer, model.positions(), 0
    shards = read_shards(plan.urls, options.shard_rows, columns=plan.header)
    with screen.progress("predicting", plan.rows) as live:
        for number, (shard, file) in enumerate(zip(shards, plan.files, strict=True)):
            if file not in have:
                if _file(number, plan.settings, shard.digest) != file:
                    raise DataError(f"{options.input} changed while it was read", try_="run the same command again")
                asked = _questions(task, shard.rows, tokenizer, positions, options)
                answers = _answers([one for one in asked if isinstance(one, Question)], workers)
                parquet.write_table(storage.join(options.to, file), _table(shard, asked, answers, task.labels, plan))
            done += len(shard.rows)
            live.update(done)
    storage.write_json(storage.join(options.to, MANIFEST), _manifest(options.to, plan))


def check_place(to: str, plan: Plan) -> set[str]:
    """The files that are there. Raises UserError where others are: readers would take them for rows of this input."""
    have = {info.path for info in storage.list_files(to)} if storage.exists(to) else set()
    is_done = MANIFEST in have
    same = (
        not is_done or [part["file"] for part in storage.read_json(storage.join(to, MANIFEST))["parts"]] == plan.files
    )
    if not same or have - {MANIFEST, *plan.files}:
        raise UserError(
            f"{to} holds something else",
            why="predictions of another model, of other rows or by other settings, or other files",
            try_="give another --to, or remove this one",
        )
    return have


def _reason(task: Task, row: Row | BadRow) -> str | None:
    """Why a row cannot be asked."""
    try:
        fields = _item(task, row, 0).fields
    except ValueError as error:
        return str(error)
    missing = [name for name in task.pattern().fields if name not in fields]
    return f"no field {missing[0]!r}, but {', '.join(fields)}" if missing else None


def _item(task: Task, row: Row | BadRow, number: int) -> Item:
    """What is asked of a row, whatever its label and id. Raises ValueError for a row that is not an item."""
    if isinstance(row, BadRow):
        raise ValueError(row.reason)
    return replace(task.item(row), id=f"{number:09}", gold=None)


def _questions(
    task: Task, rows: Sequence[Row | BadRow], tokenizer: Tokenizer, positions: int, options: PredictConfig
) -> list[Question | str]:
    """The question about each row, or why there is none."""
    found: list[Question | str] = []
    for number, row in enumerate(rows):
        try:
            item = _item(task, row, number)
            found.append(ask(task, task.pattern(), item, tokenizer, positions=positions, overlong=options.overlong))
        except ValueError as error:
            if options.overlong == "error" and not _reason(task, row):
                raise DataError(f"{row.place}: {error}", try_="--overlong=cut, or skip") from error
            found.append(f"{storage.base_name(row.url)}:{row.line}: {error}")
    return found


def _answers(questions: Sequence[Question], workers: Workers) -> dict[str, Answer]:
    """Item -> answer. The batches of a shard follow from its rows alone, so the answers do too."""
    made = batches(questions)
    return {
        question.item.id: answer
        for number, answers, _ in workers.answers(list(enumerate(made)))
        for question, answer in zip(made[number], answers, strict=True)
    }


def _table(
    shard: Shard, asked: Sequence[Question | str], answers: dict[str, Answer], labels: Sequence[str], plan: Plan
) -> pa.Table:
    columns: dict[str, Any] = {name: shard.column(name, kind) for name, kind in plan.types.items()}
    found = [answers[one.item.id] if isinstance(one, Question) else None for one in asked]
    shares = [_shares(one) if one else [None] * len(labels) for one in found]
    chosen = [labels[one.choice] if one and one.choice is not None else None for one in found]
    names = iter(plan.names.values())
    columns[next(names)] = pa.array(chosen, pa.string())
    for number in range(len(labels)):
        columns[next(names)] = pa.array([row[number] for row in shares], pa.float64())
    columns[next(names)] = pa.array([one.cut if isinstance(one, Question) else None for one in asked], pa.int32())
    columns[next(names)] = pa.array([one if isinstance(one, str) else None for one in asked], pa.string())
    return pa.table(columns)


def _shares(answer: Answer) -> list[float]:
    """Softmax over the candidates' log-probabilities."""
    logprobs = np.array(answer.logprobs)
    weights = np.exp(logprobs - logprobs.max())
    return (weights / weights.sum()).tolist()


def _own_names(labels: Sequence[str], taken: Iterable[str]) -> dict[str, str]:
    """The input's columns keep their names; one of ours that is taken gets `predicted_` before it."""
    names: dict[str, str] = {}
    for own in ("label", *(f"p_{label}" for label in labels), "tokens_cut", "reason"):
        name = own
        while name in {*taken, *names.values()}:
            name = f"predicted_{name}"
        names[own] = name
    return names


def _file(number: int, settings: dict[str, Any], digest: str) -> str:
    key = hashlib.sha256(json.dumps([settings, digest], sort_keys=True).encode()).hexdigest()
    return f"{number:06}-{key[:16]}.parquet"


def _manifest(to: str, plan: Plan) -> dict[str, Any]:
    """What the files hold, counted in the files."""
    label, cut, reason = (plan.names[name] for name in ("label", "tokens_cut", "reason"))
    parts = []
    for file in plan.files:
        table = parquet.read_table(storage.join(to, file), [label, cut, reason])
        told = {"rows": len(table), "without_label": table[label].null_count}
        parts.append({"file": file, **told, "cut": sum(1 for tokens in table[cut].to_pylist() if tokens)})
    totals = {name: sum(part[name] for part in parts) for name in ("rows", "without_label", "cut")}
    return {**plan.settings, **totals, "parts": parts}
