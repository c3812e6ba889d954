"""The word cache is invisible: its ids are the library's, whatever the text, whatever was seen before."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_model.tokenizer import Tokenizer, word_cache
from glm_model.tokenizer.word_cache import WordCache, words_are_independent

VOCAB = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "vocab"
# Everything that a boundary could depend on: kinds of space, deleted controls, marks that join or are stripped,
# final sigma, capital dotted i, CJK, punctuation, a lone joiner.
ALPHABET = "aAbΣσİé\u0301ß 中文。.,'-_ \t\n\r\x0b\x1c\x85\xa0\u2003\u3000\u200b\u200d\ufeff\x00"


def bert_like(**normalizer) -> Tokenizer:
    """Every character of the alphabet a token, alone and as continuation, and a few words."""
    letters = sorted({c for c in "abσiéeß中文。.,'-_s" + "\u0301\u0307"})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", *letters, *(f"##{c}" for c in letters), "aa", "##ab"]
    settings = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    spec = {
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 8,
            "vocab": {token: i for i, token in enumerate(tokens)},
        },
        "normalizer": {"type": "BertNormalizer", **settings, **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "added_tokens": [{"id": i, "content": tokens[i]} for i in range(4)],
    }
    return Tokenizer(json.dumps(spec))


TOKENIZERS = {
    "uncased": bert_like(),
    "cased": bert_like(lowercase=False, strip_accents=False),
    "as it is": bert_like(clean_text=False, handle_chinese_chars=False, lowercase=False),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(texts=st.lists(st.text(ALPHABET, max_size=40), max_size=8))
def test_ids_are_the_library_s(kind, texts):
    tokenizer = TOKENIZERS[kind]
    assert tokenizer._word_cache is not None
    ids, offsets = tokenizer.encode_batch(texts)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == [tokenizer.encode(text).tolist() for text in texts]


def test_each_word_is_encoded_once_until_all_are_forgotten(monkeypatch):
    seen: list[list[str]] = []

    def encode(words: list[str]):
        seen.append(words)
        return np.array([len(w) for w in words], np.uint32), np.arange(len(words) + 1)

    monkeypatch.setattr(word_cache, "_MAX_CHARACTERS", 8)
    cache = WordCache(encode)
    outcomes = [cache.encode_batch([text]) for text in ("to be\nor", "not to be", "to be")]
    assert [(ids.tolist(), offsets.tolist()) for ids, offsets in outcomes] == [
        ([2, 2, 2], [0, 3]),
        ([3, 2, 2], [0, 3]),
        ([2, 2], [0, 2]),
    ]
    assert seen == [["to", "be", "or"], ["not"], ["to", "be"]]


def test_a_failed_batch_is_not_remembered():
    calls = []

    def encode(words: list[str]):
        calls.append(words)
        if len(calls) == 1:
            raise MemoryError
        return np.array([7] * len(words), np.uint32), np.arange(len(words) + 1)

    cache = WordCache(encode)
    with pytest.raises(MemoryError):
        cache.encode_batch(["a b"])
    assert cache.encode_batch(["b c"])[0].tolist() == [7, 7]
    assert calls == [["a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(("name", "independent"), [("bert-base-uncased-vocab.txt", True), ("gpt2-vocab.json", False)])
def test_only_bert_s_pre_tokenizer_ends_words_at_spaces(name, independent):
    if not VOCAB.exists():
        pytest.skip("shared/data/vocab is not there")
    assert words_are_independent(json.loads(Tokenizer.load(str(VOCAB / name)).to_json())) is independent
