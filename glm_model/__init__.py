"""The GLM model as a library: layout, tokenizer, model, loss, generation. Imports neither ray nor mlflow.

Names resolve on first use, so that data workers can import `glm_model.layout` without paying for torch: a process takes
52 MiB instead of 244.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_model.classifier import Classifier
    from glm_model.config import SIZES, GLMConfig, sized
    from glm_model.decoding import Decoding
    from glm_model.generation.fill import fill, fill_batch
    from glm_model.generation.scoring import score, score_batch
    from glm_model.model import GLM, from_pretrained
    from glm_model.saved.pretrained import save_pretrained
    from glm_model.tokenizer import Tokenizer

_HOME = {
    "Classifier": "classifier",
    "Decoding": "decoding",
    "GLM": "model",
    "GLMConfig": "config",
    "SIZES": "config",
    "Tokenizer": "tokenizer",
    "fill": "generation.fill",
    "fill_batch": "generation.fill",
    "from_pretrained": "model",
    "save_pretrained": "saved.pretrained",
    "score": "generation.scoring",
    "score_batch": "generation.scoring",
    "sized": "config",
}
__all__ = [
    "GLM",
    "SIZES",
    "Classifier",
    "Decoding",
    "GLMConfig",
    "Tokenizer",
    "fill",
    "fill_batch",
    "from_pretrained",
    "save_pretrained",
    "score",
    "score_batch",
    "sized",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'glm_model' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_model.{_HOME[name]}"), name)
