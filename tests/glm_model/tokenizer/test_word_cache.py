"""The word cache is invisible: its ids are the library's, whatever the text, whatever was seen before."""

import json
import re
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
ALPHABET = "aAbΣσİé\u0301ß 中文䷀。.,;'-_ \t\n\r\x0b\x1c\x85\xa0\u2003\u3000\u200b\u200d\ufeff\x00"


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


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(texts=st.lists(st.text(ALPHABET, max_size=40), max_size=8))
def test_ids_are_the_library_s(kind, many, texts):
    """many: new words that go to the tokenizer of plain words; 1000: none do."""
    tokenizer = TOKENIZERS[kind]
    assert tokenizer._word_cache is not None
    tokenizer._word_cache._forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_cache, "_MANY_WORDS", many)
        ids, offsets = tokenizer.encode_batch(texts)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == [tokenizer.encode(text).tolist() for text in texts]


def test_words_that_look_like_parts_of_words_are_not_cut_at(monkeypatch):
    """With a prefix that words begin with, too, no token tells where a word begins."""
    spec = json.loads(bert_like().to_json())
    spec["model"]["continuing_subword_prefix"] = "a"
    spec["model"]["vocab"]["ab"] = len(spec["model"]["vocab"])
    tokenizer = Tokenizer(json.dumps(spec))
    monkeypatch.setattr(word_cache, "_MANY_WORDS", 1)
    for text in ("ab b a", "b bb abb"):
        assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text).tolist()


def by_length(calls: list[list[str]]):
    """An encode_batch that gives a word its length, and a full stop 0."""

    def encode(texts: list[str]):
        calls.append(texts)
        words = [[word.strip() for word in re.split(r"(\.)", text) if word] for text in texts]
        ids = [0 if word == "." else len(word) for own in words for word in own]
        return np.array(ids, np.uint32), np.cumsum([0, *map(len, words)])

    return encode


def test_each_word_is_encoded_once_until_all_are_forgotten(monkeypatch):
    calls: list[list[str]] = []
    monkeypatch.setattr(word_cache, "_MAX_BYTES", 8)
    cache = WordCache(by_length(calls), ideographs_stand_alone=False)
    outcomes = [cache.encode_batch([text]) for text in ("to be\nor", "to be not", "to be.")]
    assert [(ids.tolist(), offsets.tolist()) for ids, offsets in outcomes] == [
        ([2, 2, 2], [0, 3]),
        ([2, 2, 3], [0, 3]),
        ([2, 2, 0], [0, 3]),
    ]
    words = [call for call in calls if call not in ([], ["."])]
    assert words == [["to.be.or."], ["not."], ["to.be..."], ["to", "be", "."]]


def test_a_failed_batch_is_not_remembered():
    calls: list[list[str]] = []
    encode = by_length(calls)

    def encode_later(texts: list[str]):
        if not calls:
            calls.append(texts)
            raise MemoryError
        return encode(texts)

    cache = WordCache(encode_later, ideographs_stand_alone=False)
    with pytest.raises(MemoryError):
        cache.encode_batch(["a bb"])
    assert cache.encode_batch(["a bb"])[0].tolist() == [1, 2]


def test_a_vocabulary_without_a_full_stop_gets_its_words_one_by_one():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "a", "b"]
    spec = json.loads(bert_like().to_json())
    spec["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    spec["added_tokens"] = [{"id": i, "content": tokens[i]} for i in range(4)]
    tokenizer = Tokenizer(json.dumps(spec))
    ids, offsets = tokenizer.encode_batch(["a. x b.", "c"])
    assert (ids.tolist(), offsets.tolist()) == ([4, 1, 1, 5, 1, 1], [0, 5, 6])


def test_signs_and_ideographs_are_words_to_the_library_too():
    """The whole range that a word is begun at: U+4E00 to U+9FFF, and every sign of ASCII."""
    text = TOKENIZERS["cased"]._text
    signs = [chr(code) for code in range(33, 127) if not chr(code).isalnum()]
    for character in (*signs, *map(chr, range(0x4E00, 0xA000))):
        parts = text.pre_tokenizer.pre_tokenize_str(text.normalizer.normalize_str(f"a{character}b"))
        assert [part for part, _ in parts] == ["a", character, "b"]


def test_long_texts_are_looked_up_in_batches(monkeypatch):
    monkeypatch.setattr(word_cache, "_BATCH_CHARACTERS", 5)
    ids, offsets = TOKENIZERS["uncased"].encode_batch(["a b", "", "aa b", "b"])
    one = TOKENIZERS["uncased"].encode
    assert (ids.tolist(), offsets.tolist()) == (one("a b aa b b").tolist(), [0, 2, 2, 4, 5])


@pytest.mark.parametrize(("name", "independent"), [("bert-base-uncased-vocab.txt", True), ("gpt2-vocab.json", False)])
def test_only_bert_s_pre_tokenizer_ends_words_at_spaces(name, independent):
    if not VOCAB.exists():
        pytest.skip("shared/data/vocab is not there")
    assert words_are_independent(json.loads(Tokenizer.load(str(VOCAB / name)).to_json())) is independent
