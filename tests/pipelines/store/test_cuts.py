"""Where segments end: behind sentences, in text whose lines are wrapped and in scripts without spaces too.

Judged by a rule of its own on the text before the cut: a mark that ends sentences, then closing quotation marks.
"""

import functools
import gzip
import random
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from helpers import kinds

from glm_model.tokenizer import Tokenizer
from pipelines.corpus.clean import CleanConfig, clean
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document
from pipelines.store.segments import encode_documents, segment_documents

ENDED = re.compile(r"[.?!…。！？；][\"'”’»」』》）)\]_*]*\s*\Z")
_NAMES = ("Mr. Brown", "Mrs. Dow", "Dr. J. R. Hale", "St. Clair", "the captain", "my aunt")


def judged(texts: list[str], tokenizer: Tokenizer, length: int) -> tuple[int, float, float]:
    """(cuts, their share behind a sentence, how full the segments before them are), without the ends of documents."""
    encoded = encode_documents(texts, tokenizer)
    special, keys = tokenizer.special, np.arange(len(texts), dtype=np.uint64)
    segments = segment_documents(
        encoded.flat,
        encoded.token_offsets,
        encoded.chunks,
        keys,
        length=length,
        cls=special.cls,
        eos=special.eos,
    )
    cuts = np.append(segments.document[1:] == segments.document[:-1], False)
    ended = 0
    for document, text in enumerate(texts):
        own = segments.document == document
        raw, ends = text.encode(), np.cumsum(segments.num_bytes[own])
        befores = [raw[max(end - 30, 0) : end].decode(errors="ignore") for end in ends[cuts[own]].tolist()]
        ended += sum(bool(ENDED.search(before)) for before in befores)
    return int(cuts.sum()), ended / cuts.sum(), float(np.diff(segments.offsets)[cuts].mean()) / length


def wrapped_book(sentences: int, *, seed: int, quotes: str = '""') -> str:
    """Paragraphs wrapped at 68 characters, with titles and initials, and people who speak."""
    rng = random.Random(seed)
    paragraphs = []
    for _ in range(sentences // 5):
        told = []
        for _ in range(5):
            words = " ".join(rng.choices(kinds.english(30, seed=seed).lower().replace('"', "").split(), k=9))
            words = re.sub(r"[.?!…]", ",", words).rstrip(",")
            sentence = f"{rng.choice(_NAMES)} said that {words}{rng.choice('.?!')}"
            told.append(f"{quotes[0]}{sentence}{quotes[1]}" if rng.random() < 0.3 else sentence)
        paragraphs.append(textwrap.fill(" ".join(told), 68))
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("length", [400, 512])  # these vocabularies are small: 2.5 characters are a token
@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "SentencePiece"])
@pytest.mark.parametrize("quotes", ['""', "“”"])
def test_a_wrapped_book_is_cut_behind_sentences(kind, quotes, length):
    cuts, ended, _ = judged([wrapped_book(300, seed=3, quotes=quotes)], kinds.of_kind(kind), length)
    assert cuts > 15
    assert ended == 1


def test_no_title_and_no_initial_ends_a_segment():
    text = wrapped_book(300, seed=4)
    chunks = encode_documents([text], kinds.of_kind("wordpiece")).chunks.texts
    assert len(chunks) > 20
    assert not [chunk[-30:] for chunk in chunks if re.search(r"(Mr|Mrs|Dr|St|\b[A-Z])\.$", chunk)]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "SentencePiece"])
@pytest.mark.parametrize("length", [256, 512])
def test_chinese_fills_segments_and_is_cut_behind_sentences(kind, length):
    cuts, ended, filled = judged([kinds.chinese(900, seed=5)], kinds.of_kind(kind), length)
    assert cuts > 10
    assert ended >= 0.95
    assert filled >= 0.85


def test_text_all_in_lower_case_is_cut_behind_sentences_too():
    text = kinds.english(900, seed=6).lower()
    cuts, ended, _ = judged([text], kinds.of_kind("wordpiece"), 512)
    assert cuts > 15
    assert ended == 1


def test_lists_and_tables_are_cut_at_line_breaks():
    text = "\n".join(f"item {number}, one of many, without a mark" for number in range(300))
    chunks = encode_documents([text], kinds.of_kind("wordpiece")).chunks.texts
    assert len(chunks) > 10
    assert all(chunk.endswith("without a mark") for chunk in chunks)


@functools.cache
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(str(path))


def _real(shared: Path, corpus: str, vocabulary: str) -> tuple[list[Path], Tokenizer]:
    files = sorted((shared / "data" / "corpora" / corpus).glob("*.gz"))
    path = shared / "data" / "vocab" / vocabulary
    if not files or not path.exists():
        pytest.skip(f"{corpus} or {vocabulary} is not in shared/data")
    return files, _tokenizer(path)


def _cleaned(texts: list[str]) -> list[str]:
    kept = [clean(text, CleanConfig()) for text in texts]
    return [one[0] for one in kept if not isinstance(one, str)]


@pytest.mark.parametrize("length", [256, 512])
def test_novels_are_cut_behind_sentences(shared, length):
    files, tokenizer = _real(shared, "english_novels", "bert-base-uncased-vocab.txt")
    texts = [gzip.decompress(file.read_bytes()).decode(errors="replace")[:120_000] for file in files[::8]]
    cuts, ended, _ = judged(_cleaned(texts), tokenizer, length)
    assert cuts > 200
    assert ended >= 0.9


@pytest.mark.parametrize("length", [256, 512])
def test_books_of_gutenberg_are_cut_behind_sentences(shared, length):
    files, tokenizer = _real(shared, "gutenberg_raw", "bert-base-uncased-vocab.txt")
    found = [one for file in list_inputs([Source("gutenberg", str(files[0].parent))]) for one in read_documents(file)]
    texts = [one.text for one in found if isinstance(one, Document)]
    cuts, ended, _ = judged(_cleaned([text[:120_000] for text in texts]), tokenizer, length)
    assert cuts > 200
    assert ended >= 0.9


@pytest.mark.parametrize("length", [256, 512])
def test_chinese_articles_are_cut_behind_sentences_and_fill_their_segments(shared, length):
    files, tokenizer = _real(shared, "zhwiki_wikiextractor/AB", "bert-base-chinese-vocab.txt")
    articles = gzip.decompress(files[0].read_bytes()).decode().split("</doc>\n")[:400]
    texts = _cleaned([article.partition(">\n")[2] for article in articles])
    cuts, ended, filled = judged(texts, tokenizer, length)
    assert cuts > 100
    assert ended >= 0.95
    assert filled >= 0.85
