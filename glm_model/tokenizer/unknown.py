"""The bytes of text that a tokenizer has no token for: those behind its unknown token, and characters that it drops.

They cost a model one cheap token, or none, and it can neither read nor write them. So they are counted.
"""

from __future__ import annotations

from itertools import compress
from typing import Any

import numpy as np
import tokenizers

from glm_model.tokenizer.spelling import byte_alphabet, mentions

_MAX_WORDS = 1 << 17  # that are remembered: about 20 MB


class UnknownBytes:
    """Counts the bytes of texts behind the unknown token, or those that are dropped. For use by one thread."""

    def __init__(self, text: tokenizers.Tokenizer, spec: dict[str, Any], *, by_words: bool):
        """by_words: whether the tokenizer reads each word by itself, words being what stands between spaces."""
        self._text, self._by_words = text, by_words
        self._words: dict[str, int] = {}
        self.id = unknown_id(spec)
        self._drops = self.id is None and drops_characters(spec)

    def count(self, texts: list[str], ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Bytes of each text in UTF-8, int64 [N]. ids [T], offsets [N+1]: what the texts were encoded to."""
        found = np.zeros(len(texts), np.int64)
        if self._drops:
            return np.array([self._bytes(text) for text in texts], np.int64)
        if self.id is not None:
            places = np.searchsorted(offsets, np.flatnonzero(ids == self.id), side="right") - 1
            for index in np.unique(places).tolist():
                found[index] = self._of_words(texts[index]) if self._by_words else self._bytes(texts[index])
        return found

    def _of_words(self, text: str) -> int:
        """A word is looked at once: what is unknown in running text are the same few words again and again."""
        total, known = 0, self._words
        for word in text.replace("\n", " ").split(" "):
            num_bytes = known.get(word)
            if num_bytes is None:
                if len(known) >= _MAX_WORDS:
                    known.clear()
                num_bytes = known[word] = self._bytes(word)
            total += num_bytes
        return total

    def _bytes(self, text: str) -> int:
        encoding = self._text.encode(text, add_special_tokens=False)
        covered = np.zeros(len(text) + 1, np.int8)
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if self._drops or id_ == self.id:
                covered[start:end] = 1
        covered = covered[:-1] == 1
        if not self._drops:
            return len("".join(compress(text, covered)).encode())
        return len("".join(c for c in compress(text, ~covered) if not c.isspace()).encode())


def unknown_id(spec: dict[str, Any]) -> int | None:
    """The id that the model of a tokenizer.json gives to what it does not know. It need not be a special token."""
    model = spec["model"]
    if model["type"] == "Unigram":
        return model.get("unk_id")
    return model["vocab"].get(model.get("unk_token"))


def drops_characters(spec: dict[str, Any]) -> bool:
    """Whether a model without an unknown token leaves out the characters that it does not know, as BPE does."""
    model = spec["model"]
    if model["type"] != "BPE":
        return False
    if mentions(spec, "ByteLevel", ("normalizer", "pre_tokenizer")):
        needed = list(byte_alphabet())
    else:
        needed = [f"<0x{byte:02X}>" for byte in range(256)] if model.get("byte_fallback") else []
    return not needed or any(token not in model["vocab"] for token in needed)
