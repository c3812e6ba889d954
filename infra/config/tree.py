"""The tree of keys that a config dataclass spans: its types, its defaults, and what is wrong with a mapping for it.

Works on annotations alone. jsonargparse decides whether a value suits a type; this module finds the key to blame.
A *section* is a nested dataclass. A key is dotted; items of lists and dicts are keys too (`data.sources.0.url`).
`places` maps a key to the words that say where it was set ("in a.yaml"); a key without an entry has its parent's.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

from infra.errors import UserError, nearest

MISSING = dataclasses.MISSING


def check(kind: Any, value: Any, key: str, places: dict[str, str], *, complete: bool = False) -> None:
    """Refuse unknown keys, and values where a section belongs; with `complete`, missing required keys too."""
    section = section_of(kind)
    if section and value is not None:
        _check_section(section, value, key, places, complete)
    else:
        for below, item, name in _items(kind, value):
            check(below, item, dotted(key, name), places, complete=complete)


def blame(kind: Any, value: Any, key: str, places: dict[str, str]) -> UserError | None:
    """The first leaf whose value jsonargparse does not take for its type, as an error; None when all are taken."""
    section = section_of(kind)
    if section and isinstance(value, dict):
        below = [(type_, value[name], name) for name, type_ in fields_of(section).items() if name in value]
    else:
        below = _items(kind, value)
    if not below:
        return None if _accepts(kind, value) else _wrong(kind, value, key, places)
    errors = (blame(type_, item, dotted(key, name), places) for type_, item, name in below)
    return next((error for error in errors if error), None)


def to_parse(kind: Any, value: Any) -> Any:
    """What jsonargparse is given of plain values: no text where Any is allowed, since it would try to read YAML there
    and fails on some ("0:"). `make` takes that text as it was said.
    """
    if kind is Any:
        return None
    section = section_of(kind)
    if section and isinstance(value, dict):
        return {name: to_parse(below(kind, name), item) for name, item in value.items()}
    container, inner = typing.get_origin(bare(kind)), typing.get_args(bare(kind))
    if container is list and isinstance(value, list):
        return [to_parse(inner[0], item) for item in value]
    if container is dict and isinstance(value, dict):
        return {name: to_parse(inner[1], item) for name, item in value.items()}
    return copy.deepcopy(value)


def make(kind: Any, said: Any, parsed: Any) -> Any:
    """The dataclasses and values of `kind`, from what was said (plain) and what jsonargparse made of it.

    Instead of jsonargparse's own `instantiate`, because it takes text for YAML wherever Any or None is allowed: of the
    option "0" it makes 0, of "no" False. What was said as text, or for Any, stays as it was said.
    """
    section = section_of(kind)
    if said is not MISSING and (kind is Any or (isinstance(said, str) and str in typing.get_args(kind))):
        return said
    if section and parsed is not None and not isinstance(parsed, section):
        said = said if isinstance(said, dict) else {}
        return section(
            **{
                name: make(fields_of(section)[name], said.get(name, MISSING), parsed[name])
                for name in fields_of(section)
            }
        )
    container, inner = typing.get_origin(bare(kind)), typing.get_args(bare(kind))
    if container is list and isinstance(parsed, list):
        whole = said if isinstance(said, list) else [MISSING] * len(parsed)
        return [make(inner[0], item, result) for item, result in zip(whole, parsed, strict=True)]
    if container is dict and isinstance(parsed, dict):
        whole = said if isinstance(said, dict) else {}
        return {name: make(inner[1], whole.get(name, MISSING), result) for name, result in parsed.items()}
    return parsed


def could_be(kind: Any, value: Any) -> bool:
    """Whether a YAML value is of one of the kinds that `kind` names; roughly, jsonargparse has the last word."""
    members = typing.get_args(kind) if _is_union(kind) else (kind,)
    if Any in members or value is None:
        return Any in members or type(None) in members
    if isinstance(value, dict | list):
        container = (dict,) if isinstance(value, dict) else (list, tuple, set, frozenset)
        has_items = any((typing.get_origin(bare(m)) or m) in container for m in members)
        return has_items or (section_of(kind) is not None) or str not in members
    return type(value) in members


def type_at(root: Any, key: str, where: str) -> Any:
    """The annotation of a dotted key; UserError when it names nothing."""
    kind, at = root, ""
    for name in key.split("."):
        section, container = section_of(kind), typing.get_origin(bare(kind))
        if section and name not in fields_of(section):
            raise unknown(section, at, name, where)
        if container is list:
            raise UserError(
                f"{key} {where}: {at} is a list", try_=f"replace it: --{at}='[...]', or append: --{at}+=..."
            )
        if not section and container is not dict and kind is not Any:
            raise UserError(f"unknown key {key!r} {where}: {at} is {type_name(kind)}, without keys of its own")
        kind, at = below(kind, name), dotted(at, name)
    return kind


def unknown(section: type, key: str, name: str, where: str) -> UserError:
    have = nearest(name, fields_of(section))
    if "did you mean" not in have and not key:
        # `--lr` for `--optim.lr`: right word, wrong place.
        elsewhere = [other for other in _all_keys(section) if other.rpartition(".")[2] == name]
        have = f"; did you mean {elsewhere[0]!r}?{have}" if elsewhere else have
    return UserError(f"unknown key {dotted(key, name)!r} {where}{have}")


def defaults_of(section: type) -> dict[str, Any]:
    """Plain values of a section's fields that have a default, sections inside it included."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        if field.default is not MISSING:
            found[field.name] = plain(field.default)
        elif field.default_factory is not MISSING:
            found[field.name] = plain(field.default_factory())
    return found


def plain(value: Any) -> Any:
    """Dataclasses, tuples and `Count` as the dicts, lists and numbers of YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def section_of(kind: Any) -> type | None:
    """The dataclass that `kind` is, or is optionally."""
    kind = bare(kind)
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def is_optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind) and _is_union(kind)


def bare(kind: Any) -> Any:
    """`X` of `X | None`; of a wider union the member that has keys or items, if one has."""
    if _is_union(kind):
        members = [bare(member) for member in typing.get_args(kind) if member is not type(None)]
        inner = [m for m in members if dataclasses.is_dataclass(m) or typing.get_origin(m) in (dict, list)]
        return members[0] if len(members) == 1 else inner[0] if inner else kind
    if typing.get_origin(kind) is typing.Annotated:
        return bare(typing.get_args(kind)[0])
    return {list: list[Any], dict: dict[str, Any]}.get(kind, kind) if isinstance(kind, type) else kind


def below(kind: Any, name: str) -> Any:
    """The annotation of the entry `name` of a section or dict; Any where there is none."""
    section, container = section_of(kind), bare(kind)
    if section:
        return fields_of(section).get(name, Any)
    return typing.get_args(container)[1] if typing.get_origin(container) is dict else Any


@functools.cache
def fields_of(section: type) -> dict[str, Any]:
    """Name -> resolved annotation, in order."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section) if field.init}


def item_sections(section: type, key: str = "") -> Iterator[tuple[str, type]]:
    """Keys whose lists or dicts hold sections."""
    for name, kind in fields_of(section).items():
        inside, args = section_of(kind), typing.get_args(bare(kind))
        if inside:
            yield from item_sections(inside, dotted(key, name))
        elif args and (item := section_of(args[-1])):
            yield dotted(key, name), item


def type_name(kind: Any) -> str:
    if _is_union(kind):
        return " or ".join(type_name(member) for member in typing.get_args(kind))
    if kind is type(None):
        return "null"
    if typing.get_args(kind) and typing.get_origin(kind) is not typing.Literal:
        inner = [type_name(member) for member in typing.get_args(kind) if member is not Ellipsis]
        return f"{type_name(typing.get_origin(kind))} of {', '.join(inner)}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    words |= {dict: "a mapping", list: "a list", tuple: "a list"}
    if getattr(kind, "__name__", "") == "Count":
        return "a count such as 20B, 512k or 100_000"
    return words.get(kind) or getattr(kind, "__name__", None) or str(kind).replace("typing.", "")


def place(places: dict[str, str], key: str) -> str:
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key, "")


def dotted(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _check_section(section: type, value: Any, key: str, places: dict[str, str], complete: bool) -> None:
    known = fields_of(section)
    if not isinstance(value, dict):
        where = place(places, key)
        raise UserError(f"{key}={value!r} {where}: expected a section with the keys {', '.join(known)}")
    for name in value:
        if name not in known:
            raise unknown(section, key, str(name), place(places, dotted(key, name)))
    for field in dataclasses.fields(section):
        at = dotted(key, field.name)
        if field.name in value:
            check(known[field.name], value[field.name], at, places, complete=complete)
        elif complete and field.init and field.default is field.default_factory is MISSING:
            inside = section_of(known[field.name])
            if inside and not is_optional(known[field.name]):
                _check_section(inside, {}, at, places, complete)  # names the leaf that is missing
            raise UserError(
                f"{at} is required {place(places, key)}".rstrip(), why=f"expected {type_name(known[field.name])}"
            )


def _items(kind: Any, value: Any) -> list[tuple[Any, Any, Any]]:
    """(annotation, item, name) for each item of a list or dict value."""
    container, inner = typing.get_origin(bare(kind)), typing.get_args(bare(kind))
    if container is list and isinstance(value, list):
        return [(inner[0], item, index) for index, item in enumerate(value)]
    if container is dict and isinstance(value, dict):
        return [(inner[1], item, name) for name, item in value.items()]
    return []


def _accepts(kind: Any, value: Any) -> bool:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        parser.parse_object({"value": value})
    except (Exception, SystemExit):
        return False
    return True


def _wrong(kind: Any, value: Any, key: str, places: dict[str, str]) -> UserError:
    said = f"{key}={value!r} {place(places, key)}"
    if typing.get_origin(bare(kind)) is typing.Literal:
        return UserError(f"{said} is not one of its values{nearest(str(value), map(str, typing.get_args(bare(kind))))}")
    try_ = None
    if str in (kind, *typing.get_args(kind)) and isinstance(value, bool | int | float):
        try_ = f"quote it, or YAML reads {type_name(type(value))}: {key.rpartition('.')[2]}: '...'"
    return UserError(f"{said}: expected {type_name(kind)}", try_=try_)


def _all_keys(section: type, key: str = "") -> Iterator[str]:
    for name, kind in fields_of(section).items():
        yield dotted(key, name)
        if inside := section_of(kind):
            yield from _all_keys(inside, dotted(key, name))


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)
