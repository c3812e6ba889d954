"""The tokenizer_config.json of a model folder: which token has which role, for readers that do not know GLM's.

transformers' AutoTokenizer reads it beside tokenizer.json; our own `Tokenizer.load` does not need it.
"""

from __future__ import annotations

import json
from typing import Any

from glm_model.tokenizer import Tokenizer

_ROLES = {"pad_token": "pad", "eos_token": "eos", "cls_token": "cls", "mask_token": "mask", "unk_token": "unk"}


def tokenizer_config(tokenizer: Tokenizer, *, positions: int) -> dict[str, Any]:
    """The JSON object, in the form of transformers' `save_pretrained`. positions: the longest text of the model."""
    spec = json.loads(tokenizer.to_json())
    added = {token.pop("id"): token for token in spec["added_tokens"]}
    ids = {name: getattr(tokenizer.special, role) for name, role in _ROLES.items()}
    others = [getattr(tokenizer.special, role) for role in ("sop", "eop", "gmask", "smask")]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": spec["model"]["type"] == "WordPiece",
        **{name: added[id_]["content"] for name, id_ in ids.items() if id_ in added},
        "additional_special_tokens": [added[id_]["content"] for id_ in others if id_ in added],
        "added_tokens_decoder": {str(id_): token for id_, token in added.items()},
    }
