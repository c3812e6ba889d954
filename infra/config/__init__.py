"""Configuration: typed dataclasses, YAML recipes, dotted overrides."""

from infra.config.parse import (
    COMMAND_LINE,
    Count,
    config_digest,
    dataclass_from,
    flatten,
    from_yaml,
    parse,
    to_yaml,
)

__all__ = [
    "COMMAND_LINE",
    "Count",
    "config_digest",
    "dataclass_from",
    "flatten",
    "from_yaml",
    "parse",
    "to_yaml",
]
