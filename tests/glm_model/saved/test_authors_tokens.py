"""The authors' special ids: from the vocabularies as published, with and without task masks; others are refused."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from glm_model.config import GLMConfig, sized
from glm_model.saved.authors_tokens import PUBLISHED, load_tokenizer, recognise, special_tokens
from glm_model.tokenizer import Tokenizer
from glm_model.tokenizer.published import read_spec, special_roles, with_special_tokens

VOCAB = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "vocab"
FILES = {"bert": "bert-base-uncased-vocab.txt", "gpt2": "gpt2-vocab.json", "roberta": "roberta-vocab.json"}


def file(name: str) -> str:
    if not VOCAB.exists():
        pytest.skip("shared/data/vocab is not there")
    return str(VOCAB / FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_ids_are_the_tables_with_and_without_task_masks(name):
    spec = read_spec(file(name))
    for task_masks in (True, False):
        roles = {"gmask": -1, "smask": -1, **special_roles(with_special_tokens(spec, task_masks=task_masks))}
        wanted = vars(special_tokens(name, task_masks=task_masks))
        assert {role: roles[role] for role in wanted} == wanted
        assert (wanted["gmask"] >= 0, wanted["smask"] >= 0) == (task_masks, task_masks)


@pytest.mark.parametrize("task_masks", [True, False])
def test_a_saved_tokenizer_keeps_its_masks_until_told_otherwise(task_masks, tmp_path):
    tokenizer = load_tokenizer(file("bert"), "bert", task_masks=task_masks)
    assert tokenizer.special == special_tokens("bert", task_masks=task_masks)
    assert tokenizer.padded_vocab_size == PUBLISHED["bert"].rows
    tokenizer.save(str(tmp_path))
    again = Tokenizer.load(str(tmp_path))
    assert (again.special, again.vocab_size, again.digest) == (
        tokenizer.special,
        30524 + 2 * task_masks,
        tokenizer.digest,
    )
    turned = Tokenizer.load(str(tmp_path), task_masks=not task_masks)
    assert turned.special == special_tokens("bert", task_masks=not task_masks)


def test_without_task_masks_every_mask_of_a_prompt_is_the_one():
    tokenizer = load_tokenizer(file("bert"), "bert")
    assert tokenizer.special == replace(PUBLISHED["bert"].special, gmask=-1, smask=-1)
    ids = tokenizer.encode_prompt("a [MASK] b [gMASK] [sMASK]")
    assert (ids == 103).sum() == 3
    assert tokenizer.decode(ids, show_special=True) == "a [MASK] b [MASK] [MASK]"


@pytest.mark.parametrize(
    ("size", "shape", "name"),
    [
        ("base", {}, "bert"),
        ("515m", {}, "bert"),
        ("2b", {}, "gpt2"),
        ("10b", {}, "gpt2"),
        ("large", {"vocab_size": 50_304}, "roberta"),
        ("large", {"vocab_size": 50_048, "positions": 1024}, "chinese"),
        ("base", {"vocab_size": 32_000}, None),
    ],
)
def test_published_shapes_tell_their_tokenizer(size, shape, name):
    assert recognise(sized(size, **shape)) == name
    assert recognise(GLMConfig(1, 8, 1, 1024)) is None


def test_another_tokenizer_than_the_checkpoints_is_refused_by_its_ids():
    with pytest.raises(ValueError, match=r"not the tokenizer of a 'gpt2' checkpoint: its ids are those of 'bert'"):
        load_tokenizer(file("bert"), "gpt2")
    with pytest.raises(
        ValueError, match=r"It has pad 0, cls 101, .*; the checkpoint has pad 2, cls 0.* Give RoBERTa's"
    ):
        load_tokenizer(file("bert"), "roberta")
    assert load_tokenizer(file("bert"), None).special == PUBLISHED["bert"].special


def test_the_chinese_sentencepiece_model_gives_its_own_ids_and_the_authors_special_ones():
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra unigram")
    url = VOCAB / "chinese_sentencepiece" / "cog-pretrain.model"
    corpus = VOCAB.parent / "corpora" / "zhwiki_wikiextractor" / "AB" / "wiki_14.gz"
    if not url.exists() or not corpus.exists():
        pytest.skip("the authors' SentencePiece model and Chinese text are not in shared/data")
    tokenizer = load_tokenizer(str(url), "chinese")
    assert tokenizer.special == PUBLISHED["chinese"].special
    assert tokenizer.padded_vocab_size == PUBLISHED["chinese"].rows
    texts = gzip.decompress(corpus.read_bytes()).decode().split("</doc>\n")[:80]
    texts += [
        "中<n>文 <n> a<n>",
        "ｶﾞ e\u0302\u0301",
        "\u1112\u1161\u11ab",
        "～",
        "",
        " ",
        "  a  b ",
        "１２３ ½ ﬁne",
        "▁a▁▁b",
        "a\tb\nc\u3000d",
        "😀😀 x 😀",
        "[MASK] <|endofpiece|>",
    ]
    reference = sentencepiece.SentencePieceProcessor(model_file=str(url))
    assert [tokenizer.encode(text).tolist() for text in texts] == reference.encode(texts)


def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path):
    pytest.importorskip("sentencepiece", reason="needs the extra unigram")
    for content in (b"not a model", b""):
        (tmp_path / "x.model").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.model is (damaged or )?not a SentencePiece"):
            load_tokenizer(str(tmp_path / "x.model"), "chinese")
    with pytest.raises(ValueError, match=r"cannot read a tokenizer from .*absent\.model"):
        load_tokenizer(str(tmp_path / "absent.model"), None)
