"""Hashes of all short windows of texts, in any language: near duplicates and contamination are found by them.

A window is a run of bytes of a text in lower case without punctuation and white space: 24 bytes are some five English
words or eight Chinese characters, and neither layout nor case nor the form of quotation marks counts. All windows of
many texts are hashed at once, by differences of prefix sums:

    bytes     t[0]       t[1]       t[2]       t[3]        table: a random uint64 per value of a byte
    terms     t[0] b^0   t[1] b^1   t[2] b^2   t[3] b^3    modulo 2**64
    sums   0     s1         s2         s3         s4
    window of t[1], t[2]:  (s3 - s1) b^-1  =  t[1] + t[2] b,  wherever in the text these two stand
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from pipelines import keyed

_DELETED = bytes(c for c in range(128) if not chr(c).isalnum())
# In UTF-8: no-break space, guillemets, middle dot, inverted marks; U+2000 to 206F; U+3000 to 301F; full-width forms.
_PUNCTUATION = re.compile(
    rb"\xc2[\xa0\xa1\xab\xb7\xbb\xbf]|\xe2(?:\x80.|\x81[\x80-\xaf])|\xe3\x80[\x80-\x9f]|"
    rb"\xef\xbc[\x81-\x8f\x9a-\xa0\xbb-\xbf]|\xef\xbd[\x80\x9b-\xa5]",
    re.DOTALL,
)
_FILLER = b"\0"  # in no normalised text
_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses modulo 2**64
_BLOCK = 1 << 16  # windows at a time: their arrays stay in the cache


def normalise(text: str) -> bytes:
    """The bytes that windows are made of."""
    data = text.lower().encode(errors="replace").translate(None, _DELETED)
    return data if text.isascii() else _PUNCTUATION.sub(b"", data)


def window_hashes(texts: list[bytes], width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hash, number of its text) of every window of `width` bytes of normalised texts, in their order, as blocks of
    uint64 and int32. A shorter text is one window, an empty one has none.
    """
    sizes = [max(len(text), width) if text else 0 for text in texts]
    data = np.frombuffer(b"".join([text.ljust(width, _FILLER) for text in texts if text]), np.uint8)
    owners = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
    powers, inverses = _powers()
    for first in range(0, len(data) - width + 1, _BLOCK):
        block = _table()[data[first : first + _BLOCK + width - 1]]
        sums = np.zeros(len(block) + 1, np.uint64)
        np.cumsum(block * powers[: len(block)], out=sums[1:])
        windows = sums[width:] - sums[:-width]
        windows *= inverses[: len(windows)]
        starts, ends = (owners[first + shift : first + shift + len(windows)] for shift in (0, width - 1))
        within = starts == ends  # a window that begins in one text and ends in the next is none
        yield keyed.scramble(windows[within]), starts[within]


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """A random uint64 per byte value: without it texts of few letters would collide modulo 2**64."""
    return keyed.scramble(np.arange(1, 257, dtype=np.uint64) * np.uint64(_BASE))


@lru_cache(maxsize=1)
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse, from the 0th on, modulo 2**64."""
    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        factors = np.full(_BLOCK + (1 << 10), base, np.uint64)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]
