"""Ids of texts by way of their words: each word is encoded once and then looked up.

BERT's pre-tokenizer ends a word at every space and sets every sign apart, its normalizer sets ideographs apart and
never looks across a space or an ASCII sign. So the ids of a text are those of its words one after the other:

    text     The cat, the hat
    words    |the|cat|,|the|hat|         in lower case where the normalizer makes it so
    ids       1996 4937 1010 1996 6045

Running text repeats its words: 50 MB of English Wikipedia take an eighth of the library's time (tokenizers 0.23,
`benchmarks/prepare.py`). Arrow finds the distinct words of some MB of text, and only new ones meet the library. Those
in ASCII need no normalizer, and go many in one text to a tokenizer that only splits at spaces.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from glm_model.tokenizer.published import text_tokens
from glm_model.tokenizer.text_tokenizer import encode_batch

_BATCH_CHARACTERS = 9 << 20  # that are looked up at a time: arrays of them bound the memory of a task
_MAX_BYTES = 3 << 20  # in all remembered words: about 370,000 English ones, which take 45 MB
_WORDS_PER_TEXT = 512  # new words that the library gets in one text
_MANY_WORDS = 2_000  # new at a time, which pay for the tokenizer of plain words: some MB of text have more

LONGEST_WORD = 100  # characters that BERT's WordPiece reads; a longer word is unknown to it
WORD_PARTS = rf"[\s\S]{{1,{LONGEST_WORD}}}"  # what our own WordPiece cuts longer words into

EncodeBatch = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]

_SPACES = b" \t\n\r"
_OTHER, _SPACE, _SIGN = range(3)
_KINDS = bytes(
    _SPACE if byte in _SPACES else _SIGN if 32 < byte < 127 and not chr(byte).isalnum() else _OTHER
    for byte in range(256)
)


class PlainWords(NamedTuple):
    """How words of printable ASCII are encoded."""

    encode_batch: EncodeBatch
    """Takes texts of such words, with spaces between them."""
    begins_word: np.ndarray
    """bool, by id: whether a word may begin with that token. The other ones stand inside words alone."""


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

    def __init__(
        self,
        encode_batch: EncodeBatch,
        *,
        ideographs_stand_alone: bool,
        lowercase: bool = False,
        make_plain: Callable[[], PlainWords | None] = lambda: None,
    ):
        """lowercase: the ids do not depend on the case of ASCII letters. make_plain: how words of ASCII are encoded."""
        self._encode, self._make_plain = encode_batch, make_plain
        self._ideographs, self._lowercase = ideographs_stand_alone, lowercase
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

        encoded = list(map(str.encode, texts))
        data = b"".join(encoded)
        begins = np.concatenate(([0], np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))))
        data, starts, begins = _words(data.lower() if self._lowercase else data, begins, self._ideographs)
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
        places = np.fromiter(map(self._place.get, words, itertools.repeat(-1)), np.int64, len(words))
        new = np.flatnonzero(places < 0)
        if len(new):
            unknown = [words[i] for i in new.tolist()]
            self._learn(unknown)
            places[new] = np.fromiter(map(self._place.__getitem__, unknown), np.int64, len(new))
        return places

    def _learn(self, new: list[bytes]) -> None:
        """Encode words that have no place yet. A failure leaves all as it was."""
        plain = [word for word in new if word.isascii() and len(word) <= LONGEST_WORD]
        others = [word for word in new if not word.isascii() or len(word) > LONGEST_WORD]
        known = [self._encode_plain(plain), self._encode_joined(others)]
        for words, (ids, offsets) in zip((plain, others), known, strict=True):
            self._place.update(zip(words, range(len(self._place), len(self._place) + len(words)), strict=True))
            self._ids = np.concatenate((self._ids, ids))
            self._offsets = np.concatenate((self._offsets, self._offsets[-1] + offsets[1:]))
            self._bytes += sum(map(len, words))

    def _encode_plain(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of words of ASCII: of many in one text. A token that begins a word tells where the next one is."""
        texts = [b" ".join(group).decode() for group in _groups(words)]
        plain = self._plain if len(words) >= _MANY_WORDS and all(text.isprintable() for text in texts) else None
        if plain is None:
            return self._encode_joined(words)
        ids, _ = plain.encode_batch(texts)
        begins = np.flatnonzero(plain.begins_word[ids])
        if len(begins) != len(words):  # a vocabulary with words that look like parts of words
            return self._encode_joined(words)
        return ids, np.append(begins, len(ids))

    def _encode_joined(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of any words: of many in one text, a full stop behind each, for half the time."""
        ids, _ = self._encode([f"{b'.'.join(group).decode()}." for group in _groups(words)])
        stop, _ = self._encode(["."])
        is_stop = ids == stop[0] if len(stop) == 1 else np.zeros(len(ids), bool)
        if is_stop.sum() != len(words):  # something else has the same id: the full stop itself, or what is unknown
            return self._encode([word.decode() for word in words])
        ends = np.flatnonzero(is_stop) - np.arange(len(words))
        return ids[~is_stop], np.concatenate(([0], ends))

    @functools.cached_property
    def _plain(self) -> PlainWords | None:
        return self._make_plain()

    def _forget(self) -> None:
        self._place: dict[bytes, int] = {}
        self._ids, self._offsets = np.empty(0, np.uint32), np.zeros(1, np.int64)
        self._bytes = 0


def word_cache_for(spec: dict[str, Any], encode_batch: EncodeBatch) -> WordCache | None:
    """The cache for a tokenizer.json, which encode_batch is of; None where its words are not independent."""
    if not words_are_independent(spec):
        return None
    normalizer = spec.get("normalizer") or {}
    return WordCache(
        encode_batch,
        ideographs_stand_alone=bool(normalizer.get("handle_chinese_chars")),
        lowercase=bool(normalizer.get("lowercase")),
        make_plain=lambda: _plain_words(spec),
    )


def _plain_words(spec: dict[str, Any]) -> PlainWords | None:
    """None where a token does not show whether it begins a word."""
    settings = {name: value for name, value in spec["model"].items() if name != "type"}
    inside, vocabulary = settings.get("continuing_subword_prefix", "##"), settings["vocab"]
    if not inside:
        return None
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(**settings))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    begins_word = np.ones(max(vocabulary.values()) + 1, bool)
    begins_word[[id_ for token, id_ in vocabulary.items() if token.startswith(inside)]] = False
    return PlainWords(functools.partial(encode_batch, library), begins_word)


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Runs of texts of about _BATCH_CHARACTERS together."""
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // _BATCH_CHARACTERS)) + 1
    for first, last in itertools.pairwise([0, *edges.tolist(), len(texts)]):
        yield texts[first:last]


def _groups(words: list[bytes]) -> Iterator[list[bytes]]:
    return (words[i : i + _WORDS_PER_TEXT] for i in range(0, len(words), _WORDS_PER_TEXT))


def _words(data: bytes, begins: np.ndarray, ideographs: bool) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The words of texts: their bytes without white space, where each begins, int64 [W+1], and where the texts begin
    there, int64 [N+1], both with the end. data: UTF-8; begins: of the texts in it, and the end.

    A word begins with each text, behind white space, and on both sides of a sign.
    """
    kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
    is_start = np.zeros(len(data) + 1, bool)
    is_space, is_sign = kinds == _SPACE, kinds == _SIGN
    is_start[1:-1] = is_space[:-1] | is_sign[:-1] | is_sign[1:]
    if ideographs:
        octets = np.frombuffer(data, np.uint8)
        lead = np.flatnonzero((octets >= 0xE4) & (octets <= 0xE9))
        lead = lead[(octets[lead] > 0xE4) | (octets[lead + 1] >= 0xB8)]  # U+4E00 to U+9FFF, three bytes each
        is_start[lead] = is_start[lead + 3] = True
    is_start[begins] = True
    starts = np.flatnonzero(is_start[:-1][~is_space])
    data = data.translate(None, _SPACES)
    return data, np.append(starts, len(data)), begins - np.searchsorted(np.flatnonzero(is_space), begins)
