"""A model, a task and a pattern: questions are answered in batches, each of which is kept, and become items.parquet.

    <to>/<model>-<digest>/<task>-<split>-p<pattern>-<key>/parts/<batch>.parquet    answers to a batch
                                                          items.parquet            all items
                                                          timing.parquet           seconds of each batch
                                                          settings.json            written last

The key is a hash of all that decides an answer, apart from the items: the digests of model and task, the pattern, and
how it is scored. A batch is named by the key and what its items ask. So whatever is there can be used, whoever made it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.metrics.items import SCHEMA, ordered, without_question
from pipelines.questions.question import Question, ask
from workflows.evaluation.answers import POSITIONS, Answer, batches
from workflows.evaluation.models import Model
from workflows.evaluation.tasks import AskedTask
from workflows.evaluation.workers import Workers

FORMAT = 1  # of the answers; raised where another version's would differ
_SECONDS = b"seconds"


@dataclass(frozen=True)
class Evaluated:
    """The answers of a model to a task by a pattern."""

    model: Model
    asked: AskedTask
    pattern: int
    url: str
    items: pa.Table
    seconds: float
    """That workers took, over all of them, whenever that was."""


def evaluate(
    model: Model,
    positions: int,
    tokenizer: Tokenizer,
    asked: AskedTask,
    pattern: int,
    workers: Workers,
    *,
    to: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluated:
    """Ask a model what is not answered yet. positions: of the model; on_progress: gets (items answered, all items)."""
    settings = _settings(model, positions, asked, pattern)
    key = _hash(json.dumps(settings, sort_keys=True))
    name = f"{asked.task.name.rpartition('.')[2]}-{asked.split}-p{pattern}-{key[:12]}"
    url = storage.join(to, f"{model.name}-{model.digest[:8]}", name)
    questions, left_out = _questions(asked, pattern, tokenizer, positions)
    made = {_batch_key(key, batch): batch for batch in batches(questions)}
    rest = left_out + [(f"{storage.base_name(row.url)}:{row.line}", "", row.reason) for row in asked.bad]
    final = {**settings, "batches": list(made), "without_question": [list(row) for row in rest]}
    place = {name: storage.join(url, name) for name in ("settings.json", "items.parquet", "timing.parquet", "parts")}
    total, done = len(questions), 0
    if not storage.exists(place["settings.json"]) or storage.read_json(place["settings.json"]) != final:
        have = _parts(place["parts"], made)
        done = sum(len(made[one]) for one in have)
        on_progress(done, total)
        todo = [(number, batch) for number, (one, batch) in enumerate(made.items()) if one not in have]
        keys = list(made)
        for number, answers, seconds in workers.answers(todo, reads=asked.task.kind == "read"):
            batch = made[keys[number]]
            part = _table(batch, answers).replace_schema_metadata({_SECONDS: str(seconds).encode()})
            parquet.write_table(storage.join(place["parts"], f"{keys[number]}.parquet"), part)
            done += len(batch)
            on_progress(done, total)
        _publish(place, keys, rest)
        storage.write_json(place["settings.json"], final)
        storage.remove_tree(place["parts"])
    timing = parquet.read_table(place["timing.parquet"])
    items = parquet.read_table(place["items.parquet"])
    return Evaluated(model, asked, pattern, url, items, sum(timing["seconds"].to_pylist()))


def _settings(model: Model, positions: int, asked: AskedTask, pattern: int) -> dict[str, object]:
    task = asked.task
    return {
        "format": FORMAT,
        "model": model.digest,
        "task": task.name,
        "task_version": task.version,
        "task_digest": task.digest,
        "kind": task.kind,
        "pattern": task.pattern(pattern).text,
        "words": dict(task.pattern(pattern).words),
        "labels": list(task.labels),
        "split": asked.split,
        "overlong": asked.config.overlong,
        "positions": positions,
        "batch_positions": POSITIONS,
        "precision": "fp32",
    }


def _questions(
    asked: AskedTask, number: int, tokenizer: Tokenizer, positions: int
) -> tuple[list[Question], list[tuple[str, str, str]]]:
    """(the questions, (item, group, reason) of items that cannot be asked)."""
    pattern = asked.task.pattern(number)
    special = tokenizer.special
    if max(special.mask, special.smask, special.gmask) < 0:
        raise UserError(
            "the model's tokenizer has no mask",
            why="it marks where the model writes, and every question has one",
            try_="give a model that was trained to fill blanks",
        )
    questions, left_out = [], []
    for item in asked.items:
        try:
            question = ask(asked.task, pattern, item, tokenizer, positions=positions, overlong=asked.config.overlong)
        except ValueError as error:
            if asked.config.overlong == "error":
                raise DataError(
                    f"the item {item.id!r} of {asked.task.name} cannot be asked: {error}",
                    try_="--task.overlong=cut, or skip",
                ) from error
            left_out.append((item.id, item.group, str(error)))
        else:
            questions.append(question)
    allowed = 1.0 if asked.config.overlong == "skip" else asked.config.max_bad
    if not questions or len(left_out) > allowed * len(asked.items):
        raise DataError(
            f"{len(left_out):,} of {len(asked.items):,} items of {asked.task.name} cannot be asked",
            why=f"{left_out[0][0]}: {left_out[0][2]}",
            try_="mend them; or task.overlong=skip, task.max_bad",
        )
    return questions, left_out


def _hash(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def _batch_key(key: str, batch: Sequence[Question]) -> str:
    """What the answers to a batch, and its rows, follow from."""
    told = []
    for one in batch:
        told += [one.item.id, one.item.group, one.text, *one.answers, str(one.gold), one.prompt.tokens.tobytes()]
        told += [tokens.tobytes() for tokens in one.candidates]
    return _hash(key, *told)[:32]


def _parts(url: str, made: dict[str, list[Question]]) -> set[str]:
    """The batches that are answered."""
    if not storage.exists(url):
        return set()
    names = {info.path.removesuffix(".parquet") for info in storage.list_files(url)}
    return names & made.keys()


def _table(batch: Sequence[Question], answers: Sequence[Answer]) -> pa.Table:
    rows = [
        {
            "item": question.item.id,
            "group": question.item.group,
            "question": question.text,
            "candidates": list(question.answers),
            "logprobs": list(answer.logprobs),
            "tokens": list(answer.tokens),
            "choice": answer.choice,
            "gold": question.gold,
            "tied": answer.is_tied,
            "cut": question.cut,
            "reason": None,
        }
        for question, answer in zip(batch, answers, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _publish(place: dict[str, str], keys: Sequence[str], rest: list[tuple[str, str, str]]) -> None:
    """items.parquet and timing.parquet from the parts."""
    parts = [parquet.read_table(storage.join(place["parts"], f"{key}.parquet")) for key in keys]
    seconds = [float((part.schema.metadata or {})[_SECONDS]) for part in parts]
    times = pa.table({"batch": list(keys), "questions": [len(part) for part in parts], "seconds": seconds})
    tables = [part.replace_schema_metadata(None) for part in parts]
    parquet.write_table(place["items.parquet"], ordered(pa.concat_tables([*tables, without_question(rest)])))
    parquet.write_table(place["timing.parquet"], times)
