"""Configuration: typed dataclasses, YAML recipes, dotted overrides."""

from infra.config.count import Count
from infra.config.parse import COMMAND_LINE, Parsed, dataclass_from, from_yaml, parse
from infra.config.plain import config_digest, flatten, to_yaml

__all__ = [
    "COMMAND_LINE",
    "Count",
    "Parsed",
    "config_digest",
    "dataclass_from",
    "flatten",
    "from_yaml",
    "parse",
    "to_yaml",
]
