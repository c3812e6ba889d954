"""The lines of a byte range of a file: how one large file of lines becomes the work of many tasks.

A range owns the lines whose first byte lies in [start, stop), so ranges that tile a file own each line once:

    lines     first.....|second...................|third....|fourth..|
    ranges    |       0        |        1         |        2         |
    owned     first, second    | nothing          | third, fourth    |     2 begins where a line begins

At most the rest of a line is read beyond a range. A range inside one long line is read through without being kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 18


def bounds(size: int, unit_bytes: int) -> list[tuple[int, int | None]]:
    """(start, stop) of ranges of about unit_bytes that tile a file of `size` bytes; one range if it is not much larger.

    The last range has no stop: a file that grew since it was listed is read to its end.
    """
    if size <= 1.5 * unit_bytes:
        return [(0, None)]
    count = round(size / unit_bytes)
    edges = [size * number // count for number in range(count)]
    return list(zip(edges, [*edges[1:], None], strict=True))


def owned_lines(raw: BinaryIO, start: int, stop: int | None) -> tuple[int, Iterator[bytes]]:
    """(offset of the first line that the range owns, the bytes of its lines in chunks); no chunks if it owns no line.

    Seeks forward only: some servers send files from the beginning only.
    """
    if start == 0:
        return 0, _lines(raw, b"", 0, stop)
    # A line that begins at `start` follows a line end at start - 1.
    offset = start - 1
    raw.seek(offset)
    for chunk in _up_to(raw, offset, stop):
        end = chunk.find(b"\n") + 1
        if end and offset + end != stop:
            return offset + end, _lines(raw, chunk[end:], offset + len(chunk), stop)
        offset += len(chunk)
    return start, iter(())


def _lines(raw: BinaryIO, before: bytes, offset: int, stop: int | None) -> Iterator[bytes]:
    """`before`, which was read already, then everything from `offset` to the end of the line with the byte stop - 1."""
    last = before
    if before:
        yield before
    for chunk in _up_to(raw, offset, stop):
        yield chunk
        last = chunk
    if stop is None or last.endswith(b"\n"):
        return
    while chunk := raw.read(_CHUNK):
        end = chunk.find(b"\n") + 1
        yield chunk[:end] if end else chunk
        if end:
            return


def _up_to(raw: BinaryIO, offset: int, stop: int | None) -> Iterator[bytes]:
    """What lies before `stop`, in chunks; offset: where `raw` stands."""
    while chunk := raw.read(_CHUNK if stop is None else min(_CHUNK, stop - offset)):
        offset += len(chunk)
        yield chunk
