"""The bytes of text that a tokenizer has no token for: those behind its unknown token, and characters that it drops.

They cost a model one cheap token, or none, and it can neither read nor write them. So they are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import tokenizers

from glm_model.tokenizer.spelling import byte_alphabet, mentions

_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
_MAX_WORDS = 1 << 17  # that are remembered: about 20 MB


class UnknownBytes:
    """Counts the bytes of texts behind the unknown token, or those that are dropped. For use by one thread."""

    def __init__(self, text: tokenizers.Tokenizer, spec: dict[str, Any], *, by_words: bool):
        """by_words: whether the tokenizer reads each word by itself, words being what stands between spaces."""
        self._text, self._by_words = text, by_words
        self._words: dict[str, int] = {}
        self._characters: dict[str, int] = {}
        self._normalizer = None if _is_byte_level(spec) else text.normalizer
        self._id = unknown_id(spec)
        self._dropped = _dropped_bytes(spec) if self._id is None and drops_characters(spec) else None

    def count(self, texts: list[str], ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Bytes of each text in UTF-8, int64 [N]. ids [T], offsets [N+1]: what the texts were encoded to."""
        if self._dropped:
            return np.array([self._of_characters(text, self._dropped) for text in texts], np.int64)
        found = np.zeros(len(texts), np.int64)
        if self._id is not None:
            places = np.searchsorted(offsets, np.flatnonzero(ids == self._id), side="right") - 1
            for index in np.unique(places).tolist():
                found[index] = self._of_words(texts[index]) if self._by_words else self._again(texts[index])
        return found

    def _of_words(self, text: str) -> int:
        """A word is looked at once: what is unknown in running text are the same few words again and again."""
        total, known = 0, self._words
        for word in text.replace("\n", " ").split(" "):
            num_bytes = known.get(word)
            if num_bytes is None:
                if len(known) >= _MAX_WORDS:
                    known.clear()
                num_bytes = known[word] = self._again(word)
            total += num_bytes
        return total

    def count_one(self, text: str, ids: np.ndarray, spans: np.ndarray) -> int:
        """Bytes of a text in UTF-8. spans [T, 2]: the characters of each token, first and one past the last."""
        if self._dropped:
            return self._of_characters(text, self._dropped)
        total = done = 0
        for start, end in spans[ids == self._id].tolist() if self._id is not None else ():
            total += len(text[max(start, done) : end].encode())  # several tokens may stand for one character
            done = max(done, end)
        return total

    def _again(self, text: str) -> int:
        encoding = self._text.encode(text, add_special_tokens=False)
        return self.count_one(text, np.asarray(encoding.ids), np.asarray(encoding.offsets).reshape(-1, 2))

    def _of_characters(self, text: str, dropped: Callable[[str], int]) -> int:
        """By the vocabulary: behind a dropped character the library's offsets are wrong up to the end of the word."""
        total, known = 0, self._characters
        for character, times in Counter(text).items():
            if character not in known:
                normal = self._normalizer.normalize_str(character) if self._normalizer else character
                known[character] = min(sum(map(dropped, normal)), len(character.encode()))
            total += times * known[character]
        return total


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
    if _is_byte_level(spec):
        return not model["vocab"].keys() >= byte_alphabet().keys()
    return not (model.get("byte_fallback") and model["vocab"].keys() >= set(_BYTE_TOKENS))


def _dropped_bytes(spec: dict[str, Any]) -> Callable[[str], int]:
    """What says how many bytes of a normalised character a BPE model without an unknown token drops."""
    model, vocab = spec["model"], spec["model"]["vocab"]
    if _is_byte_level(spec):
        lacking = {byte for sign, byte in byte_alphabet().items() if sign not in vocab}
        return lambda character: sum(byte in lacking for byte in character.encode())
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""

    def dropped(character: str) -> int:
        forms = (character, f"{prefix}{character}", f"{character}{suffix}", f"{prefix}{character}{suffix}")
        if character.isspace() or any(form in vocab for form in forms):
            return 0
        data = character.encode()
        has_bytes = model.get("byte_fallback") and all(_BYTE_TOKENS[byte] in vocab for byte in data)
        return 0 if has_bytes else len(data)

    return dropped


def _is_byte_level(spec: dict[str, Any]) -> bool:
    return mentions(spec, "ByteLevel", ("normalizer", "pre_tokenizer"))
