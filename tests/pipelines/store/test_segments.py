"""Segmenting: no character, byte or token lost or doubled, nothing too long, eos only where a document ends."""

import numpy as np
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from glm_model.tokenizer import Tokenizer
from pipelines.document import segment_ids
from pipelines.store.segments import (
    ASCII_CHUNK_CHARACTERS,
    CHUNK_CHARACTERS,
    Chunks,
    DocumentSegments,
    chunk_documents,
    encode_documents,
    segment_documents,
)

CLS, EOS = 2, 0
TEXTS = st.text(st.sampled_from("ab .!?\n。”é你 \t"), max_size=3000)


def chunks_of(
    sizes: list[list[int]], num_bytes: list[list[int]] | None = None
) -> tuple[np.ndarray, np.ndarray, Chunks]:
    """Documents whose chunks hold `sizes` tokens: the flat tokens count up from 100."""
    flat_sizes = [n for document in sizes for n in document]
    flat_bytes = [10 * n for n in flat_sizes] if num_bytes is None else [n for document in num_bytes for n in document]
    token_offsets = np.cumsum([0, *flat_sizes])
    offsets = np.cumsum([0, *map(len, sizes)])
    tokens = np.arange(100, 100 + token_offsets[-1], dtype=np.uint16)
    return tokens, token_offsets, Chunks([""] * len(flat_sizes), offsets, np.array(flat_bytes, np.int64))


def anywhere(text: str, at: int) -> bool:
    return True


def cut(sizes, *, length: int, num_bytes=None) -> DocumentSegments:
    flat, token_offsets, chunks = chunks_of(sizes, num_bytes)
    keys = np.arange(len(sizes), dtype=np.uint64)
    return segment_documents(flat, token_offsets, chunks, keys, length=length, cls=CLS, eos=EOS)


def lists(segments: DocumentSegments) -> list[list[int]]:
    return [segments.tokens[a:b].tolist() for a, b in zip(segments.offsets[:-1], segments.offsets[1:], strict=True)]


@given(TEXTS)
def test_the_chunks_of_a_text_are_the_text(text):
    chunks = chunk_documents([text, "", text], anywhere)
    a, b, c, d = chunks.offsets.tolist()
    assert "".join(chunks.texts[a:b]) == "".join(chunks.texts[c:d]) == text
    assert chunks.texts[b:c] == [""]
    assert chunks.num_bytes.tolist() == [len(chunk.encode()) for chunk in chunks.texts]
    assert max(map(len, chunks.texts)) <= 3 * ASCII_CHUNK_CHARACTERS
    assert all(chunks.texts[a:b]) or not text, "no empty chunk"


def test_short_texts_are_one_chunk():
    texts = ["a b. " * 200, "", "é b. " * 100]
    assert len(texts[0]) == 2 * ASCII_CHUNK_CHARACTERS
    assert len(texts[2]) == 2 * CHUNK_CHARACTERS
    chunks = chunk_documents(texts, anywhere)
    assert chunks.texts == texts
    assert chunks.offsets.tolist() == [0, 1, 2, 3]


def test_long_texts_are_cut_behind_sentence_ends_and_before_the_space():
    text = " ".join(f"Sentence number {i} ends here." for i in range(200))
    chunks = chunk_documents([text], anywhere).texts
    assert len(chunks) > 10
    assert all(chunk.endswith("here.") for chunk in chunks)
    assert all(chunk.startswith(" Sentence") for chunk in chunks[1:])
    assert all(ASCII_CHUNK_CHARACTERS <= len(chunk) < ASCII_CHUNK_CHARACTERS + 40 for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("word " * 99 + 'He said "No." Then. ' + "word " * 300, 'said "No."'),
        ("word " * 100 + "\nnext " + "word " * 300, "word "),
        ("你好" * 130 + "。”好" + "你好" * 300, "。”"),
        ("word" * 140 + " and " + "word " * 300, "word"),  # no sentence end: at a space
    ],
)
def test_places_to_cut(text, cut):
    assert chunk_documents([text], anywhere).texts[0].endswith(cut)


def test_a_text_without_any_place_to_cut_is_cut_all_the_same():
    chunks = chunk_documents(["x" * 4000], anywhere).texts
    assert [len(chunk) for chunk in chunks] == [1500, 1500, 1000]


def test_whole_chunks_make_segments():
    segments = cut([[3, 3, 3], [2]], length=8)
    assert lists(segments) == [
        [CLS, *range(100, 106)],
        [CLS, *range(106, 109), EOS],
        [CLS, 109, 110, EOS],
    ]
    assert segments.num_bytes.tolist() == [60, 30, 20]
    assert segments.document.tolist() == [0, 0, 1]
    assert segments.ids.tolist() == segment_ids(np.array([0, 0, 1], np.uint64), np.array([0, 1, 0])).tolist()


def test_a_chunk_longer_than_a_segment_is_cut_hard_and_its_bytes_are_shared_out():
    segments = cut([[10]], length=6, num_bytes=[[100]])
    assert lists(segments) == [[CLS, 100, 101, 102, 103], [CLS, 104, 105, 106, 107], [CLS, 108, 109, EOS]]
    assert segments.num_bytes.tolist() == [40, 40, 20]


def test_the_last_segment_keeps_a_place_for_eos():
    assert [len(s) for s in lists(cut([[6]], length=8))] == [8]  # [CLS], 6, eos
    assert [len(s) for s in lists(cut([[7]], length=8))] == [7, 3]
    assert [len(s) for s in lists(cut([[4, 3]], length=8))] == [5, 5]
    assert [len(s) for s in lists(cut([[4, 3, 2]], length=8))] == [8, 4]


def test_white_space_at_a_documents_end_gives_chunks_without_tokens():
    """A segment full to the last place before such a chunk must still leave room for eos, and no byte is lost."""
    for sizes in ([[7, 0]], [[4, 3, 0, 0]], [[0, 7, 0]]):
        segments = cut(sizes, length=8, num_bytes=[[5] * len(sizes[0])])
        assert max(map(len, lists(segments))) <= 8
        assert [t for s in lists(segments) for t in s if t >= 100] == list(range(100, 107))
        assert segments.num_bytes.sum() == 5 * len(sizes[0])


def test_a_document_without_tokens_gives_no_segment():
    segments = cut([[], [0, 0], [1], [0]], length=8)
    assert lists(segments) == [[CLS, 100, EOS]]
    assert segments.document.tolist() == [2]
    nothing = cut([[0]], length=8)
    assert (lists(nothing), nothing.ids.tolist(), nothing.offsets.tolist()) == ([], [], [0])


def test_no_documents():
    assert lists(cut([], length=8)) == []


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=8), st.integers(4, 24))
def test_every_token_and_byte_once_and_eos_at_the_end_of_each_document_alone(sizes, length):
    segments = cut(sizes, length=length)
    rows = lists(segments)
    total = sum(map(sum, sizes))
    assert [t for row in rows for t in row if t >= 100] == list(range(100, 100 + total))
    assert all(row[0] == CLS and CLS not in row[1:] for row in rows)
    assert max(map(len, rows), default=0) <= length
    assert all(any(t >= 100 for t in row) for row in rows), "every segment holds text"
    with_text = [i for i, document in enumerate(sizes) if sum(document)]
    assert sorted(set(segments.document.tolist())) == with_text
    for i in with_text:
        own = [row for row, document in zip(rows, segments.document, strict=True) if document == i]
        assert [row[-1] == EOS for row in own] == [False] * (len(own) - 1) + [True]
        assert segments.num_bytes[segments.document == i].sum() == 10 * sum(sizes[i])
    assert len(set(segments.ids.tolist())) == len(rows)


def test_segment_ids_are_those_of_document_and_piece():
    keys = np.repeat(np.arange(500, dtype=np.uint64), 20)
    pieces = np.tile(np.arange(20), 500)
    ids = segment_ids(keys, pieces)
    assert len(set(ids.tolist())) == 10_000
    assert ids[37] == segment_ids(keys[37:38], pieces[37:38])[0], "unmoved by other documents"


def segmented(tokenizer: Tokenizer, texts: list[str], length: int) -> DocumentSegments:
    chunks, flat, token_offsets, _ = encode_documents(texts, tokenizer)
    keys = np.arange(len(texts), dtype=np.uint64)
    special = tokenizer.special
    return segment_documents(flat, token_offsets, chunks, keys, length=length, cls=special.cls, eos=special.eos)


def test_documents_of_the_tiny_tokenizer(tiny_tokenizer):
    segments = segmented(tiny_tokenizer, ["the cat sat.", "你好。", "", "\n"], 32)
    the, cat, sat, stop = (small.PIECES.index(piece) for piece in ("the", "cat", "sat", "."))
    ni, hao, kuten = (small.PIECES.index(piece) for piece in "你好。")
    assert lists(segments) == [[CLS, the, cat, sat, stop, EOS], [CLS, ni, hao, kuten, EOS]]
    assert segments.num_bytes.tolist() == [12, 9]  # UTF-8
    assert segments.document.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "gpt2-vocab.json"])
def test_chunks_are_tokenised_like_the_whole_text(shared, name):
    """Cuts stand where the tokenizer cuts anyway: before white space, behind punctuation."""
    path = shared / "data" / "vocab" / name
    if not path.exists():
        pytest.skip(f"{name} is not in shared/data/vocab")
    tokenizer = Tokenizer.load(str(path))
    text = "\n\n".join(
        " ".join(f'Dr. No said "{a} and {b}." It was 3.5 (or so).' for b in ("this", "that", "nothing"))
        for a in range(40)
    )
    segments = segmented(tokenizer, [text], 128)
    content = segments.tokens[~np.isin(segments.tokens, [tokenizer.special.cls, tokenizer.special.eos])]
    assert content.tolist() == tokenizer.encode(text).tolist()
    assert segments.num_bytes.sum() == len(text.encode())
    sizes = np.diff(segments.offsets)
    assert sizes.max() <= 128
    assert np.median(sizes) > 64, "segments are filled by the chunk"
