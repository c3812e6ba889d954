"""The settings of stores that are read together. Light: a recipe is read without pyarrow."""

from dataclasses import dataclass


@dataclass
class Member:
    store: str
    """URL of a finished store."""
    weight: float = 1.0
    """Share of the training rows, before all weights are made to sum to 1."""
