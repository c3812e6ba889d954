"""Configuration: typed dataclasses, YAML recipes, dotted overrides."""

from infra.config.count import Count
from infra.config.parse import COMMAND_LINE, Parsed, dataclass_from, from_yaml, mapping_from_yaml, parse, with_settings
from infra.config.plain import flatten, plain, to_yaml

__all__ = [
    "COMMAND_LINE",
    "Count",
    "Parsed",
    "dataclass_from",
    "flatten",
    "from_yaml",
    "mapping_from_yaml",
    "parse",
    "plain",
    "to_yaml",
    "with_settings",
]
