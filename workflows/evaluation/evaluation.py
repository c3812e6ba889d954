"""A model, a task and a pattern: questions are answered in batches, each of which is kept, and become items.parquet.

    <to>/<model>-<digest>/<task>-<split>-p<pattern>-<key>/parts/<batch>.parquet    answers to a batch
                                                          items.parquet            all items
                                                          timing.parquet           seconds of each batch
                                                          settings.json            written last

The key is a hash of all that decides an answer, apart from the items: the digests of model and task, the pattern, and
how it is scored. A batch is named by the key and what its items ask. So whatever is there can be used, whoever made it.
Questions are kept in a temporary file (`spool`), and rows are written in parts: memory does not follow their number.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.metrics.items import FORMAT, SCHEMA, without_question
from pipelines.metrics.items_file import JUDGED
from pipelines.questions.question import ask
from workflows.answering.answers import POSITIONS, cut
from workflows.answering.items import answer_table, item_rows
from workflows.evaluation.models import Model
from workflows.evaluation.spool import Spool
from workflows.evaluation.tasks import AskedTask
from workflows.evaluation.workers import Workers

_SECONDS = b"seconds"
_ROWS = 4096  # of a row group of items.parquet
_ROW_POSITIONS = 1 << 21  # of its questions, at most: only texts that are read are so long


@dataclass(frozen=True)
class Evaluated:
    """The answers of a model to a task by a pattern."""

    model: Model
    asked: AskedTask
    pattern: int
    url: str
    seconds: float
    """That workers took, over all of them, whenever that was."""
    without_context: "Evaluated | None" = None
    """The answers to the same items without what was public before, where that was asked."""

    @property
    def items_url(self) -> str:
        return storage.join(self.url, "items.parquet")

    @cached_property
    def items(self) -> pa.Table:
        """The columns that metrics need."""
        return parquet.read_table(self.items_url, JUDGED)

    @cached_property
    def shown_texts(self) -> dict[str, str]:
        """Id of an item -> the text that was shown."""
        table = parquet.read_table(self.items_url, ["item", "question"])
        return dict(zip(table["item"].to_pylist(), table["question"].to_pylist(), strict=True))


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
    less = "-without_context" if asked.left_out else ""
    name = f"{asked.task.name.rpartition('.')[2]}-{asked.split}-p{pattern}{less}-{key[:12]}"
    url = storage.join(to, f"{model.name}-{model.digest[:8]}", name)
    place = {name: storage.join(url, name) for name in ("settings.json", "items.parquet", "timing.parquet", "parts")}
    with contextlib.closing(Spool()) as questions:
        left_out = _ask(asked, pattern, tokenizer, positions, questions)
        made = _batches(key, questions)
        rest = left_out + [(f"{storage.base_name(row.url)}:{row.line}", "", row.reason) for row in asked.bad]
        final = {**settings, "batches": list(made), "without_question": [list(row) for row in rest]}
        if not storage.exists(place["settings.json"]) or storage.read_json(place["settings.json"]) != final:
            _answer(questions, made, workers, place["parts"], on_progress=on_progress)
            _publish(place, questions, made, rest)
            storage.write_json(place["settings.json"], final)
            storage.remove_tree(place["parts"])
    timing = parquet.read_table(place["timing.parquet"])
    return Evaluated(model, asked, pattern, url, sum(timing["seconds"].to_pylist()))


def _answer(
    questions: Spool,
    made: Mapping[str, np.ndarray],
    workers: Workers,
    url: str,
    *,
    on_progress: Callable[[int, int], None],
) -> None:
    """Write the answers to each batch that has none. url: folder of the parts."""
    have = {info.path.removesuffix(".parquet") for info in storage.list_files(url)} if storage.exists(url) else set()
    done = sum(len(numbers) for one, numbers in made.items() if one in have)
    on_progress(done, len(questions))
    keys = list(made)
    todo = ((number, questions.read(made[one])) for number, one in enumerate(keys) if one not in have)
    for number, answers, seconds in workers.answers(todo):
        part = answer_table(answers).replace_schema_metadata({_SECONDS: str(seconds).encode()})
        parquet.write_table(storage.join(url, f"{keys[number]}.parquet"), part)
        done += len(part)
        on_progress(done, len(questions))


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
        **({"generation": asdict(task.generation)} if task.generation else {}),
        **({"blanks": asdict(asked.config.blanks)} if task.pattern(pattern).has_blanks else {}),
        **({"left_out": list(asked.left_out)} if asked.left_out else {}),
    }


def _ask(
    asked: AskedTask, number: int, tokenizer: Tokenizer, positions: int, questions: Spool
) -> list[tuple[str, str, str]]:
    """Add the question about each item. Returns (item, group, reason) of those that cannot be asked."""
    pattern = asked.task.pattern(number)
    special = tokenizer.special
    if pattern.has_mask and max(special.mask, special.smask, special.gmask) < 0:
        raise UserError(
            "the model's tokenizer has no mask",
            why="it marks where the model writes, and every question has one",
            try_="give a model that was trained to fill blanks",
        )
    left_out = []
    for item in asked.items():
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
            questions.add(question)
    allowed = 1.0 if asked.config.overlong == "skip" else asked.config.max_bad
    if not len(questions) or len(left_out) > allowed * asked.size:
        raise DataError(
            f"{len(left_out):,} of {asked.size:,} items of {asked.task.name} cannot be asked",
            why=f"{left_out[0][0]}: {left_out[0][2]}",
            try_="mend them; or task.overlong=skip, task.max_bad",
        )
    return left_out


def _hash(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def _batches(key: str, questions: Spool) -> dict[str, np.ndarray]:
    """Name of each batch -> numbers of its questions. The name is a hash of what its answers follow from."""
    order, lengths = questions.by_length()
    several = [order[one] for one in cut(lengths.tolist())]
    return {_hash(key, *(questions.digest(number) for number in one.tolist()))[:32]: one for one in several}


def _publish(
    place: Mapping[str, str], questions: Spool, made: Mapping[str, np.ndarray], rest: Sequence[tuple[str, str, str]]
) -> None:
    """items.parquet and timing.parquet from the parts."""
    parts = [parquet.read_table(storage.join(place["parts"], f"{key}.parquet")) for key in made]
    seconds = [float((part.schema.metadata or {})[_SECONDS]) for part in parts]
    times = pa.table({"batch": list(made), "questions": [len(part) for part in parts], "seconds": seconds})
    answers = pa.concat_tables([part.replace_schema_metadata(None) for part in parts]).combine_chunks()
    rows = np.empty(len(questions), np.int64)  # number of a question -> the row of its answer
    rows[np.concatenate(list(made.values()))] = np.arange(len(questions))
    with parquet.large_writer(place["items.parquet"], SCHEMA) as out:
        for numbers in _some(questions.by_id(), questions.lengths()):
            out.write_table(item_rows(questions.read(numbers.tolist()), answers.take(pa.array(rows[numbers]))))
        if rest:
            out.write_table(without_question(rest))
    parquet.write_table(place["timing.parquet"], times)


def _some(numbers: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers in parts, each of questions that memory can hold. lengths: positions of each question."""
    ends, first = np.cumsum(lengths[numbers]), 0
    while first < len(numbers):
        fitting = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + _ROW_POSITIONS, side="right"))
        last = min(max(fitting, first + 1), first + _ROWS)
        yield numbers[first:last]
        first = last
