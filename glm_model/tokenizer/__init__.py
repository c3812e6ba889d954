"""Text to ids and back. Imports no torch."""

from glm_model.tokenizer.cuts import MayCut
from glm_model.tokenizer.published import CLS, EOP, GMASK, MASK, PROMPT_MASKS, SMASK, SOP
from glm_model.tokenizer.tokenizer import SpecialTokens, Tokenizer
from glm_model.tokenizer.word_cache import LONGEST_WORD, WORD_PARTS

__all__ = [
    "CLS",
    "EOP",
    "GMASK",
    "LONGEST_WORD",
    "MASK",
    "PROMPT_MASKS",
    "SMASK",
    "SOP",
    "WORD_PARTS",
    "MayCut",
    "SpecialTokens",
    "Tokenizer",
]
