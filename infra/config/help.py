"""`--help`: what most people need first, then every setting by section, with its default and its docstring.

argparse lays the text out; it parses nothing here.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import itertools
import json
import keyword
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from infra.config import tree
from infra.config.count import Count
from infra.config.field_texts import texts_of
from infra.config.plain import plain

_METAVARS = {str: "TEXT", int: "N", float: "NUMBER", bool: "true|false", Count: "COUNT", list: "[...]", tuple: "[...]"}


_TIE = "\N{NO-BREAK SPACE}"  # at which no line is broken


class _Setting(NamedTuple):
    """A leaf of the tree. default: MISSING where it is required."""

    key: str
    kind: Any
    default: Any
    text: str


def render(root: type, *, description: str, flags: dict[str, str], common: tuple[str, ...]) -> str:
    """The help of a command, as wide as the terminal. common: keys of the settings that come first."""
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s [--config FILE ...] [--key value ...]", add_help=False
    )
    # Python 3.14 would use colors; types are checked as of 3.11, which does not know the attribute.
    parser.color = False  # pyright: ignore[reportAttributeAccessIssue]
    settings = {setting.key: setting for setting in _settings(root)}
    first = parser.add_argument_group("most used" if common else "options")
    first.add_argument("--config", metavar="FILE", help="A YAML recipe. May be repeated: the later one wins.")
    for name, text in flags.items():
        first.add_argument(f"--{name}", action="store_true", help=_escaped(text))
    first.add_argument("--help", "-h", action="store_true", help="Show this text and exit.")
    for key in common:
        _add(first, f"--{key}", settings[key])
    rest = [setting for key, setting in settings.items() if key not in common]
    for section, members in itertools.groupby(rest, lambda setting: setting.key.rpartition(".")[0]):
        group = parser.add_argument_group(section or "settings", _section_text(root, section))
        for setting in members:
            _add(group, f"--{setting.key}", setting)
    for key, item in tree.item_sections(root):
        group = parser.add_argument_group(f"each item of {key}")
        for setting in _settings(item):
            _add(group, f"{key}.{setting.key}", setting)
    return parser.format_help().replace(_TIE, " ")


def _settings(section: type, key: str = "", instance: Any = None) -> Iterator[_Setting]:
    """The leaves of a section in order, its own before those of the sections inside it. instance: of the section,
    where it is a default whose values are not those of its class.
    """
    inside = []
    for name, kind in tree.fields_of(section).items():
        default = tree.default_of(section, name) if instance is None else getattr(instance, name)
        if below := tree.section_of(kind):
            inside.append((below, tree.dotted(key, name), default if dataclasses.is_dataclass(default) else None))
        else:
            yield _Setting(tree.dotted(key, name), kind, default, texts_of(section).get(name, ""))
    for arguments in inside:
        yield from _settings(*arguments)


def _add(group: Any, name: str, setting: _Setting) -> None:
    name = name.removesuffix("_") if keyword.iskeyword(name.removesuffix("_").lstrip("-")) else name
    default = "required" if setting.default is tree.MISSING else f"default:{_TIE}{_spelled(setting.default)}"
    metavar = "|".join(dict.fromkeys(_metavar(kind) for kind in tree.members(setting.kind) if kind is not type(None)))
    if not name.startswith("-"):
        metavar = f"{setting.key}: {metavar}"
    group.add_argument(name, metavar=metavar, help=_escaped(f"{setting.text} ({default})".lstrip()))


def _metavar(kind: Any) -> str:
    container = typing.get_origin(kind) or kind
    if container is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return "{...}" if container is dict else _METAVARS.get(container, "VALUE")


def _spelled(default: Any) -> str:
    if isinstance(default, Count):
        return default.short
    return default if isinstance(default, str) and default else json.dumps(plain(default), ensure_ascii=False)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _section_text(root: type, key: str) -> str | None:
    """What the docstring of a section's field says, or else that of its dataclass."""
    if not key:
        return None
    above, _, name = key.rpartition(".")
    owner = tree.section_of(functools.reduce(tree.below, filter(None, above.split(".")), root))
    section = tree.section_of(functools.reduce(tree.below, key.split("."), root))
    assert owner
    assert section
    own = inspect.cleandoc(section.__doc__ or "").split("\n\n")[0]
    # A dataclass without docstring has its signature for one.
    text = texts_of(owner).get(name) or ("" if own.startswith(f"{section.__name__}(") else own)
    return _escaped(text) or None
