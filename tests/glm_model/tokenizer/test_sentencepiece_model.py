"""A SentencePiece .model gives the ids that SentencePiece gives, whatever its file asks for, or is refused."""

import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from glm_model.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra unigram")

_draw = random.Random(3)
WORDS = ["".join(_draw.choices("abcdefghij", k=_draw.randint(2, 7))) for _ in range(120)]
CORPUS = [" ".join(_draw.choices(WORDS, k=30)) + f" {_draw.randint(0, 9999)}." for _ in range(60)]
CORPUS += ["é à ü ガ 가 ậ Á á 中 文 < > / n s ～ "] * 5
LLAMA = {
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "Llama": LLAMA,
    "Gemma": {**LLAMA, "add_dummy_prefix": False, "user_defined_symbols": ["\u2581\u2581", "\n\n", "<b>"]},
    "no space in front": {"add_dummy_prefix": False},
    "spaces behind": {"treat_whitespace_as_suffix": True},
    "symbols": {"user_defined_symbols": ["<n>", "中文"]},
    "spaces stay": {"remove_extra_whitespaces": False},
    "pieces across spaces": {"split_by_whitespace": False},
    "control symbols": {"control_symbols": ["<sep>", "[CLS]"], "pad_id": 3},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "identity": {"normalization_rule_name": "identity"},
    "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf"},
}
UNIGRAM = [name for name in SETTINGS if name != "Gemma"]
ALPHABET = "abc fgh 中文ガ가é～ßΣςАЯİｶﾞ\u2581\u0301\u0302\n\t\r0123ﬁＡ🐈"
TEXTS = [
    *("".join(_draw.sample(ALPHABET, k=_draw.randint(1, 25))) for _ in range(300)),  # "aaa" can be cut in equal ways
    *("", " ", "a", "  a  b \n\n c ", "中<n>文 <n> a<n>", "x\r\ny", "see <special> here", "\u2581 literal"),
    *("ｶﾞ \u1112\u1161\u11ab", "e\u0302\u0301 o\u031b\u0301", "Ａ\u0301", "a\u3000b\u00a0c\u200bd\x01e"),
    *CORPUS[:3],
    " ".join(WORDS) * 3,
]


def trained(folder: Path, **settings) -> tuple[str, Any]:
    """(the file, SentencePiece's own reading of it)"""
    out = io.BytesIO()
    usual = {"model_type": "bpe", "vocab_size": 300, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, **usual | settings)
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return str(folder / "tokenizer.model"), sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def is_composed(reference: Any, text: str) -> bool:
    """Marks that SentencePiece leaves apart, in another order than Unicode's, are composed here."""
    normal = reference.normalize(text)
    return unicodedata.normalize("NFC", normal) == normal


@pytest.mark.parametrize(
    ("kind", "name"), [*(("bpe", name) for name in SETTINGS), *(("unigram", name) for name in UNIGRAM)]
)
def test_ids_are_sentencepiece_s(tmp_path, kind, name):
    _, reference = trained(tmp_path, model_type=kind, **SETTINGS[name])
    tokenizer = Tokenizer.load(str(tmp_path))
    texts = [text for text in TEXTS if is_composed(reference, text)]
    assert len(texts) > 0.8 * len(TEXTS)
    wrong = [text for text in texts if tokenizer.encode(text).tolist() != reference.encode(text)]
    assert wrong == []
    markup = tokenizer.encode("<s></s> <unk> <sep> [CLS] <pad> <0x41>")
    assert not (tokenizer.control_ids - {tokenizer.special.unk}) & set(markup.tolist())
    text = CORPUS[0]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert Tokenizer(tokenizer.to_json()).digest == tokenizer.digest


def test_symbols_of_the_file_are_text_and_its_control_pieces_are_not(tmp_path):
    url, reference = trained(tmp_path, user_defined_symbols=["<n>"], control_symbols=["<sep>"])
    tokenizer = Tokenizer.load(url)
    names = ("<n>", "<sep>", "<s>", "</s>", "<unk>")
    is_control = [reference.piece_to_id(name) in tokenizer.control_ids for name in names]
    assert is_control == [False, True, True, True, True]
    assert tokenizer.decode(tokenizer.encode("a<n>b")) == "a<n>b"
    assert (tokenizer.special.unk, tokenizer.special.cls, tokenizer.special.pad) == (0, 1, 2)


def test_what_the_tokenizers_library_cannot_do_is_refused_with_a_text_that_shows_it(tmp_path):
    url, _ = trained(tmp_path, treat_whitespace_as_suffix=True, user_defined_symbols=["<n>"])
    with pytest.raises(ValueError, match=r"would not give the ids that SentencePiece gives: 'a<n>b .*instead of"):
        Tokenizer.load(url)


@pytest.mark.parametrize("kind", ["word", "char"])
def test_models_of_words_or_characters_are_refused(tmp_path, kind):
    url, _ = trained(tmp_path, model_type=kind, vocab_size=100)
    with pytest.raises(ValueError, match="is not a SentencePiece model of BPE or unigram"):
        Tokenizer.load(url)


def test_a_model_whose_ids_its_tokenizer_moves_is_refused(tmp_path):
    url, _ = trained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
    with pytest.raises(ValueError, match="says XLMRobertaTokenizer, which moves them"):
        Tokenizer.load(url)


def test_tokens_added_beside_a_model_are_read(tmp_path):
    url, reference = trained(tmp_path)
    added = {str(len(reference)): {"content": "covid", "special": False, "normalized": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    assert len(reference) in Tokenizer.load(url).encode("a covid b").tolist()
