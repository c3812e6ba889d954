"""The text tokenizer of a tokenizer.json: it takes no control token for one, so that raw text never becomes one.

Added tokens that stand for text (`special: false`) are found in it as their authors' tokenizer finds them.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import numpy as np
import tokenizers

from glm_model.tokenizer.published import is_text, special_roles, text_tokens


def make_text_tokenizer(spec: dict[str, Any]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The text tokenizer, made so that no text becomes a control token, and its specification.

    With WordPiece and byte-level BPE, which cut at brackets, no text can. With a Unigram vocabulary that lists "[MASK]"
    it can: the pre-tokenizer gets one more cut, after the first character of every such name.
    """
    names = sorted({token["content"] for token in spec["added_tokens"] if not is_text(token)})
    text = _text_tokenizer(spec)
    if not _reachable(text, spec, names):
        return text, spec
    heads = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
    cut = {"type": "Split", "pattern": {"Regex": heads}, "behavior": "Isolated", "invert": False}
    steps = [step for step in (spec["pre_tokenizer"], cut) if step]
    spec = {**spec, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    text = _text_tokenizer(spec)
    reached = _reachable(text, spec, names)
    if reached:
        raise ValueError(
            f"this tokenizer turns plain text into control tokens ({', '.join(reached)}): its vocabulary lists them as "
            "ordinary tokens. Use a tokenizer.json whose special tokens are added tokens, or train a new tokenizer."
        )
    return text, spec


def encode_batch(text: tokenizers.Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(flat uint32 ids, int64 offsets [N+1]) of the texts."""
    parts = [e.ids for e in text.encode_batch_fast(texts, add_special_tokens=False)]
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(p) for p in parts], out=offsets[1:])
    return np.fromiter(chain.from_iterable(parts), dtype=np.uint32, count=int(offsets[-1])), offsets


def _text_tokenizer(spec: dict[str, Any]) -> tokenizers.Tokenizer:
    """Control tokens are left out, or where there are others, which get their ids in order, switched off."""
    of_text = text_tokens(spec)
    added = spec["added_tokens"] if of_text else []
    text = tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": added}, ensure_ascii=False))
    text.encode_special_tokens = True  # as text; the library does not save it
    if moved := [token["content"] for token in of_text if text.token_to_id(token["content"]) != token["id"]]:
        raise ValueError(
            f"the tokenizers library gives the added token {moved[0]!r} another id than the file: the ids of its added "
            "tokens must follow those of the vocabulary without a gap. Give the tokenizer.json of its authors"
        )
    return text


def _reachable(text: tokenizers.Tokenizer, spec: dict[str, Any], names: list[str]) -> list[str]:
    roles = special_roles(spec)
    control = {token["id"] for token in spec["added_tokens"] if not is_text(token)} - {roles.get("unk")}
    probes = [
        (name, f"{before}{name}{after}") for name in names for before in ("", " ", "a") for after in ("", " ", "a")
    ]
    return sorted({n for n, probe in probes if control & set(text.encode(probe, add_special_tokens=False).ids)})
