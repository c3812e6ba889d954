"""The command line and the recipes that it names, as one dataclass.

Recipes and overrides are merged as plain values, and every key remembers where it was set, so that an error can name
the place. Sections (nested dataclasses) merge key by key; everything else, lists included, is replaced. Overrides win
over recipes, wherever on the line `--config` is. Imports nothing heavy: data workers import it for `Count` alone.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from infra.config import tree, yaml_text
from infra.config.build import build, wrong_value
from infra.config.plain import plain, to_yaml
from infra.errors import UserError, nearest_path

T = TypeVar("T")

COMMAND_LINE = "on the command line"
PRINT_CONFIG = "print_config"


class Parsed(NamedTuple, Generic[T]):
    """A command line that was read."""

    config: T
    flags: dict[str, bool]
    """Name of each switch -> whether it was given."""
    recipe_name: str
    """Name of the last recipe's file without its suffix; "" if none was given."""


def parse(
    root: type[T],
    *,
    description: str,
    argv: list[str] | None = None,
    flags: dict[str, str] | None = None,
    common: tuple[str, ...] = (),
    positional: str | None = None,
    moved: dict[str, str] | None = None,
    settle: Callable[[T, dict[str, str]], T] = lambda config, places: config,
) -> Parsed[T]:
    """Read the command line; `--help` and `--print_config` print and exit 0.

    Understands `--config FILE` (repeatable, later wins), `--a.b=c`, `--a.b c`, `--a.list+=item`, `--a.list x y` for a
    list of texts, `--a.flag` for a boolean, and the switches named in `flags` (name -> help). Raises UserError for
    everything else, empty values too.

    common: the settings that `--help` shows first. positional: the field, a list, that takes words which stand alone.
    moved: settings of another command (key -> that command). settle: from the config, and from the places of the
    settings that were given (key -> "on the command line"), to the config that is meant.
    """
    flags = {**(flags or {}), PRINT_CONFIG: "Print the resolved configuration and exit."}
    words = _scan(root, sys.argv[1:] if argv is None else argv, flags, positional, moved or {})
    if "help" in words.switches:
        from infra.config import help

        print(help.render(root, description=description, flags=flags, common=common), end="")
        sys.exit(0)
    settings = _Settings(root)
    for path in words.configs:
        settings.merge(_load(_read(path), f"in {path}"), f"in {path}")
    for override in words.overrides:
        settings.override(override)
    config = settle(settings.build(), settings.places)
    if PRINT_CONFIG in words.switches:
        print(to_yaml(config), end="")
        sys.exit(0)
    switches = {name: name in words.switches for name in flags if name != PRINT_CONFIG}
    return Parsed(config, switches, Path(words.configs[-1]).stem if words.configs else "")


def dataclass_from(cls: type[T], mapping: dict[str, Any], *, where: str) -> T:
    """One dataclass from a plain mapping, strictly; `where` completes "unknown key 'x' ...": "in source 1"."""
    if not isinstance(mapping, dict):
        raise UserError(f"expected a mapping {where}, got {mapping!r}")
    settings = _Settings(cls, places={"": where})
    settings.merge(mapping, where)
    return settings.build()


def with_settings(config: T, mapping: dict[str, Any], *, where: str) -> T:
    """The config with these settings changed: keys inside their sections, as a recipe file has them; `where` as for
    `dataclass_from`. Sections merge, everything else is replaced.
    """
    settings = _Settings(type(config), values=plain(config), places={"": where})
    settings.merge(mapping, where)
    return settings.build()


def from_yaml(root: type[T], text: str, *, where: str = "in the YAML text") -> T:
    return dataclass_from(root, _load(text, where), where=where)


def mapping_from_yaml(text: str, *, where: str = "in the YAML text") -> dict[str, Any]:
    """The keys and values of a YAML text as they stand there, without defaults."""
    return _load(text, where)


class _Override(NamedTuple):
    key: str
    value: str
    append: bool


class _Words(NamedTuple):
    configs: list[str]
    overrides: list[_Override]
    switches: set[str]


def _scan(root: type, argv: list[str], flags: dict[str, str], positional: str | None, moved: dict[str, str]) -> _Words:
    """Sort the words of a command line into recipes, overrides and switches."""
    switches = {"--help": "help", "-h": "help", **{f"--{name}": name for name in flags}}
    words, rest = _Words([], [], set()), list(argv)
    while rest:
        word = rest.pop(0)
        if word in switches:
            words.switches.add(switches[word])
            continue
        if positional and not word.startswith("-"):
            _refuse_empty(positional, str, word)
            words.overrides.append(_Override(positional, json.dumps([word]), append=True))
            continue
        if not word.startswith("--") or word == "--":
            raise UserError(
                f"unexpected {word!r} {COMMAND_LINE}", why="settings are given as --key value", try_="--help"
            )
        name, equals, value = word.removeprefix("--").partition("=")
        key = tree.field_key(name.removesuffix("+"))
        if key in moved:
            raise UserError(f"--{name} belongs to another command", try_=moved[key])
        kind = str if key == "config" else tree.kind_at(root, key, COMMAND_LINE)
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
            if key != "config" and tree.bare(kind) == list[str] and not value.startswith("["):
                value = _word_list(rest, value)
        elif not equals and tree.bare(kind) is bool:
            value = "true"
        elif not equals:
            raise UserError(f"--{name} needs a value {COMMAND_LINE}", why=f"expected {tree.type_name(kind)}")
        _refuse_empty(key, kind, value)
        if key == "config":
            words.configs.append(value)
        else:
            words.overrides.append(_Override(key, value, append=name.endswith("+")))
    return words


def _word_list(rest: list[str], first: str) -> str:
    """The words of `--models a b c`, up to the next setting, as the list that they mean; takes them from `rest`."""
    words = [first]
    while rest and not rest[0].startswith("-"):
        words.append(rest.pop(0))
    return json.dumps(words) if all(words) else ""


def _refuse_empty(key: str, kind: Any, value: str) -> None:
    """Raises UserError for a value without a character: `--x=$UNSET` must not mean null, nor a place called ""."""
    if not value:
        null = f", or --{key}=null" if tree.is_optional(kind) else ""
        raise UserError(
            f"{key} {COMMAND_LINE}: expected {tree.type_name(kind)}, got an empty value",
            why="a shell variable that is not set leaves nothing behind",
            try_=f"give a value{null}, or leave it out for its default",
        )


@dataclass
class _Settings(Generic[T]):
    """The settings of `root` as recipes and the command line have set them so far."""

    root: type[T]
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Key -> where it was set, in words. A key without an entry has the place of its section."""

    def build(self) -> T:
        return build(self.root, self.values, self.places)

    def merge(self, mapping: dict[str, Any], where: str) -> None:
        """Let a recipe override what was set before it."""
        self._merge(self.root, self.values, mapping, "", where)

    def _merge(self, section: type, into: dict[str, Any], new: dict[str, Any], key: str, where: str) -> None:
        for name, value in new.items():
            at = tree.dotted(key, name)
            if name not in tree.fields_of(section):
                raise tree.unknown_key(self.root, section, at, where)
            kind = tree.fields_of(section)[name]
            inside = tree.section_of(kind)
            if inside and isinstance(value, dict):
                self._merge(inside, self._section(section, into, name), value, at, where)
            elif not inside or (value is None and tree.is_optional(kind)):
                self._set(into, name, value, at, where)
            elif value is not None:  # `optim:` with every line under it commented out says nothing
                raise wrong_value(kind, value, at, where)

    def override(self, word: _Override) -> None:
        """Let one word of the command line override what was set before. Inside a dict it sets one entry."""
        *path, last = word.key.split(".")
        into, kind = self.values, self.root
        for name in path:
            below = tree.below(kind, name)
            if section := tree.section_of(kind):
                into, kind = self._section(section, into, name), below
            else:
                if not isinstance(into.get(name), dict):
                    into[name] = {}
                into, kind = into[name], below
        below = tree.below(kind, last)
        value = _meaning(below, word.value)
        if word.append:
            if typing.get_origin(tree.bare(below)) is not list:
                raise UserError(f"--{word.key}+= appends to a list, and {word.key} is {tree.type_name(below)}")
            before = into.get(last, _default(kind, last)) or []
            item = typing.get_args(tree.bare(below))[0]
            value = [*before, *(value if isinstance(value, list) else [_meaning(item, word.value)])]
        self._set(into, last, value, word.key, COMMAND_LINE)

    def _section(self, section: type, into: dict[str, Any], name: str) -> dict[str, Any]:
        """The values of the section or dict `name`, from its default on."""
        if not isinstance(into.get(name), dict):
            default = _default(section, name)
            into[name] = default if isinstance(default, dict) else {}
        return into[name]

    def _set(self, into: dict[str, Any], name: str, value: Any, key: str, where: str) -> None:
        self.places[key] = where
        into[name] = value


def _default(kind: Any, name: str) -> Any:
    """The default of a section's field as a plain value; None if it has no default."""
    found = tree.default_of(section, name) if (section := tree.section_of(kind)) else None
    return None if found is tree.MISSING else plain(found)


def _meaning(kind: Any, text: str) -> Any:
    """The value of a word where a `kind` is expected: the YAML that it spells if that suits, or else its text."""
    import yaml

    if text in yaml_text.NULLS:
        return None
    if {*tree.members(kind)} <= {str, type(None)}:  # the text letter by letter, also where it is valid YAML
        return text
    try:
        value = yaml_text.load(text)
    except yaml.YAMLError:
        return text
    if value is None:  # a comment or white space, which nobody means as null
        return text
    # The mixture, a dict or a text, takes `glm` as text.
    has_items = isinstance(value, dict | list) and str not in tree.members(kind)
    return value if has_items or tree.suits(kind, value) else text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as exc:
        close = nearest_path(path) if isinstance(exc, FileNotFoundError) else None
        try_ = f"--config {close}" if close else "give a path to a YAML recipe"
        raise UserError(f"cannot read --config {path}", why=exc.strerror, try_=try_) from None
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
