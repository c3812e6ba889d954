"""The options of generation, checked. Imports no torch, so that a bad option is reported at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real


@dataclass(frozen=True)
class Decoding:
    """How blanks are written. By default, with temperature 0 and one beam, with the most probable token each time.

    Raises ValueError on values out of range, and on options that contradict each other.
    """

    max_tokens: int = 64
    """Maximum number of tokens per blank, without its end token. A blank that reaches it is cut."""
    min_tokens: int = 1
    """Minimum number of tokens per blank. Every blank of the training data has at least one, but a model early in
    training ends some at once, since [eop] is its most frequent target.
    """
    temperature: float = 0.0
    """Above 0, each token is drawn from softmax(logits / temperature); from 1e-6 to 1e6."""
    top_k: int = 0
    """Draw only among the k most probable tokens; 0 draws among all."""
    top_p: float = 1.0
    """Draw only among the most probable tokens that together reach this probability (after top_k)."""
    samples: int = 1
    """Number of versions of each text, drawn independently."""
    beams: int = 1
    """Above 1, each blank in turn is written by beam search; its best beam is kept, and the next blank sees it."""
    length_penalty: float = 1.0
    """Beams are ranked by logprob / targets ** length_penalty, [eop] being a target too; 0 ranks by logprob alone."""
    no_repeat_ngram: int = 0
    """No n tokens in a row occur twice in a blank; 0 allows it. The rule does not apply where it leaves no token."""
    seed: int = 0
    """Random seed. What is drawn for a text depends on it, the text and the sample's number, not on other texts."""

    def __post_init__(self) -> None:
        for field in fields(Decoding):  # a subclass may have others
            value, kind = getattr(self, field.name), Integral if field.type == "int" else Real
            if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
                what = "a whole number" if field.type == "int" else "a finite number"
                raise ValueError(f"{field.name}={value!r} must be {what}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} leaves nothing to write: use at least 1")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} must lie between 0 and max_tokens={self.max_tokens}. Raise max_tokens"
            )
        if self.temperature and not 1e-6 <= self.temperature <= 1e6:  # beyond, float32 overflows
            raise ValueError(
                f"temperature={self.temperature} must be 0, for the most probable token each time, or lie between 1e-6 "
                "and 1e6. Try 0.9"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1")
        for name, least in (("top_k", 0), ("samples", 1), ("beams", 1), ("length_penalty", 0), ("no_repeat_ngram", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        self._check_together()

    def _check_together(self) -> None:
        draws = [f"{name}={getattr(self, name)}" for name in ("top_k", "top_p") if getattr(self, name) not in (0, 1.0)]
        draws += [f"samples={self.samples}"] if self.samples > 1 else []
        if self.beams > 1 and (self.temperature or draws):
            given = ", ".join([*([f"temperature={self.temperature}"] if self.temperature else []), *draws])
            raise ValueError(
                f"beams={self.beams} and {given} contradict each other: beam search draws nothing. Leave one of them "
                "out"
            )
        if draws and not self.temperature:
            raise ValueError(
                f"{', '.join(draws)} needs random draws, and temperature=0 always takes the most probable token. Set a "
                "temperature, 0.9 for example"
            )
        if self.length_penalty != 1 and self.beams == 1:
            raise ValueError(
                f"length_penalty={self.length_penalty} ranks beams, and beams=1 leaves nothing to rank. Set beams, for "
                "example to 4"
            )
