"""Text to ids and back. Imports no torch."""

from glm_model.tokenizer.cuts import MayCut
from glm_model.tokenizer.published import CLS, EOP, GMASK, MASK, PROMPT_MASKS, SMASK, SOP
from glm_model.tokenizer.tokenizer import SpecialTokens, Tokenizer

__all__ = ["CLS", "EOP", "GMASK", "MASK", "PROMPT_MASKS", "SMASK", "SOP", "MayCut", "SpecialTokens", "Tokenizer"]
