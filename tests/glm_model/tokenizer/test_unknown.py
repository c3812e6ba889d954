"""Bytes of text that a tokenizer does not know are counted, whatever the kind: behind its unknown token, or dropped."""

import json

import pytest
from helpers import kinds
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from glm_model.tokenizer import Tokenizer
from glm_model.tokenizer.unknown import drops_characters, unknown_id

TEXTS = ["the river ☃ carried", "ຂ້ອຍ", "", "stone☃☃ stone.\n☃", "letter"]
# WordPiece loses the whole word; the others the character.
LOST_WORDS = [3, 12, 0, 5 + 6 + 3, 0]
LOST_CHARACTERS = [3, 12, 0, 9, 0]


def unknown(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return tokenizer.unknown_bytes(texts, *tokenizer.encode_batch(texts)).tolist()


def bpe(alphabet: str, **settings) -> Tokenizer:
    """BPE of single characters."""
    text = Library(models.BPE({c: i for i, c in enumerate(alphabet)}, [], **settings))
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(text.to_str())


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_each_byte_without_a_token_of_its_own_is_counted(kind):
    tokenizer = kinds.of_kind(kind)
    without = {
        "wordpiece": LOST_WORDS,
        "unigram": LOST_CHARACTERS,
        "T5": LOST_CHARACTERS,
        "SentencePiece": LOST_CHARACTERS,
    }
    assert unknown(tokenizer, TEXTS) == without.get(kind, [0] * 5)
    assert unknown(tokenizer, TEXTS) == without.get(kind, [0] * 5), "words are remembered"
    assert [tokenizer.encode_whole(text).unknown_bytes for text in TEXTS] == without.get(kind, [0] * 5)


def test_characters_that_bpe_drops_are_counted_and_white_space_is_not():
    text = "cab ☃d\n\nda "
    assert bpe("abcd").encode(text).size == 7 - 1
    assert unknown(bpe("abcd"), [text, "ab"]) == [3, 0]
    assert unknown(bpe("abcd"), ["caébd", "éé ab", "caébd"]) == [2, 4, 2], "inside a word, where its offsets are wrong"
    assert unknown(bpe("ab?", unk_token="?"), [text]) == [1 + 3 + 1 + 1], "one token each, or one for several"
    assert unknown(bpe("ab?", unk_token="?", fuse_unk=True), [text]) == [6]


def test_a_vocabulary_with_a_token_for_every_byte_drops_nothing():
    specs = {kind: json.loads(kinds.of_kind(kind).to_json()) for kind in kinds.KINDS}
    assert not any(drops_characters(spec) for kind, spec in specs.items() if kind != "SentencePiece")
    byte_level = specs["byte-level"]
    del byte_level["model"]["vocab"]["Ġ"]
    byte_level["model"]["merges"] = []
    assert drops_characters(byte_level)
    assert unknown(Tokenizer(json.dumps(byte_level)), ["the river carried", "the"]) == [2, 0]
    assert [unknown_id(specs[kind]) for kind in ("wordpiece", "byte-level", "unigram", "SentencePiece")] == [
        1,
        None,
        1,
        0,
    ]


def test_the_models_own_unknown_token_is_never_written():
    """SentencePiece's is the first of its pieces; the authors' Chinese model has an [UNK] besides, for no text."""
    tokenizer = kinds.of_kind("SentencePiece")
    assert tokenizer.special.unk == 0
    assert 0 in tokenizer.control_ids
