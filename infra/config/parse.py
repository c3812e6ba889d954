"""Configuration: typed dataclasses, YAML recipes, dotted overrides; every unknown key and wrong type refused by name.

Types, defaults and help come from jsonargparse. Recipes and overrides are merged here, as plain mappings whose every
key remembers where it was said, so that an error can name the key, the place and the nearest key that exists.
Sections (nested dataclasses) merge key by key; everything else, lists included, is replaced. Overrides win over
recipes, wherever `--config` stands. Imports nothing heavy: data workers load modules that only want `Count` from here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import typing
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, TypeVar

from infra.config import tree, yaml_text
from infra.errors import UserError

T = TypeVar("T")

COMMAND_LINE = "on the command line"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


class Count(int):
    """A number of things, also written `20B`, `512k`, `1.5M`, `1e9`, `100_000` (k 1e3, M 1e6, B 1e9, T 1e12)."""

    def __new__(cls, value: int | float | str = 0) -> Count:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"{value!r} is not a count")
        text = str(value).strip().lower().replace("_", "")
        number, unit = (text[:-1], text[-1]) if text and text[-1] in _UNITS else (text, "")
        try:
            exact = Decimal(number) * _UNITS[unit]
        except InvalidOperation:
            exact = Decimal("nan")
        if not exact.is_finite() or exact != exact.to_integral_value() or exact < 0:
            raise ValueError(f"{value!r} is not a whole number such as 20B, 512k, 1.5M or 100_000")
        return super().__new__(cls, int(exact))


def parse(
    root: type[T], *, description: str, argv: list[str] | None = None, flags: dict[str, str] | None = None
) -> tuple[T, dict[str, bool]]:
    """Read the command line into (config, switches); `--help` and `--print_config` print and exit 0.

    Understands `--config FILE` (repeatable, later wins), `--a.b=c`, `--a.b c`, `--a.list+=item`, `--a.flag` for a
    boolean, and the switches named in `flags` (name -> help). Raises UserError for everything else.
    """
    words = _scan(root, sys.argv[1:] if argv is None else argv, flags or {})
    if "help" in words.switches:
        print(_help(root, description, flags or {}), end="")
        sys.exit(0)
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path in words.configs:
        _add(root, merged, _load(_read(path), f"in {path}"), places, f"in {path}")
    for word in words.overrides:
        _override(root, merged, word, places)
    config = _build(root, merged, places)
    if "print_config" in words.switches:
        print(to_yaml(config), end="")
        sys.exit(0)
    return config, {name: name in words.switches for name in flags or {}}


def dataclass_from(cls: type[T], mapping: dict[str, Any], *, where: str) -> T:
    """One dataclass from a plain mapping, strictly; `where` completes "unknown key 'x' ...": "in source 1"."""
    if not isinstance(mapping, dict):
        raise UserError(f"expected a mapping {where}, got {mapping!r}")
    return _from_mapping(cls, mapping, where)


def to_yaml(config: Any) -> str:
    """YAML that `from_yaml`, or `--config`, reads back to an equal config."""
    return yaml_text.dump(tree.plain(config))


def from_yaml(root: type[T], text: str, *, where: str = "in the YAML text") -> T:
    return _from_mapping(root, _load(text, where), where)


def flatten(config: Any) -> dict[str, str]:
    """Dotted key -> text, lists of mappings by index: `{"data.sources.0.reader": "text", "optim.steps": "5"}`."""
    leaves = _leaves(tree.plain(config), "")
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in leaves}


def config_digest(config: Any, *, exclude: tuple[str, ...] = ()) -> str:
    """Hex sha256 of the config without the dotted keys or sections in `exclude`."""
    plain = tree.plain(config)
    for key in exclude:
        *path, last = key.split(".")
        section = functools.reduce(lambda node, part: node[part], path, plain)
        del section[last]  # a KeyError here is a wrong key in our own code: it would leave in what was to be left out
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


# -- the command line --------------------------------------------------------------------------------------------------


class _Override(NamedTuple):
    key: str
    value: str
    append: bool


class _Words(NamedTuple):
    configs: list[str]
    overrides: list[_Override]
    switches: set[str]


def _scan(root: type, argv: list[str], flags: dict[str, str]) -> _Words:
    """Sort the words of a command line into recipes, overrides and switches."""
    switches = {
        "--help": "help",
        "-h": "help",
        "--print_config": "print_config",
        **{f"--{name}": name for name in flags},
    }
    words, rest = _Words([], [], set()), list(argv)
    while rest:
        word = rest.pop(0)
        if word in switches:
            words.switches.add(switches[word])
            continue
        if not word.startswith("--") or word == "--":
            raise UserError(
                f"unexpected {word!r} {COMMAND_LINE}", why="settings are given as --key value", try_="--help"
            )
        name, equals, value = word.removeprefix("--").partition("=")
        key = name.removesuffix("+")
        kind = str if key == "config" else tree.type_at(root, key, COMMAND_LINE)
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not equals and kind is bool:
            value = "true"
        elif not equals:
            raise UserError(f"--{name} needs a value {COMMAND_LINE}", why=f"expected {tree.type_name(kind)}")
        if key == "config":
            words.configs.append(value)
        else:
            words.overrides.append(_Override(key, value, append=name.endswith("+")))
    return words


def _override(root: type, merged: dict[str, Any], word: _Override, places: dict[str, str]) -> None:
    """Put one override into `merged`. Inside a dict field it sets one entry and leaves the others."""
    *path, last = word.key.split(".")
    node, kind, default = merged, root, tree.defaults_of(root)
    for name in path:
        kind, default = tree.below(kind, name), _entry(default, name)
        if not isinstance(node.get(name), dict):
            # A section that nobody mentioned starts empty, its defaults come with its type; a dict starts from its own.
            node[name] = dict(default) if isinstance(default, dict) and not tree.section_of(kind) else {}
        node = node[name]
    kind = tree.below(kind, last)
    value = _meaning(kind, word.value)
    if word.append:
        if typing.get_origin(tree.bare(kind)) is not list:
            raise UserError(f"--{word.key}+= appends to a list, and {word.key} is {tree.type_name(kind)}")
        before = node.get(last, _entry(default, last)) or []
        value = [*before, *(value if isinstance(value, list) else [value])]
    _note(places, word.key, COMMAND_LINE)
    tree.check(kind, value, word.key, places)
    node[last] = value


def _meaning(kind: Any, text: str) -> Any:
    """A word where a `kind` is expected: the YAML it spells if that is of the kind, else the text as it stands."""
    import yaml

    if kind is str:
        return text
    if tree.bare(kind) is str:  # `str | None`: a text is taken letter for letter, whatever YAML would make of it
        return None if text in ("null", "~") else text
    try:
        value = yaml_text.load(text)
    except yaml.YAMLError:
        return text
    # `mixture: dict | str` takes `glm` as it stands.
    return value if tree.could_be(kind, value) else text


def _entry(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, dict) else None


# -- recipes -----------------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as exc:
        raise UserError(f"cannot read --config {path}", why=exc.strerror, try_="a path to a YAML recipe") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read --config {path}", why="it is not UTF-8 text") from None


def _load(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        value = yaml_text.load(text)
    except yaml.YAMLError as exc:
        raise UserError(f"invalid YAML {where}", why=str(exc)) from None
    if value is not None and not isinstance(value, dict):
        raise UserError(f"expected keys and values {where}, got {value!r:.80}")
    return value or {}


def _add(root: type, merged: dict[str, Any], mapping: dict[str, Any], places: dict[str, str], where: str) -> None:
    tree.check(root, mapping, "", {"": where})
    _merge(root, merged, mapping, places, where, "")


def _merge(kind: Any, into: dict[str, Any], new: dict[str, Any], places: dict[str, str], where: str, key: str) -> None:
    for name, value in new.items():
        below, at = tree.below(kind, name), tree.dotted(key, name)
        section = tree.section_of(below)
        if section and value is None and not tree.is_optional(below):
            continue  # `optim:` with every line under it commented out
        if section and isinstance(value, dict) and isinstance(already := into.get(name), dict):
            _merge(below, already, value, places, where, at)
            continue
        _note(places, at, where)
        if section and isinstance(value, dict):
            into[name] = inside = {}
            _merge(below, inside, value, places, where, at)
        else:
            into[name] = value


def _note(places: dict[str, str], key: str, where: str) -> None:
    for inner in [other for other in places if other.startswith(f"{key}.")]:
        del places[inner]
    places[key] = where


# -- from mappings to dataclasses --------------------------------------------------------------------------------------


def _from_mapping(root: type[T], mapping: dict[str, Any], where: str) -> T:
    merged: dict[str, Any] = {}
    places = {"": where}
    _add(root, merged, mapping, places, where)
    return _build(root, merged, places)


def _build(root: type[T], merged: dict[str, Any], places: dict[str, str]) -> T:
    tree.check(root, merged, "", places, complete=True)
    parser = _parser()
    parser.add_class_arguments(root, "config")
    try:
        parsed = parser.parse_object({"config": tree.to_parse(root, merged)} if merged else {})
    except (Exception, SystemExit) as exc:
        raise tree.blame(root, merged, "", places) or UserError("invalid settings", why=str(exc)) from exc
    try:
        return tree.make(root, merged, getattr(parsed, "config", {}))  # without any field there is no entry
    except UserError:
        raise
    except ValueError as exc:  # a dataclass that refuses its values in __post_init__
        raise UserError(str(exc)) from exc


def _parser(**kwargs: Any) -> Any:
    import jsonargparse
    from jsonargparse.typing import register_type

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    register_type(Count, serializer=int, deserializer=Count, fail_already_registered=False)
    return jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, **kwargs)


def _help(root: type, description: str, flags: dict[str, str]) -> str:
    import argparse

    parser = _parser(description=description, usage="%(prog)s [--config FILE ...] [--key value ...]")
    parser.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="YAML recipe; repeatable, later wins"
    )
    for name, text in {"print_config": "print the resolved configuration and exit", **flags}.items():
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    parser.add_class_arguments(root, None)
    for action in parser._actions:
        if action.metavar == "CONFIG" or action.dest.endswith(".help"):
            action.help = argparse.SUPPRESS  # jsonargparse's own extras, which `parse` does not take
    for group in parser._action_groups:
        # A dataclass without docstring gets its signature for one.
        group.title = "settings" if "(" in (group.title or "") else group.title
    items = [f"{key}: each has {', '.join(tree.fields_of(section))}" for key, section in tree.item_sections(root)]
    parser.epilog = " ".join(items) or None
    return parser.format_help()


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of what holds no keys: scalars, lists of scalars, empty containers."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(enumerate(value))
    else:
        yield key, value
        return
    for name, item in items:
        yield from _leaves(item, tree.dotted(key, name))
