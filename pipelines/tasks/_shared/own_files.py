"""What `classification` and `pair_classification` share: own files, by columns, labels and words of a recipe."""

import itertools
from collections.abc import Callable, Iterable

from pipelines.questions.config import TaskConfig
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Task, take, words_for

_MOST_LABELS = 1000


def define(
    config: TaskConfig,
    rows: Callable[[], Iterable[Row | BadRow]],
    *,
    version: int,
    texts: tuple[str, ...],
    patterns: tuple[str, ...],
) -> Task:
    """texts: the columns that a row must have; patterns: with {text} and {second} for those of the recipe."""
    words = dict(config.words) or _words(_labels_in(rows(), config.label), config)
    names = {"text": config.text, "second": config.second}
    own = tuple(_with_columns(pattern, names) for pattern in patterns)

    def item(row: Row) -> Item:
        take(row, *texts)
        gold = row.fields.get(config.label, "") or None
        (name,) = take(row, config.id) if config.id else (str(row.line),)
        return Item(id=name, fields=row.fields, gold=gold)

    return Task(
        name=config.name,
        version=version,
        kind="choose",
        patterns=tuple(Pattern(pattern, words) for pattern in own),
        item=item,
        labels=tuple(words),
    )


def _words(labels: list[str], config: TaskConfig) -> dict[str, str]:
    return dict(zip(labels, labels, strict=True)) if config.head else words_for(labels)


def _with_columns(pattern: str, names: dict[str, str]) -> str:
    for role, column in names.items():
        pattern = pattern.replace(f"{{{role}", f"{{{column}")
    return pattern


def _labels_in(rows: Iterable[Row | BadRow], column: str) -> list[str]:
    """The labels of a split, whole numbers in their order, others by name. Raises ValueError where there are none."""
    found: set[str] = set()
    first = None
    for row in itertools.islice(rows, 10_000_000):
        if isinstance(row, Row):
            first = first or row
            found.add(row.fields.get(column, ""))
        if len(found) > _MOST_LABELS:
            raise ValueError(f"the column {column!r} has more than {_MOST_LABELS:,} values: it does not hold labels")
    found.discard("")
    if not found:
        have = f", but {', '.join(first.fields)}" if first and column not in first.fields else ""
        raise ValueError(f"no label in the column {column!r}{have}: name the column as task.label")
    return sorted(found, key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
