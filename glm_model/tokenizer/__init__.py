"""Text to ids and back. Imports no torch."""

from glm_model.tokenizer.tokenizer import (
    SpecialTokens,
    Tokenizer,
)

__all__ = [
    "SpecialTokens",
    "Tokenizer",
]
