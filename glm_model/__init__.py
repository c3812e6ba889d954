"""The GLM model as a library: layout, tokenizer, model, loss, generation. Imports neither ray nor mlflow.

Names resolve on first use, so that data workers can import `glm_model.layout` without paying for torch
(244 MiB against 52 per process).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_model.config import SIZES, GLMConfig, sized
    from glm_model.generate import fill
    from glm_model.model import GLM
    from glm_model.pretrained import from_pretrained, save_pretrained
    from glm_model.tokenizer import Tokenizer

_HOME = {
    "GLM": "model",
    "GLMConfig": "config",
    "SIZES": "config",
    "Tokenizer": "tokenizer",
    "fill": "generate",
    "from_pretrained": "pretrained",
    "save_pretrained": "pretrained",
    "sized": "config",
}
__all__ = ["GLM", "SIZES", "GLMConfig", "Tokenizer", "fill", "from_pretrained", "save_pretrained", "sized"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'glm_model' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_model.{_HOME[name]}"), name)
