"""The text tokenizer of a tokenizer.json: it knows no special token, so that raw text never becomes one."""

from __future__ import annotations

import json
import re
from typing import Any

import tokenizers

from glm_model.tokenizer.published import special_roles


def make_text_tokenizer(spec: dict[str, Any]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The text tokenizer, made so that no text becomes a control token, and its specification.

    With WordPiece and byte-level BPE, which cut at brackets, no text can. With a Unigram vocabulary that lists "[MASK]"
    it can: the pre-tokenizer gets one more cut, after the first character of every such name.
    """
    names = sorted({token["content"] for token in spec["added_tokens"]})
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


def _text_tokenizer(spec: dict[str, Any]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": []}, ensure_ascii=False))


def _reachable(text: tokenizers.Tokenizer, spec: dict[str, Any], names: list[str]) -> list[str]:
    roles = special_roles(spec)
    control = {token["id"] for token in spec["added_tokens"]} - {roles.get("unk")}
    probes = [
        (name, f"{before}{name}{after}") for name in names for before in ("", " ", "a") for after in ("", " ", "a")
    ]
    return sorted({n for n, probe in probes if control & set(text.encode(probe, add_special_tokens=False).ids)})
