"""YAML as people mean it: `1e-4` is a number, and a key given twice is an error. What is dumped is read back equal."""

from __future__ import annotations

import functools
import re
from typing import Any

# Numbers, true, false and null are as in JSON, plus 1_000 and .inf; everything else is text. YAML 1.1 would also read
# `no` as False, 2026-11-23 as a date, 1:30 as 90, and 1e-4 as text.
_PLAIN = {
    "null": (r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"^[-+]?(0|[1-9][0-9_]*)$", list("-+0123456789")),
    "float": (
        r"^([-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+([eE][-+]?[0-9]+)?"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    "merge": (r"^<<$", ["<"]),
}


def load(text: str) -> Any:
    """Raises yaml.YAMLError."""
    import yaml

    return yaml.load(text, Loader=_classes()[0])


def dump(value: Any) -> str:
    import yaml

    return yaml.dump(value, Dumper=_classes()[1], sort_keys=False, allow_unicode=True, width=120)


@functools.cache
def _classes() -> tuple[type, type]:
    # Made on first use: importing yaml takes 20 ms, and data workers do not need it.
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            twice = next((key for key, _ in node.value if names.count(key.value) > 1), None)
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
    # The dumper quotes texts that YAML 1.1 or this reader would take for something else.
    for name in ("float", "int"):
        pattern, first = _PLAIN[name]
        Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(pattern), first)
    return Loader, Dumper
