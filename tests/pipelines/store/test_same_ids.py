"""The ids of a document in the store are those of its whole text, for every kind of tokenizer."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_model.tokenizer import Tokenizer
from pipelines.sentence_marks import END_MARKS
from pipelines.store.segments import encode_documents

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
# Long enough to be cut, with everything that decides a border between words.
LONG = st.lists(
    st.sampled_from(
        [
            "a river.",
            "。",
            "天地",
            "”",
            '."',
            "  ",
            "\n",
            "\n\n",
            " \n",
            "…",
            "'s",
            "1914",
            "x" * 90,
            "\t",
            "\x85",
            "\x1c",
            "\u2028",
            "\u3000",
            "?!",
            "é",
            "。（",
            " the",
            "\r\n",
            "\u00a0",
            "Ł",
        ]
    ),
    min_size=100,
    max_size=300,
).map("".join)


def differing(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """The texts of which the store would hold other ids than those of the whole, or other text."""
    chunks, flat, offsets, _ = encode_documents(texts, tokenizer)
    found = []
    for text, (first, last) in zip(texts, pairwise(chunks.offsets.tolist()), strict=True):
        ids = flat[offsets[first] : offsets[last]].tolist()
        if ids != tokenizer.encode(text).tolist() or "".join(chunks.texts[first:last]) != text:
            found.append(text)
    assert chunks.num_bytes.tolist() == [len(chunk.encode()) for chunk in chunks.texts]
    return found


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_documents_ids_are_those_of_the_whole_text(kind):
    texts = [kinds.english(60, seed=7), kinds.chinese(90, seed=7), "", "river. " * 3, "天" * 2000 + "x" * 2000]
    assert differing(kinds.of_kind(kind), texts) == []


@pytest.mark.parametrize("kind", kinds.KINDS)
@settings(max_examples=15)
@given(LONG)
def test_so_they_are_at_odd_borders(kind, text):
    assert differing(kinds.of_kind(kind), [text]) == []


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_texts_are_cut_into_chunks_at_sentence_ends(kind):
    english, chinese = kinds.english(120, seed=8), kinds.chinese(120, seed=8)
    chunks = encode_documents([english, chinese], kinds.of_kind(kind)).chunks
    assert len(english) / 400 < chunks.offsets[1] < len(english) / 250  # its … is not ASCII
    assert len(chinese) / 60 < chunks.offsets[2] - chunks.offsets[1] < len(chinese) / 20
    ends = [chunk.rstrip()[-1] for chunk in chunks.texts]
    assert set(ends) <= set('.?!…"。！？”')


def test_only_bert_s_and_gpt_2_s_kinds_may_be_cut():
    assert [kind for kind in kinds.KINDS if kinds.of_kind(kind).may_cut] == ["wordpiece", "byte-level"]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level"])
def test_marks_of_all_scripts_may_be_cut_where_the_library_takes_them_for_signs(kind):
    """Python knows signs that the library does not: U+061D is one of Unicode 14."""
    tokenizer = kinds.of_kind(kind)
    assert tokenizer.may_cut
    cuts = 0
    for mark in sorted(END_MARKS):
        for text in (f"a{mark}1x", f"天{mark}天", f"a{mark}”x", f"a{mark}\nx"):
            for at in [at for at in range(1, len(text)) if tokenizer.may_cut(text, at)]:
                parts = [*tokenizer.encode(text[:at]).tolist(), *tokenizer.encode(text[at:]).tolist()]
                assert parts == tokenizer.encode(text).tolist(), (text, at)
                cuts += 1
    assert cuts > 3 * len(END_MARKS)


@pytest.mark.parametrize(
    ("kind", "text", "places"),
    [
        ("wordpiece", "ab. c", [2, 3, 4]),
        ("wordpiece", "天地x", [1, 2]),
        ("wordpiece", "a\x85b\x1cc", []),
        ("byte-level", "ab. cd", [3]),
        ("byte-level", "a  b", [1, 2]),
        ("byte-level", "a\n\n\nb", [1, 3]),
        ("byte-level", "a \n", [1]),
        ("byte-level", "。天。”地", [1, 4]),
        ("byte-level", "a's", []),
    ],
)
def test_places_at_which_a_text_may_be_cut(kind, text, places):
    may_cut = kinds.of_kind(kind).may_cut
    assert may_cut
    assert [at for at in range(1, len(text)) if may_cut(text, at)] == places


@pytest.mark.parametrize(
    "name", ["gpt2-vocab.json", "bert-base-chinese-vocab.txt", "chinese_sentencepiece/cog-pretrain.model"]
)
@pytest.mark.parametrize("corpus", ["zhwiki_wikiextractor/AB/wiki_14.gz", "enwiki_wikiextractor/AA/wiki_05.gz"])
def test_real_articles_have_the_ids_of_the_whole_text(name, corpus):
    if not (SHARED / "vocab" / name).exists() or not (SHARED / "corpora" / corpus).exists():
        pytest.skip(f"{name} or {corpus} is not in shared/data")
    articles = gzip.decompress((SHARED / "corpora" / corpus).read_bytes()).decode().split("</doc>\n")[:60]
    assert differing(Tokenizer.load(str(SHARED / "vocab" / name)), articles) == []
