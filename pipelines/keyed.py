"""Keyed randomness: every draw is a hash of (key, counter), so it depends on what is drawn, never on where or when.

A `numpy` generator object per segment would cost more than all its draws together; hashing is vectorised over segments.
`scramble` is the splitmix64 finaliser (Steele, Lea and Flood, OOPSLA 2014).
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
MASK64 = (1 << 64) - 1


def scramble(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 whose output bits all depend on all input bits. Any shape."""
    x = x ^ (x >> np.uint64(30))
    x *= _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x


def fold(*values: int | np.ndarray) -> np.ndarray:
    """One uint64 key [N] out of integers and uint64 arrays [N], in order: fold(a, b) differs from fold(b, a)."""
    key: int | np.ndarray = 0
    for value in values:
        if isinstance(value, int | np.integer) and isinstance(key, int):  # ten times as fast as an array of one
            key = _scramble_int(_scramble_int(key + int(_GOLDEN)) + int(value))
            continue
        part = np.atleast_1d(np.asarray(value)).astype(np.uint64)
        start = np.uint64(_scramble_int(key + int(_GOLDEN))) if isinstance(key, int) else scramble(key + _GOLDEN)
        key = scramble(start + part)
    return np.array([key], np.uint64) if isinstance(key, int) else key


def bits(keys: np.ndarray, count: int, *, stream: int) -> np.ndarray:
    """Uniform uint64 [N, count]. Column j depends on (key, stream, j) alone, whatever the count."""
    counters = (np.arange(count, dtype=np.uint64) + np.uint64((stream << 32) + 1)) * _GOLDEN
    return scramble(keys[:, None] + counters[None, :])


def below(random: np.ndarray, limit: np.ndarray | int) -> np.ndarray:
    """int64 in [0, limit) from uint64 draws of the same shape; limit up to 2**31 (bias below limit / 2**32)."""
    return (((random >> np.uint64(32)) * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def uniform(random: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) from uint64 draws."""
    return (random >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(random: np.ndarray) -> np.ndarray:
    """A random permutation of each row [N, K]: column indices in the order of their draws.

    The column is packed into the low 16 bits and values are sorted, so that ties and the sort's algorithm (which
    differs between processors) cannot change the result.
    """
    columns = random.shape[1]
    assert columns <= 1 << 16
    packed = (random & ~np.uint64(0xFFFF)) | np.arange(columns, dtype=np.uint64)
    packed.sort(axis=1)
    return (packed & np.uint64(0xFFFF)).astype(np.int64)


def _scramble_int(x: int) -> int:
    """`scramble` of one integer, taken modulo 2**64."""
    x &= MASK64
    x = ((x ^ (x >> 30)) * int(_FIRST)) & MASK64
    x = ((x ^ (x >> 27)) * int(_SECOND)) & MASK64
    return x ^ (x >> 31)
