"""How tokens are spelled: the characters of byte-level vocabularies, and the spaces between the words of WordPiece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f"
_TIDY = (
    (re.compile(r" ([.,;:!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r"(\w) ' (s|t|re|ve|m|ll|d)\b"), r"\1'\2"),
    (re.compile(rf"(?<=[{_CJK}]) (?=[{_CJK}])"), ""),
)


def tidy(text: str) -> str:
    """Undo the spaces that WordPiece puts around punctuation and between CJK characters: a guess at the original."""
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text


def byte_alphabet() -> dict[str, int]:
    """The bytes for which byte-level BPE's characters stand: printable Latin-1 for itself, others from U+0100 on."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    others: Iterator[tuple[int, int]] = enumerate(b for b in range(256) if b not in set(printable))
    return {chr(b): b for b in printable} | {chr(256 + place): b for place, b in others}


def mentions(spec: dict[str, Any], kind: str, parts: tuple[str, ...] = ("pre_tokenizer", "decoder")) -> bool:
    """Whether these parts of a tokenizer.json have a step of a kind."""
    return any(f'"type": "{kind}"' in json.dumps(spec[name]) for name in parts)
