"""Fields that hold JSON: of rows that hold several items, such as a passage with its questions."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pipelines.questions.rows import Row, as_text
from pipelines.questions.task import take

Kind = TypeVar("Kind", dict, list)


def nested(row: Row, name: str, kind: type[Kind]) -> Kind:
    """The value of a field that is a JSON object or list. Raises ValueError where it is missing or something else."""
    (text,) = take(row, name)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a JSON {'object' if kind is dict else 'list'}, got {text!r:.60}")
    return value


def part(value: Any, *names: str, of: str) -> tuple[Any, ...]:
    """Values of a JSON object by their names. of: what it is, in words. Raises ValueError where one is missing."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{of}: expected a JSON object, got {value!r:.60}")
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{of} has no {missing[0]!r}, but {', '.join(map(str, value)) or 'nothing'}")
    return tuple(value[name] for name in names)


def parts(value: Any, name: str, *, of: str) -> list[Any]:
    """A list of a JSON object by its name. Raises ValueError where it is missing or not a list."""
    (found,) = part(value, name, of=of)
    if not isinstance(found, list):
        raise ValueError(f"{name} of {of}: expected a list, got {found!r:.60}")
    return found


def part_of_row(row: Row, **fields: Any) -> Row:
    """A row with these fields, at the place of the one that it is a part of."""
    return Row(row.url, row.line, {name: as_text(value) for name, value in fields.items()})
