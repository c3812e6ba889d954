"""The answers that evaluations kept, found by the models' names; and whether several were given to the same questions.

<to>/<model>-<digest>/<task>-<split>-p<pattern>-<key>/items.parquet, settings.json
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.metrics.items import FORMAT, judged
from pipelines.metrics.items_file import JUDGED

_MODEL = re.compile(r"(.+)-[0-9a-f]{8}")
_CELL = re.compile(r".+-p(\d+)-[0-9a-f]{12}")
_SAME = {
    "task_version": "version",
    "task_digest": "words or patterns",
    "pattern": "pattern",
    "labels": "labels",
    "generation": "limits of what is written",
    "blanks": "blanks",
}
_ROWS = 4096  # at a time


@dataclass(frozen=True)
class Cell:
    """A model's answers to a task by a pattern."""

    model: str
    url: str
    number: int
    """The pattern's."""
    settings: dict[str, Any]
    """What the answers follow from."""

    @property
    def place(self) -> tuple[str, str, int]:
        return self.settings["task"], self.settings["split"], self.number

    @cached_property
    def items(self) -> pa.Table:
        """Those that were asked and whose gold answer is known."""
        return judged(parquet.read_table(storage.join(self.url, "items.parquet"), JUDGED))


def find_cells(given: str, to: str) -> list[list[Cell]]:
    """The cells of each model of a side."""
    wanted = storage.base_name(given)
    by_model: dict[str, dict[str, list[Cell]]] = {}
    for info in storage.list_files(to) if storage.exists(to) else []:
        parts = info.path.split("/")
        if len(parts) != 3 or parts[2] != "settings.json":
            continue
        model, cell = _MODEL.fullmatch(parts[0]), _CELL.fullmatch(parts[1])
        if model and cell and (wanted == parts[0] or fnmatch.fnmatchcase(model[1], wanted)):
            url = storage.join(to, *parts[:2])
            one = Cell(model[1], url, int(cell[1]), storage.read_json(info.url))
            if one.settings["format"] == FORMAT:
                by_model.setdefault(model[1], {}).setdefault(parts[0], []).append(one)
    if not by_model:
        raise DataError(
            f"{to} holds no answers of {given}",
            why="a comparison reads the answers of evaluations by this version of the program, by the models' names",
            try_="evaluate it first: --models <model>; or say where the answers are: --to=<folder>",
        )
    for model, folders in by_model.items():
        if len(folders) > 1:
            raise UserError(
                f"{given} names several models called {model}: {', '.join(sorted(folders))}",
                why="their weights differ",
                try_=f"name the folder: --compare {sorted(folders)[0]} ...",
            )
    return [cells for _, folders in sorted(by_model.items()) for cells in folders.values()]


def pairs_of(
    first: list[list[Cell]], second: list[list[Cell]], given: Sequence[str]
) -> list[tuple[list[Cell], list[Cell]]]:
    """For each task, split and pattern that all models answered: the cells of both sides. Raises UserError."""
    models = [*first, *second]
    shared = set.intersection(*({one.place for one in cells} for cells in models))
    if not shared:
        told = [", ".join(sorted(f"{t} {s} p{p}" for t, s, p in {one.place for one in cells})) for cells in models]
        raise UserError(
            f"{given[0]} and {given[1]} answered no task in common",
            why="; ".join(f"{cells[0].model}: {text}" for cells, text in zip(models, told, strict=True)),
            try_="evaluate both on one task, by one pattern",
        )
    pairs = []
    for place in sorted(shared):
        chosen = _alike([[one for one in cells if one.place == place] for cells in models], place)
        pairs.append((chosen[: len(first)], chosen[len(first) :]))
    return pairs


def _alike(models: list[list[Cell]], place: tuple[str, str, int]) -> list[Cell]:
    """A cell of each model, that were asked the same questions; of several such the newest version of the task."""

    def asked(one: Cell) -> tuple[Any, ...]:
        return (*(str(one.settings.get(name)) for name in _SAME), str(one.settings["words"]))

    for one in sorted(models[0], key=lambda one: -one.settings["task_version"]):
        alike = [[other for other in cells if asked(other) == asked(one)] for cells in models]
        if all(alike):
            cells = [several[0] for several in alike]
            _check_items(cells)
            return cells
    # Each may have something in common with the first, and all of them nothing.
    one = models[0][0]
    other = next(cells[0] for cells in models[1:] if asked(one) not in map(asked, cells))
    what = next((told for name, told in _SAME.items() if one.settings.get(name) != other.settings.get(name)), "words")
    raise UserError(
        f"{one.model} and {other.model} were asked {place[0]} {place[1]} with other {what}",
        why=f"{one.url} and {other.url} say so in settings.json; their difference would be that of the questions",
        try_="evaluate both again with one version of this program and of the task",
    )


def _check_items(cells: Sequence[Cell]) -> None:
    """Raises UserError where the items, their gold answers, their groups or their texts are not the same."""
    first = cells[0]
    for other in cells[1:]:
        one, two = first.items, other.items
        if not one["item"].equals(two["item"]):
            ids, others = {*one["item"].to_pylist()}, {*two["item"].to_pylist()}
            unlike = sorted(ids ^ others)
            raise UserError(
                f"{first.model} and {other.model} answered other items of {first.place[0]}: {len(ids):,} and "
                f"{len(others):,}, of which {len(unlike):,} are of one of them alone, such as {unlike[0]!r}",
                why="a comparison is over the same items",
                try_="evaluate both on the same file, with the same --limit and task.overlong",
            )
        unlike = [name for name in ("gold", "group") if not one[name].equals(two[name])]
        if unlike or not _same_questions(first, other):
            what = {"gold": "gold answers", "group": "groups"}.get(unlike[0] if unlike else "", "texts")
            raise UserError(
                f"the items that {first.model} and {other.model} answered have other {what}",
                why="they have the same ids, and are not the same items",
                try_="evaluate both on the same file",
            )


def _same_questions(one: Cell, other: Cell) -> bool:
    """Whether both were shown the same, as far as texts are not cut for a shorter model."""
    columns = ["question", "cut", "reason"]
    urls = [storage.join(cell.url, "items.parquet") for cell in (one, other)]
    with parquet.open_file(urls[0]) as first, parquet.open_file(urls[1]) as second:
        batches = (file.iter_batches(_ROWS, columns=columns, use_threads=False) for file in (first, second))
        for left, right in zip(*batches, strict=False):
            for a, b in zip(left.to_pylist(), right.to_pylist(), strict=False):
                is_whole = a["reason"] is None and b["reason"] is None and not a["cut"] and not b["cut"]
                if is_whole and a["question"] != b["question"]:
                    return False
    return True
