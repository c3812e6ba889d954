"""One attention over packed rows, four backends."""

from glm_model.attention.backends import AttentionMask, attention, check_backend
from glm_model.attention.choice import Use, make_mask, row_width
from glm_model.attention.trial import compare_with_dense, runs_with_dropout

__all__ = [
    "AttentionMask",
    "Use",
    "attention",
    "check_backend",
    "compare_with_dense",
    "make_mask",
    "row_width",
    "runs_with_dropout",
]
