"""Ids of texts by way of their words: each word is encoded once and then looked up.

BERT's pre-tokenizer ends a word at every space and sets every sign apart, its normalizer sets ideographs apart and
never looks across a space or an ASCII sign. So the ids of a text are those of its words one after the other:

    text     The cat, the hat
    words    |The| cat|,| the| hat|      each with the white space before it
    ids       1996 4937 1010 1996 6045

Running text repeats its words: 50 MB of English Wikipedia take a fifth of the library's time (tokenizers 0.23,
`benchmarks/prepare.py`). Arrow finds the distinct words of some MB of text, and only new ones meet the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from glm_model.tokenizer.published import text_tokens

_BATCH_CHARACTERS = 1 << 22  # that are looked up at a time: they take about 80 MB
_MAX_BYTES = 3 << 20  # in all remembered words: about 370,000 English ones, which take 45 MB
_WORDS_PER_TEXT = 512  # new words that the library gets in one text

LONGEST_WORD = 100  # characters that BERT's WordPiece reads; a longer word is unknown to it
WORD_PARTS = rf"[\s\S]{{1,{LONGEST_WORD}}}"  # what our own WordPiece cuts longer words into

EncodeBatch = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]

_OTHER, _SPACE, _SIGN = range(3)
_KINDS = bytes(
    _SPACE if chr(byte) in " \t\n\r" else _SIGN if 32 < byte < 127 and not chr(byte).isalnum() else _OTHER
    for byte in range(256)
)


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

    def __init__(self, encode_batch: EncodeBatch, *, ideographs_stand_alone: bool):
        self._encode = encode_batch
        self._ideographs = ideographs_stand_alone
        self._forget()

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(flat uint32 ids, int64 offsets [N+1]), equal to what the given encode_batch returns for the texts."""
        parts = [self._encode_some(some) for some in _batches(texts)]
        sizes = np.concatenate([np.empty(0, np.int64), *(size for _, size in parts)])
        flat = np.concatenate([np.empty(0, np.uint32), *(ids for ids, _ in parts)])
        return flat, np.concatenate(([0], np.cumsum(sizes)))

    def _encode_some(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Flat ids and the number of ids of each text."""
        import pyarrow as pa  # a model that is loaded to read and write a text or two does without

        encoded = [text.encode() for text in texts]
        data = b"".join(encoded)
        begins = np.concatenate(([0], np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))))
        starts = _word_starts(data, begins, self._ideographs)
        buffers = [None, pa.py_buffer(starts), pa.py_buffer(data)]
        words = pa.Array.from_buffers(pa.large_binary(), len(starts) - 1, buffers).dictionary_encode()
        places = self._places(words.dictionary.to_pylist())
        index = words.indices.to_numpy()
        sizes = np.diff(self._offsets)[places][index]
        ends = np.concatenate(([0], np.cumsum(sizes)))
        flat = self._ids[np.repeat(self._offsets[places][index] - ends[:-1], sizes) + np.arange(ends[-1])]
        if self._bytes > _MAX_BYTES:
            self._forget()
        return flat, np.diff(ends[np.searchsorted(starts, begins)])

    def _places(self, words: list[bytes]) -> np.ndarray:
        """Which of the remembered words each is, int64 [W]. Learns those that are new."""
        known = list(map(self._place.get, words))
        if None in known:
            new = [word for word, place in zip(words, known, strict=True) if place is None]
            self._learn(new)
            known = [self._place[word] if place is None else place for word, place in zip(words, known, strict=True)]
        return np.array(known, np.int64)

    def _learn(self, new: list[bytes]) -> None:
        """Encode words that have no place yet. A failure leaves all as it was."""
        plain, with_stop = ([word for word in new if (b"." in word) is has_stop] for has_stop in (False, True))
        known = [self._encode_joined(plain), self._encode([word.decode() for word in with_stop])]
        for words, (ids, offsets) in zip((plain, with_stop), known, strict=True):
            self._place.update(zip(words, range(len(self._place), len(self._place) + len(words)), strict=True))
            self._ids = np.concatenate((self._ids, ids))
            self._offsets = np.concatenate((self._offsets, self._offsets[-1] + offsets[1:]))
            self._bytes += sum(map(len, words))

    def _encode_joined(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of words without a full stop: of many in one text, a full stop behind each, for half the time."""
        groups = [words[i : i + _WORDS_PER_TEXT] for i in range(0, len(words), _WORDS_PER_TEXT)]
        ids, _ = self._encode([f"{b'.'.join(group).decode()}." for group in groups])
        stop, _ = self._encode(["."])
        is_stop = ids == stop[0] if len(stop) == 1 else np.zeros(len(ids), bool)
        if is_stop.sum() != len(words):  # something else has the same id: a vocabulary without a full stop
            return self._encode([word.decode() for word in words])
        ends = np.flatnonzero(is_stop) - np.arange(len(words))
        return ids[~is_stop], np.concatenate(([0], ends))

    def _forget(self) -> None:
        self._place: dict[bytes, int] = {}
        self._ids, self._offsets = np.empty(0, np.uint32), np.zeros(1, np.int64)
        self._bytes = 0


def word_cache_for(spec: dict[str, Any], encode_batch: EncodeBatch) -> WordCache | None:
    """The cache for a tokenizer.json; None where its words are not independent."""
    if not words_are_independent(spec):
        return None
    return WordCache(
        encode_batch, ideographs_stand_alone=bool((spec.get("normalizer") or {}).get("handle_chinese_chars"))
    )


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Runs of texts of about _BATCH_CHARACTERS together."""
    first = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield texts[first : i + 1]
            first, size = i + 1, 0
    if first < len(texts):
        yield texts[first:]


def _word_starts(data: bytes, begins: np.ndarray, ideographs: bool) -> np.ndarray:
    """Where words begin in texts, int64 [W+1] with the end of all. data: UTF-8; begins: of the texts, and the end.

    A word begins with each text, at white space, before a sign that has none before it, and behind a sign.
    """
    kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
    is_start = np.zeros(len(data) + 1, bool)
    is_space, is_sign = kinds == _SPACE, kinds == _SIGN
    is_start[1:-1] = is_space[1:] | is_sign[:-1] | (is_sign[1:] & ~is_space[:-1])
    if ideographs:
        octets = np.frombuffer(data, np.uint8)
        lead = np.flatnonzero((octets >= 0xE4) & (octets <= 0xE9))
        lead = lead[(octets[lead] > 0xE4) | (octets[lead + 1] >= 0xB8)]  # U+4E00 to U+9FFF, three bytes each
        is_start[lead] = is_start[lead + 3] = True
    is_start[begins] = True
    return np.flatnonzero(is_start)
