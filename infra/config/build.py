"""From plain values to dataclasses: pydantic checks the values against the annotations, and errors name the key.

Values are checked strictly, and as JSON would hold them: a whole number passes where a number is expected and a list
where a tuple is; nothing else is converted. pydantic takes 40 ms to import: at the first call.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from typing import Any, TypeVar

from infra.config import tree
from infra.config.count import Count
from infra.config.field_texts import texts_of
from infra.errors import UserError, nearest

T = TypeVar("T")

# Errors of pydantic about ranges: what to say, and where the limit is.
_RANGES = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}

_NUMBERS = "numbers are decimal (5, 1_000, 0.5, 1e-4), unquoted, without leading zeros, and below 1.8e308"


def build(root: type[T], values: dict[str, Any], places: dict[str, str]) -> T:
    """The dataclass `root` with these values. places: key -> where it was set ("in a.yaml"); a key without an entry has
    the place of its parent.

    Raises UserError for unknown and missing keys, wrong types, and ValueErrors of a `__post_init__`.
    """
    from pydantic import ValidationError

    try:
        text = _adapter(Any).dump_json([_with_sections(root, values)])
    except ValueError as exc:
        raise UserError("a setting is not valid text, or a list that holds itself", why=str(exc)) from exc
    try:
        # In a list: pydantic takes no settings for a dataclass that is not its own, but hands those of a list down.
        return _adapter(types.GenericAlias(list, (root,))).validate_json(text)[0]
    except ValidationError as exc:
        raise _explain(root, json.loads(text)[0], exc.errors(include_url=False), places) from exc


@functools.lru_cache(maxsize=64)
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants"))


def _with_sections(root: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values, with an empty section where one is required: an error then names the leaf that is missing."""
    required = [name for name in tree.fields_of(root) if tree.default_of(root, name) is tree.MISSING]
    kinds = {name: tree.fields_of(root)[name] for name in required}
    empty = {name: {} for name, kind in kinds.items() if tree.section_of(kind) and not tree.is_optional(kind)}
    return {**empty, **values}


def _explain(root: type, values: Any, errors: list[Any], places: dict[str, str]) -> UserError:
    found = [(_path(values, error), error) for error in errors]
    first = found[0][0]
    # Each member of a union reports why it refuses the value: the deepest error is from the member that was meant.
    same = [one for one in found if one[0][: len(first)] == first]
    # A required key that is misspelt is missing too: what is written there helps more than what is not.
    unknown = [one for one in found if one[1]["type"] == "unexpected_keyword_argument" and one[0][:-1] == first[:-1]]
    path, error = max(unknown or same, key=lambda one: len(one[0]))
    key, problem = functools.reduce(tree.dotted, path, ""), error["type"]
    where = _place(places, key)
    kind = functools.reduce(tree.below, path, root)
    section = tree.section_of(functools.reduce(tree.below, path[:-1], root)) if path else None
    if problem == "value_error" and tree.section_of(kind):  # of its __post_init__
        return UserError(str(error["ctx"]["error"]))
    if section and problem == "missing" and path[-1] == error["loc"][-1]:
        text = texts_of(section).get(path[-1])
        why = f"expected {tree.type_name(kind)}" + (f". {text}" if text else "")
        return UserError(f"{key} is required {where}".rstrip(), why=why)
    if section and problem == "unexpected_keyword_argument":
        return tree.unknown_key(root, section, key, where)
    if section and problem in _RANGES:
        words, limit = _RANGES[problem]
        default = tree.default_of(section, path[-1])
        try_ = None
        if isinstance(default, int | float):
            is_item = any(isinstance(part, int) for part in path)
            try_ = f"{'use ' if is_item else f'--{key}='}{getattr(default, 'short', default)} (the default)"
        return UserError(f"{key} must be {words} {error['ctx'][limit]:g}, got {error['input']!r} {where}", try_=try_)
    return wrong_value(kind, error["input"], key, where)


def _path(values: Any, error: dict[str, Any]) -> tuple[Any, ...]:
    """The keys in the location of one of pydantic's errors, which names the members of unions too."""
    found = []
    for part in error["loc"][1:]:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and part in range(len(values))):
            values = values[part]
            found.append(part)
    is_missing_key = error["type"] == "missing" and isinstance(values, dict)
    return (*found, error["loc"][-1]) if is_missing_key else tuple(found)


def wrong_value(kind: Any, value: Any, key: str, where: str) -> UserError:
    """The error for a value of a wrong type: "optim.lr in a.yaml: expected a number, got 'fast'"."""
    start, got = f"{key} {where}: expected".lstrip(), f"got {value!r:.200}"
    if section := tree.section_of(kind):
        return UserError(f"{start} a section with the keys {', '.join(tree.fields_of(section))}, {got}")
    if section := tree.section_of(tree.below(kind, 0)) if typing.get_origin(tree.bare(kind)) is list else None:
        keys = [*tree.fields_of(section)]
        form = f"--{key}='[{{{', '.join(f'{name}: ...' for name in keys[:2])}}}]'"
        return UserError(f"{start} a list of sections with the keys {', '.join(keys)}, {got}", try_=form)
    if typing.get_origin(tree.bare(kind)) is typing.Literal:
        known = map(str, typing.get_args(tree.bare(kind)))
        return UserError(f"{start} one of its values, {got}{nearest(str(value), known)}")
    why = try_ = None
    if str in tree.members(kind) and isinstance(value, bool | int | float):
        name = key.rpartition(".")[2]
        try_ = f"quote it, or YAML reads {tree.type_name(type(value))}: {'- ' if name.isdigit() else f'{name}: '}'...'"
    elif value is None and str in tree.members(kind):
        try_ = "leave it out for its default; in a recipe 'null' in quotes is text"
    elif isinstance(value, str) and {int, float, Count} & {*tree.members(kind)}:
        why = _NUMBERS if any(letter.isdigit() for letter in value) else None
    return UserError(f"{start} {tree.type_name(kind)}, {got}", why=why, try_=try_)


def _place(places: dict[str, str], key: str) -> str:
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key, "")
