"""A config as plain values, which other programs read: YAML and flat keys."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from infra.config import yaml_text
from infra.config.tree import dotted


def plain(value: Any) -> Any:
    """Dataclasses, tuples and `Count` as the dicts, lists and numbers of YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def to_yaml(config: Any) -> str:
    """YAML that `from_yaml`, or `--config`, reads back to an equal config."""
    return yaml_text.dump(plain(config))


def flatten(config: Any) -> dict[str, str]:
    """Dotted key -> text, lists of mappings by index: `{"data.sources.0.reader": "text", "optim.steps": "5"}`."""
    leaves = _leaves(plain(config), "")
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in leaves}


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
        yield from _leaves(item, dotted(key, name))
