"""The keys that a config dataclass spans, and the types behind them. Works on annotations alone.

A *section* is a nested dataclass. A key is dotted; items of lists and dicts have keys too (`data.sources.0.url`).
"""

from __future__ import annotations

import dataclasses
import functools
import keyword
import types
import typing
from collections.abc import Iterator
from typing import Any

from infra.config.count import Count
from infra.errors import UserError, nearest

MISSING = dataclasses.MISSING
_WORDS = {  # one, several
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    dict: ("a mapping", "mappings"),
    list: ("a list", "lists"),
    Count: ("a count such as 20B, 512k or 100_000", "counts"),
    type(None): ("null", "null"),
}


def field_key(key: str) -> str:
    """The key of a setting as its fields are called: `--from` means `from_`, as Python has no field `from`."""
    return ".".join(f"{name}_" if keyword.iskeyword(name) else name for name in key.split("."))


@functools.cache
def fields_of(section: type) -> dict[str, Any]:
    """Name -> resolved annotation, in order."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section) if field.init}


def section_of(kind: Any) -> type | None:
    """The dataclass that `kind` is, or is optionally."""
    kind = bare(kind)
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def is_optional(kind: Any) -> bool:
    return type(None) in members(kind)


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def bare(kind: Any) -> Any:
    """`X` of `X | None`; of a wider union the member that has keys or items, if one has."""
    some = [member for member in members(kind) if member is not type(None)]
    inner = [m for m in some if dataclasses.is_dataclass(m) or typing.get_origin(m) in (dict, list, tuple)]
    found = some[0] if len(some) == 1 else inner[0] if inner else kind
    return {list: list[Any], dict: dict[str, Any]}.get(found, found) if isinstance(found, type) else found


def below(kind: Any, name: Any) -> Any:
    """The annotation of the entry `name` of a section, mapping or list; Any where there is none."""
    if section := section_of(kind):
        return fields_of(section).get(name, Any)
    container, inner = typing.get_origin(bare(kind)), typing.get_args(bare(kind))
    if container is tuple:
        return inner[0 if Ellipsis in inner else name]
    return inner[-1] if container in (dict, list) else Any


def kind_at(root: type, key: str, where: str) -> Any:
    """The annotation of a dotted key that can be set by itself. Raises UserError if there is no such key."""
    kind, at = root, ""
    for name in key.split("."):
        section, container = section_of(kind), typing.get_origin(bare(kind))
        if section and name not in fields_of(section):
            raise unknown_key(root, section, dotted(at, name), where)
        if container is list:
            raise UserError(
                f"cannot set {key} {where}: {at} is a list", try_=f"--{at}='[...]' to replace it, --{at}+=... to append"
            )
        if not section and container is not dict and kind is not Any:
            raise UserError(f"unknown key {key!r} {where}: {at} is {type_name(kind)}, without keys of its own")
        kind, at = below(kind, name), dotted(at, name)
    return kind


def unknown_key(root: type, section: type, key: str, where: str) -> UserError:
    """The error for a key that its section does not have: it names the key's new name, or the nearest key.

    A root dataclass lists renamed keys in `RENAMED: ClassVar[dict[str, str]]`, old to new.
    """
    if new := getattr(root, "RENAMED", {}).get(key):
        return UserError(f"unknown key {key!r} {where}: it is now {new!r}", try_=f"use {new!r} instead")
    name = key.rpartition(".")[2]
    have = nearest(name, fields_of(section))
    if "did you mean" not in have and name == key:
        # `--lr` for `--optim.lr`: the right name without its section.
        elsewhere = [other for other in all_keys(section) if other.rpartition(".")[2] == name]
        have = f"; did you mean {elsewhere[0]!r}?{have}" if elsewhere else have
    # A section that takes settings of something else, such as a reader's, does so under a key of its own.
    free = [other for other, kind in fields_of(section).items() if bare(kind) == dict[str, Any]]
    try_ = f"{free[0]}: {{{name}: ...}}" if free and "did you mean" not in have else None
    return UserError(f"unknown key {key!r} {where}{have}", try_=try_)


def default_of(section: type, name: str) -> Any:
    """The default value of a field, MISSING where it is required."""
    field = section.__dataclass_fields__[name]
    return field.default if field.default_factory is MISSING else field.default_factory()


def suits(kind: Any, value: Any) -> bool:
    """Whether a YAML value has the shape of one of the types that `kind` names; its items are not looked at."""
    for member in members(kind):
        shape = dict if dataclasses.is_dataclass(member) else typing.get_origin(member) or member
        if shape is Any or (shape is typing.Literal and value in typing.get_args(member)):
            return True
        if type(value) in {tuple: (list,), float: (int, float)}.get(shape, (shape,)):
            return True
    return False


def item_sections(section: type, key: str = "") -> Iterator[tuple[str, type]]:
    """Keys whose lists or dicts hold sections."""
    for name, kind in fields_of(section).items():
        inside, args = section_of(kind), typing.get_args(bare(kind))
        if inside:
            yield from item_sections(inside, dotted(key, name))
        elif args and (item := section_of(args[-1])):
            yield dotted(key, name), item


def all_keys(section: type, key: str = "") -> Iterator[str]:
    for name, kind in fields_of(section).items():
        yield dotted(key, name)
        if inside := section_of(kind):
            yield from all_keys(inside, dotted(key, name))


def type_name(kind: Any, *, several: bool = False) -> str:
    """What a value must be, in words: "a whole number or null"."""
    if len(members(kind)) > 1:
        return " or ".join(type_name(member) for member in members(kind))
    container, inner = typing.get_origin(kind), typing.get_args(kind)
    if container is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if container is dict:
        return f"{_WORDS[dict][several]} of {type_name(inner[0])} to {type_name(inner[1], several=True)}"
    if container in (list, tuple):
        number = f"{len(inner)} " if container is tuple and Ellipsis not in inner else ""
        return f"{_WORDS[list][several]} of {number}{type_name(inner[0], several=True)}"
    if kind in _WORDS:
        return _WORDS[kind][several]
    return getattr(kind, "__name__", None) or str(kind).replace("typing.", "")


def dotted(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
