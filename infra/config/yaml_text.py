"""YAML as people mean it: `1e-4` is a number, and a key given twice is an error. What is dumped is read back equal."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

# Numbers, true, false and null are as in JSON, plus +5, 5., .5, 1_000 and .inf; everything else is text. YAML 1.1 would
# also read `no` as False, 2026-11-23 as a date, 1:30 as 90, 0x10 as 16, 010 as 8, and 1e-4 as text.
NULLS = ("", "~", "null", "Null", "NULL")
_DIGITS = r"[0-9]+(_[0-9]+)*"
_WHOLE = r"(0|[1-9][0-9]*(_[0-9]+)*)"
_POWER = r"[eE][-+]?[0-9]+"
_PLAIN = {
    "null": (rf"^({'|'.join(NULLS)})$", ["~", "n", "N", ""]),
    "bool": (r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (rf"^[-+]?{_WHOLE}$", list("-+0123456789")),
    "float": (
        rf"^([-+]?({_WHOLE}(\.({_DIGITS})?({_POWER})?|{_POWER})|\.{_DIGITS}({_POWER})?|\.(inf|Inf|INF))|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    "merge": (r"^<<$", ["<"]),
}


def load(text: str) -> Any:
    """The value of a YAML text. Keys are texts, whatever they look like; so are numbers that a float cannot hold.

    Raises yaml.YAMLError.
    """
    import yaml

    return yaml.load(text, Loader=_classes()[0])


def dump(value: Any) -> str:
    import yaml

    return yaml.dump(value, Dumper=_classes()[1], sort_keys=False, allow_unicode=True, width=120)


def _whole(text: str) -> int | str:
    """The whole number that a scalar spells, or the scalar. A tag (`!!int 0x10`) brings any text here."""
    # No float, and no int of Python's own reader, has more digits; a setting of 64 bits says so itself.
    is_number = re.match(_PLAIN["int"][0], text) and len(text) <= 300
    return int(text.replace("_", "")) if is_number else text


def _real(text: str) -> float | str:
    """The number that a scalar spells, or the scalar: 1e400 is not infinity, and 1e-400 is not 0."""
    if not re.match(_PLAIN["float"][0], text):
        whole = _whole(text)
        return whole if isinstance(whole, str) else float(whole)
    if text[-1] in "fFnN":
        return float(text.replace(".", ""))
    number = float(text.replace("_", ""))
    vanished = number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
    return text if math.isinf(number) or vanished else number


def _constructor(number: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    return lambda loader, node: number(loader.construct_scalar(node))


@functools.cache
def _classes() -> tuple[type, type]:
    # Made on first use: importing yaml takes 20 ms, and data workers do not need it.
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in scalars:
                if not key.tag.endswith(":merge"):
                    key.tag = "tag:yaml.org,2002:str"
            names = [key.value for key in scalars if not key.tag.endswith(":merge")]
            twice = next((key for key in scalars if names.count(key.value) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice.value!r} is given twice", twice.start_mark
                )
            return super().construct_mapping(node, deep)

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Loader.yaml_implicit_resolvers = {}
    for name, (pattern, first) in _PLAIN.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(pattern), first)
    for name, number in (("int", _whole), ("float", _real)):
        Loader.add_constructor(f"tag:yaml.org,2002:{name}", _constructor(number))
    # The dumper quotes texts that YAML 1.1 or this reader would take for something else.
    for name in ("float", "int"):
        pattern, first = _PLAIN[name]
        Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(pattern), first)
    return Loader, Dumper
