"""Laws of the tokenizer: the authors' special ids, no control token from text, one id sequence whatever the route."""

import functools
import gzip
import json
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from glm_model.tokenizer import SpecialTokens, Tokenizer

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"
VOCAB = SHARED / "data" / "vocab"
WIKI = SHARED / "data" / "corpora" / "enwiki_wikiextractor" / "AA" / "wiki_05.gz"
HOSTILE = "[MASK] and [CLS], [PAD] <|endoftext|> <s></s> <mask> [gMASK] <|startofpiece|>x[sMASK]y<|endofpiece|>"
BERT = SpecialTokens(pad=0, cls=101, mask=103, smask=30525, gmask=30524, sop=30522, eop=30523, unk=100)
GPT2 = SpecialTokens(pad=50256, cls=50259, mask=50260, smask=50264, gmask=50263, sop=50257, eop=50258, unk=50262)
ROBERTA = SpecialTokens(pad=2, cls=0, mask=50264, smask=50268, gmask=50267, sop=50265, eop=50266, unk=3)
PUBLISHED = {
    "bert-base-uncased-vocab.txt": (BERT, 30526, 30592),
    "bert-base-uncased-hf": (BERT, 30526, 30592),
    "bert-base-uncased-hf/tokenizer.json": (BERT, 30526, 30592),
    "gpt2-vocab.json": (GPT2, 50265, 50304),
    "gpt2-merges.txt": (GPT2, 50265, 50304),
    "roberta-vocab.json": (ROBERTA, 50269, 50304),
}
UNIGRAM = {
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["[MASK]", 0.0], ["</s>", 0.0], ["\u2581", -3.0], ["a", -4.0]]
        + [[c, -5.0] for c in "[]MASK</s>"],
    },
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    "added_tokens": [{"id": 0, "content": "<unk>"}, {"id": 1, "content": "[MASK]"}, {"id": 2, "content": "</s>"}],
}


@functools.cache  # a tokenizer does not change
def load(name: str) -> Tokenizer:
    if not VOCAB.exists():
        pytest.skip("shared/data/vocab is not there")
    return Tokenizer.load(str(VOCAB / name))


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    return load("bert-base-uncased-vocab.txt")


@pytest.fixture(scope="module")
def wiki_texts() -> list[str]:
    if not WIKI.exists():
        pytest.skip("shared/data/corpora is not there")
    return [block for block in gzip.decompress(WIKI.read_bytes()).decode().split("</doc>\n") if block]


@pytest.mark.parametrize("name", PUBLISHED)
def test_special_ids_are_the_authors(name):
    tokenizer = load(name)
    assert (tokenizer.special, tokenizer.vocab_size, tokenizer.padded_vocab_size) == PUBLISHED[name]
    assert tokenizer.special.eos == tokenizer.special.pad


@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "gpt2-vocab.json", "roberta-vocab.json"])
def test_text_never_becomes_a_control_token(name):
    tokenizer = load(name)
    control = set(vars(tokenizer.special).values()) - {tokenizer.special.unk}
    assert not control & set(tokenizer.encode(HOSTILE).tolist())
    assert not control & set(tokenizer.encode_batch([HOSTILE])[0].tolist())


def test_a_unigram_vocabulary_that_lists_its_mask_is_guarded():
    tokenizer = Tokenizer(json.dumps(UNIGRAM))
    # One id per character of "\u2581a\u2581[MASK]</s>": neither [MASK] (1) nor </s> (2).
    assert tokenizer.encode("a [MASK]</s>").tolist() == [3, 4, 3, 5, 7, 8, 9, 10, 6, 11, 12, 13, 14]
    assert Tokenizer(tokenizer.to_json()).digest == tokenizer.digest


def test_vocab_txt_and_hugging_face_file_are_one_tokenizer(bert):
    assert load("bert-base-uncased-hf").digest == bert.digest


def test_ids_equal_hugging_face_on_wikipedia(bert, wiki_texts):
    reference = tokenizers.Tokenizer.from_file(str(VOCAB / "bert-base-uncased-hf" / "tokenizer.json"))
    expected = [e.ids for e in reference.encode_batch(wiki_texts, add_special_tokens=False)]
    ids, offsets = bert.encode_batch(wiki_texts)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == expected


@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "gpt2-vocab.json"])
def test_batch_equals_one_by_one(name, wiki_texts):
    tokenizer = load(name)
    texts = ["", *wiki_texts[:50], " ", "中文。 Straße\r\n"]
    ids, offsets = tokenizer.encode_batch(texts)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == [tokenizer.encode(t).tolist() for t in texts]
    assert [a.tolist() for a in tokenizer.encode_batch([])] == [[], [0]]


def test_prompt_masks_become_ids(bert):
    ray, is_, a = bert.encode("Ray is a").tolist()
    assert bert.encode_prompt("Ray is a [MASK] [CLS][gMASK]").tolist() == [
        *(ray, is_, a, 103),
        *bert.encode("[CLS]").tolist(),
        30524,
    ]
    assert bert.encode_prompt("[sMASK]").tolist() == [30525]
    assert bert.encode_prompt("").tolist() == []


def test_byte_level_prompts_give_the_mask_its_leading_space():
    gpt2 = load("gpt2-vocab.json")
    assert gpt2.encode_prompt("Ray is [MASK] for").tolist() == [
        *gpt2.encode("Ray is").tolist(),
        50260,
        *gpt2.encode(" for").tolist(),
    ]


def test_a_line_break_before_a_mask_is_text():
    gpt2 = load("gpt2-vocab.json")
    assert gpt2.encode_prompt("Ray is \n[MASK] for").tolist() == [
        *gpt2.encode("Ray is \nx").tolist()[:4],
        50260,
        *gpt2.encode(" for").tolist(),
    ]


def test_decode(bert):
    text = "hello, world! it's (really) 中文 naive; don't [stop]: 5 %"
    assert bert.decode(bert.encode(text)) == "hello, world! it's (really) 中文 naive; don't [stop]: 5%"
    ids = [101, *bert.encode("a playground"), 103, 30522, 0]
    assert bert.decode(ids) == "a playground"
    assert bert.decode(ids, show_special=True) == "[CLS] a playground [MASK] <|startofpiece|> [PAD]"
    gpt2 = load("gpt2-vocab.json")
    text = "  Naïve café,\n\n中文 it's 100 % \t<b>"
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.decode([50259, *gpt2.encode("a"), 50260], show_special=True) == "[CLS]a[MASK]"


def test_pieces_are_surfaces(bert):
    assert [bert.surface(i) for i in (0, 101, 103, 30522, 30525, 2003, 2015)] == [
        "[PAD]",
        "[CLS]",
        "[MASK]",
        "<|startofpiece|>",
        "[sMASK]",
        "is",
        "##s",
    ]
    assert len(bert.surfaces()) == bert.vocab_size
    assert bert.surface(30527) == ""
    with pytest.raises(ValueError, match="outside the vocabulary"):
        bert.surface(30592)
    gpt2 = load("gpt2-vocab.json")
    assert [gpt2.surface(i) for i in (198, 262, 13, 50260)] == ["\n", " the", ".", "[MASK]"]


@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "bert-base-chinese-vocab.txt", "roberta-vocab.json"])
def test_save_and_load_are_inverse(name, tmp_path):
    tokenizer = load(name)
    again = Tokenizer.load(Path(tokenizer.save(str(tmp_path))).parent.as_posix())
    assert (again.digest, again.special, again.vocab_size) == (
        tokenizer.digest,
        tokenizer.special,
        tokenizer.vocab_size,
    )
    assert again.to_json() == tokenizer.to_json()
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert other.get_vocab_size() == tokenizer.vocab_size
    assert other.token_to_id("<|startofpiece|>") == tokenizer.special.sop
    assert other.token_to_id("[sMASK]") == tokenizer.special.smask


@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size are POSIX's")
def test_a_save_that_fails_leaves_what_was_there(tiny_tokenizer, tmp_path):
    """The disk takes 100 bytes of the file and no more."""
    import resource

    kept, old = Tokenizer(json.dumps(UNIGRAM)), resource.getrlimit(resource.RLIMIT_FSIZE)
    kept.save(str(tmp_path / "old"))
    for folder in ("old", "new"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                tiny_tokenizer.save(str(tmp_path / folder))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["tokenizer.json"]
    assert Tokenizer.load(str(tmp_path / "old")).to_json() == kept.to_json()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_piece_listed_twice_leaves_no_gap_in_the_ids():
    chinese = load("bert-base-chinese-vocab.txt")
    assert (chinese.special.sop, chinese.vocab_size) == (21128, 21132)
    assert sum(piece.endswith(" unused]") for piece in chinese.surfaces()) == 53


def test_pickle(bert):
    again = pickle.loads(pickle.dumps(bert))
    assert (again.digest, again.special) == (bert.digest, bert.special)


def test_digest_ignores_special_tokens_and_sees_lowercase(bert):
    spec = json.loads(bert.to_json())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] not in ("[gMASK]", "[sMASK]")]
    assert Tokenizer(json.dumps(spec)).digest == bert.digest
    cased = Tokenizer.load(str(VOCAB / "bert-base-uncased-vocab.txt"), lowercase=False)
    assert cased.digest != bert.digest


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "", "merges.txt"])
def test_missing_file_names_both_remedies(name, tmp_path):
    with pytest.raises(ValueError, match="cannot read a tokenizer") as error:
        Tokenizer.load(str(tmp_path / name))
    assert "such as /path/vocab.txt" in str(error.value)
    assert "https://huggingface.co/bert-base-uncased/resolve/main/tokenizer.json" in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", '{"model": {"type": "Wo', "not valid JSON: Unterminated string"),
        ("tokenizer.json", "", "not valid JSON: Expecting value"),
        ("tokenizer.json", "[]", "expected a JSON object, got a list"),
        ("tokenizer.json", "{}", "it has neither a model nor tokens with their ids"),
        ("tokenizer.json", '{"model": {}}', "its model has no vocab"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}}', "KeyError: 'type'"),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "Exception: missing field"),
        ("vocab.json", '{"a": "b"}', "it has neither a model nor tokens with their ids"),
    ],
)
def test_a_damaged_file_is_named_with_why_and_what_to_do(tmp_path, name, content, why):
    (tmp_path / name).write_text(content)
    told = rf"^{tmp_path}/{name} is damaged or holds no tokenizer \({why}.*\)\. Copy it again; it should be a tokenizer"
    for url in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=told.replace(str(tmp_path), ".*") if url == tmp_path else told):
            Tokenizer.load(str(url))


def test_an_unknown_protocol_is_told():
    for url in ("nope://x/tokenizer.json", "nope://x"):
        with pytest.raises(ValueError, match=r"cannot read a tokenizer from nope://x.*Protocol not known: nope"):
            Tokenizer.load(url)


def test_control_ids_stand_for_no_text(bert):
    assert bert.control_ids == {0, 100, 101, 102, 103, 30522, 30523, 30524, 30525}
    assert bert.decode([2015, 2003, 2015]) == "s iss", "##s is ##s"
    assert bert.decode([2015], show_special=True) == "##s"


def test_import_is_light():
    code = "import sys, glm_model.tokenizer; sys.exit(bool({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def bpe(dropout: float | None) -> dict:
    letters = dict(zip("abc", range(3), strict=True))
    merged = {"ab": 3, "abc": 4, "<|endoftext|>": 5}
    model = {"type": "BPE", "dropout": dropout, "vocab": letters | merged, "merges": [["a", "b"], ["ab", "c"]]}
    return {"model": model, "added_tokens": [{"id": 5, "content": "<|endoftext|>", "special": True}]}


def test_dropout_is_left_out_and_said(tmp_path, recwarn):
    for name, dropout in (("with", 0.5), ("without", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(bpe(dropout)))
    random, plain = (Tokenizer.load(str(tmp_path / name)) for name in ("with", "without"))
    assert [str(w.message).partition(", which")[0] for w in recwarn] == [f"{tmp_path}/with has model.dropout=0.5"]
    assert {tuple(random.encode("abcabcab").tolist()) for _ in range(50)} == {(4, 4, 3)}
    assert random.encode_batch(["abc"] * 50)[0].tolist() == [4] * 50
    assert (random.digest, random.to_json()) == (plain.digest, plain.to_json())
