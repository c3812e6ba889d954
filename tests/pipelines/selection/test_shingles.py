"""Windows: one hash per run of bytes, whatever stands around it, and nothing of layout, case and punctuation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.selection import shingles
from pipelines.selection.shingles import normalise, window_hashes


def hashes_of(texts: list[bytes], width: int) -> list[list[int]]:
    """Hashes of the windows of each text."""
    found: list[list[int]] = [[] for _ in texts]
    for hashes, owners in window_hashes(texts, width):
        assert (hashes.dtype, owners.dtype) == (np.uint64, np.int32)
        for value, owner in zip(hashes.tolist(), owners.tolist(), strict=True):
            found[owner].append(value)
    return found


def windows_of(text: bytes, width: int) -> list[bytes]:
    return [text[i : i + width] for i in range(max(len(text) - width + 1, 1))] if text else []


@given(st.lists(st.text("ab7", max_size=40).map(str.encode), max_size=6), st.integers(1, 12))
def test_equal_windows_and_no_others_have_equal_hashes(texts, width):
    hashes = hashes_of(texts, width)
    windows = [windows_of(text, width) for text in texts]
    assert [len(some) for some in hashes] == [len(some) for some in windows]
    pairs = {(w, h) for of, its in zip(windows, hashes, strict=True) for w, h in zip(of, its, strict=True)}
    assert len(pairs) == len({w for w, _ in pairs}) == len({h for _, h in pairs})


@pytest.mark.parametrize("size", [-1, 0, 1, 23, 24, 25])
def test_windows_at_the_border_of_a_block_are_those_of_a_window_alone(size):
    width, block = 24, shingles._BLOCK
    data = bytes(np.random.default_rng(0).integers(97, 123, block + width - 1 + size, dtype=np.uint8))
    texts = [b"x" * 30, data[:-50], data[-50:]]
    for text, found in zip(texts, hashes_of(texts, width), strict=True):
        starts = [i for i in range(len(text) - width + 1) if i < 3 or i > len(text) - width - 80]
        assert len(found) == len(text) - width + 1
        assert [found[i] for i in starts] == [hashes_of([text[i : i + width]], width)[0][0] for i in starts]


def test_a_text_of_several_blocks_has_each_window_once():
    data = bytes(np.random.default_rng(1).integers(97, 123, 3 * shingles._BLOCK, dtype=np.uint8))
    blocks = [hashes for hashes, _ in window_hashes([data], 43)]
    assert [len(block) for block in blocks] == [shingles._BLOCK, shingles._BLOCK, shingles._BLOCK - 42]
    assert len(np.unique(np.concatenate(blocks))) == len(data) - 42


def test_short_and_empty_texts():
    assert hashes_of([], 24) == []
    none, short, longer, again = hashes_of([b"", b"short", b"shorts", b"short"], 24)
    assert none == []
    assert len(short) == len(longer) == 1
    assert short == again != longer


@pytest.mark.parametrize(
    "same",
    [
        ["It's 3 o'clock, Mr. X!", "its 3 OCLOCK mr x", "It\u2019s\t3 o\u2018clock \u2014 Mr.\u00a0X\u2026\n"],
        [
            "\u4ed6\u8bf4\uff1a\u201c\u4f60\u597d\u3002\u201d",
            "\u4ed6\u8bf4\u4f60\u597d",
            "\u4ed6\u8bf4 \u300c\u4f60\u597d\u300d\uff01",
        ],
        ["\u00abSch\u00d6n\u00bb", "sch\u00f6n", "\u201esch\u00f6n\u201c"],
    ],
)
def test_case_layout_and_punctuation_do_not_count(same):
    assert len({normalise(text) for text in same}) == 1
    assert normalise(same[0])


def test_letters_and_digits_count():
    texts = [
        "a1",
        "a2",
        "b1",
        "\u4f60",
        "\u597d",
        "\u00e4",
        "\u00f6",
        "\u0430",
        "a",
        "\uff21",
        "\uff11",
        "\u20ac5",
        "5",
    ]
    assert len({normalise(text) for text in texts}) == len(texts)
    assert normalise("Abc 12\u4f60") == b"abc12" + "\u4f60".encode()


@given(st.text(max_size=60))
def test_normalised_text_is_utf8_without_the_filler_and_stays(text):
    once = normalise(text)
    assert shingles._FILLER not in once
    assert normalise(once.decode()) == once


def test_half_a_surrogate_pair_is_no_error():
    assert normalise("a\ud83db") == b"ab"
