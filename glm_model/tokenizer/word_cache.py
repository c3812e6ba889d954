"""Ids of texts by way of their words: each word is encoded once and then looked up.

BERT's pre-tokenizer ends a word at every space, and its normalizer never looks across one, so the ids of a text are
those of its words one after the other, in any script. Running text repeats its words: 50 MB of English Wikipedia take
0.7 of the library's time (tokenizers 0.23, `benchmarks/prepare.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import Any

import numpy as np

from glm_model.tokenizer.published import text_tokens

_TEXTS = 2048  # number of texts that are looked up at a time
_MAX_CHARACTERS = 1 << 21  # in all remembered words: about 250,000 English ones, which take 40 MB

LONGEST_WORD = 100  # characters that BERT's WordPiece reads; a longer word is unknown to it
WORD_PARTS = rf"[\s\S]{{1,{LONGEST_WORD}}}"  # what our own WordPiece cuts longer words into

EncodeBatch = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]


def words_are_independent(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer.json has the properties that `WordCache` needs."""
    pre = spec.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [])
    if [step.get("pattern") for step in steps[1:]] == [{"Regex": WORD_PARTS}]:
        pre = steps[0]  # then words are cut, which changes nothing between them
    kinds = [(spec.get("normalizer") or {}).get("type"), pre.get("type"), spec["model"]["type"]]
    is_bert = kinds in (["BertNormalizer", "BertPreTokenizer", "WordPiece"], [None, "BertPreTokenizer", "WordPiece"])
    # An added token may hold spaces, take those around it, or look at the characters beside it.
    return is_bert and not text_tokens(spec)


class WordCache:
    """encode_batch of texts by an encode_batch that sees each word once. Not for use by several threads at once."""

    def __init__(self, encode_batch: EncodeBatch):
        self._encode = encode_batch
        self._forget()

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(flat uint32 ids, int64 offsets [N+1]), equal to what the given encode_batch returns for the texts."""
        parts = [self._encode_some(texts[i : i + _TEXTS]) for i in range(0, len(texts), _TEXTS)]
        sizes = np.concatenate([np.empty(0, np.int64), *(size for _, size in parts)])
        flat = np.concatenate([np.empty(0, np.uint32), *(ids for ids, _ in parts)])
        return flat, np.concatenate(([0], np.cumsum(sizes)))

    def _encode_some(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Flat ids and the number of ids of each text."""
        words = [text.replace("\n", " ").split(" ") for text in texts]
        counts = np.fromiter(map(len, words), np.int64, len(words))
        places = np.fromiter(map(self._place.__getitem__, chain.from_iterable(words)), np.int64, int(counts.sum()))
        self._learn()
        sizes = np.diff(self._offsets)[places]
        ends = np.cumsum(sizes)
        source = np.repeat(self._offsets[places] - (ends - sizes), sizes) + np.arange(sizes.sum())
        flat = self._ids[source]
        if self._characters > _MAX_CHARACTERS:
            self._forget()
        return flat, np.diff(np.concatenate(([0], ends))[np.concatenate(([0], np.cumsum(counts)))])

    def _learn(self) -> None:
        """Encode the words that were given a place since the last call."""
        new = list(islice(self._place, len(self._offsets) - 1, None))
        if new:
            ids, offsets = self._encode(new)
            self._ids = np.concatenate((self._ids, ids))
            self._offsets = np.concatenate((self._offsets, self._offsets[-1] + offsets[1:]))
            self._characters += sum(map(len, new))

    def _forget(self) -> None:
        self._place = _Places()
        self._ids, self._offsets = np.empty(0, np.uint32), np.zeros(1, np.int64)
        self._characters = 0


class _Places(dict[str, int]):
    """Word -> its place in the order of first appearance."""

    def __missing__(self, word: str) -> int:
        place = self[word] = len(self)
        return place
