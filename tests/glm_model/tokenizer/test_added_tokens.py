"""Added tokens that their authors call text are text: found in a corpus, exported, generated and printed."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from glm_model.tokenizer import Tokenizer


def byte_level(*added: AddedToken) -> tokenizers.Tokenizer:
    """Every byte a token, [END] a control token, and these."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "[END]"])
    made.add_tokens(list(added))
    return made


def bert(*added: AddedToken) -> tokenizers.Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz.é"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    made = tokenizers.Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[MASK]"])
    made.add_tokens(list(added))
    return made


SPACES = [AddedToken(" " * n, normalized=True) for n in (4, 3, 2)]  # as GPT-NeoX has them
TERMS = [AddedToken("hydroxychloroquine"), AddedToken("<br>", normalized=False), AddedToken("café")]
FLAGS = [
    AddedToken("cat", single_word=True),
    AddedToken("<tab>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("New York", normalized=True),
    AddedToken("a\nb", normalized=False),
]
KINDS = {
    "spaces": byte_level(*SPACES),
    "terms": byte_level(*TERMS),
    "flags": byte_level(*FLAGS),
    "terms of BERT": bert(*TERMS),
    "flags of BERT": bert(*FLAGS),
}
TEXTS = [
    "Alpha beta:\n        gamma delta\n            epsilon",
    "Take hydroxychloroquine, hydroxychloroquines<br>and <br> CAFÉ café.",
    "cat cats concat cat.\n <tab>  x<tab>y",
    "new york New York New  York New\nYork",
    "a\nb a b",
    "",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_corpus_the_export_and_the_authors_have_equal_ids(kind, text, tmp_path):
    reference = KINDS[kind]
    ids = reference.encode(text, add_special_tokens=False).ids
    tokenizer = Tokenizer(reference.to_str())
    assert tokenizer.encode(text).tolist() == ids
    flat, offsets = tokenizer.encode_batch([*TEXTS, text])
    assert [flat[a:b].tolist() for a, b in pairwise(offsets)][-1] == ids
    tokenizer.save(str(tmp_path))
    exported = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert exported.encode(text, add_special_tokens=False).ids == ids
    assert Tokenizer.load(str(tmp_path)).digest == tokenizer.digest


@pytest.mark.parametrize("kind", ["spaces", "terms", "flags"])
@pytest.mark.parametrize("text", TEXTS)
def test_they_print_as_they_were_read(kind, text):
    tokenizer = Tokenizer(KINDS[kind].to_str())
    stripped = [token for token in FLAGS if token.lstrip] if kind == "flags" else []
    assert tokenizer.decode(tokenizer.encode(text)) == (text if not stripped else text.replace("\n <tab>  x", "<tab>x"))


def test_they_are_not_control_tokens_and_have_their_surface():
    tokenizer = Tokenizer(byte_level(*TERMS).to_str())
    ids = {tokenizer.surface(i): i for i in range(256, tokenizer.vocab_size)}
    assert [ids[token.content] in tokenizer.control_ids for token in TERMS] == [False] * 3
    assert ids["[END]"] in tokenizer.control_ids
    assert tokenizer.decode([ids["café"], ids["[END]"], ids["<br>"]]) == "café<br>"
    assert tokenizer.decode([ids["café"], ids["[END]"]], show_special=True) == "café[END]"


def test_text_never_becomes_a_control_token_beside_them():
    """Not even where a text token lies within a control token's characters."""
    tokenizer = Tokenizer(byte_level(AddedToken("END"), AddedToken("]", normalized=False)).to_str())
    text = "a [END] [MASK]<|endoftext|>END"
    assert not tokenizer.control_ids & set(tokenizer.encode(text).tolist())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_role_of_glm_is_a_control_token_whatever_the_file_calls_it():
    tokenizer = Tokenizer(byte_level(AddedToken("[MASK]"), AddedToken("<s>")).to_str())
    assert {tokenizer.special.mask, tokenizer.special.cls} <= tokenizer.control_ids
    assert not tokenizer.control_ids & set(tokenizer.encode("[MASK]<s>").tolist())


def test_the_digest_covers_them_and_nothing_else_changes_it():
    plain = Tokenizer(byte_level().to_str())
    digests = {Tokenizer(byte_level(AddedToken("x y", lstrip=flag)).to_str()).digest for flag in (True, False)}
    assert len({plain.digest, *digests}) == 3
    as_special = json.loads(byte_level(AddedToken("x y")).to_str())
    as_special["added_tokens"][-1]["special"] = True
    assert Tokenizer(json.dumps(as_special)).digest == plain.digest


def test_words_are_not_looked_up_and_texts_not_cut_beside_them():
    for made in (bert(), byte_level()):
        assert Tokenizer(made.to_str()).may_cut is not None
    for made in KINDS.values():
        tokenizer = Tokenizer(made.to_str())
        assert (tokenizer.may_cut, tokenizer._word_cache) == (None, None)


def test_an_id_that_the_library_would_change_is_refused():
    spec = json.loads(byte_level(AddedToken("term")).to_str())
    spec["added_tokens"][-1]["id"] += 7
    with pytest.raises(ValueError, match="gives the added token 'term' another id than the file"):
        Tokenizer(json.dumps(spec))


BESIDE = {
    "tokenizer_config.json": {
        "do_lower_case": True,
        "added_tokens_decoder": {
            "1": {"content": "[UNK]", "special": True},
            "9": {"content": "covid", "special": False, "single_word": False, "normalized": True},
            "10": {"content": "[EXTRA]", "special": True},
        },
    },
    "added_tokens.json": {"covid": 9, "[EXTRA]": 10},
    "special_tokens_map.json": {"additional_special_tokens": ["[EXTRA]"]},
}


@pytest.mark.parametrize("files", [["tokenizer_config.json"], ["added_tokens.json", "special_tokens_map.json"]])
def test_tokens_added_to_a_vocab_txt_are_read_from_beside_it(tmp_path, files):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"covi"]))
    for name in files:
        (tmp_path / name).write_text(json.dumps(BESIDE[name]))
    tokenizer = Tokenizer.load(str(tmp_path))
    assert [tokenizer.surface(int(i)) for i in tokenizer.encode("o Covid [EXTRA]")][:2] == ["o", "covid"]
    assert (9 in tokenizer.control_ids, 10 in tokenizer.control_ids) == (False, True)
    assert 10 not in tokenizer.encode("[EXTRA]")


@pytest.mark.parametrize("pattern", ["Qwen2Tokenizer", "CLIPTokenizerFast"])
def test_a_vocab_json_that_is_not_cut_as_gpt2_s_is_refused(tmp_path, pattern):
    vocab_json(tmp_path, {"tokenizer_class": pattern})
    with pytest.raises(ValueError, match=f"the tokenizer_config.json beside it says {pattern.removesuffix('Fast')}"):
        Tokenizer.load(str(tmp_path))


def test_the_space_before_the_first_word_is_as_the_settings_say(tmp_path):
    found = []
    for settings in ({}, {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"}):
        vocab_json(tmp_path, settings)
        tokenizer = Tokenizer.load(str(tmp_path))
        found.append(tokenizer.decode(tokenizer.encode("a b")))
    assert found == ["a b", " a b"]


def vocab_json(folder: Path, settings: dict) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(alphabet)} | {"<|endoftext|>": 256}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
