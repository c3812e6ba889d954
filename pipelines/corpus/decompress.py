"""Compressed files as streams of their text: .gz .bz2 .xz .zst. They end where a file breaks off or expands too much.

Memory: about 2 MB, and the window of the format: at most 128 MB for zstd (its library's limit), 256 MB for xz.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

CODECS = (".gz", ".bz2", ".xz", ".zst")

_CHUNK = 1 << 18
_MOST_OUTPUT = 1 << 20  # of one step: 256 KiB of bzip2 can hold gigabytes
# xz -9 needs 65 MB to decompress; archives may ask for 1.5 GB and more, on every core at once.
_XZ_MEMORY = 256 << 20
# Prose shrinks to a third or a fifth, logs to a fiftieth. A thousand times is not text: gzip's best is 1,032, on zeros.
# The first 64 MB are not limited, since a small file of few different lines does no harm.
_MOST_RATIO, _FREE_OUTPUT = 1000, 64 << 20


class TextStream(io.BufferedReader):
    """The decompressed bytes of a file. Where its data breaks off, the stream ends instead of raising.

    origin: offset of the first byte in the decompressed file. failure: (reason, detail) after the end, if it broke off.
    """

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None], *, origin: int = 0):
        super().__init__(_ChunkStream(chunks, close), buffer_size=_CHUNK)
        self.origin = origin

    @property
    def failure(self) -> tuple[str, str] | None:
        return cast(_ChunkStream, self.raw).failure


def codec_of(path: str) -> str | None:
    """The ending of a compressed file's name, or None."""
    return next((suffix for suffix in CODECS if path.lower().endswith(suffix)), None)


def without_codec(path: str) -> str:
    """The file's name without the ending of its compression."""
    suffix = codec_of(path)
    return path[: -len(suffix)] if suffix else path


def decompressed(raw: BinaryIO, codec: str | None) -> Iterator[bytes]:
    """The text of a file in chunks of up to 1 MiB. Raises EOFError if it is cut off, Swollen if it expands too much."""
    if codec is None:
        while chunk := raw.read(_CHUNK):
            yield chunk
        return
    size = 0
    for chunk in _zstd(raw) if codec == ".zst" else _members(raw, _DECOMPRESSORS[codec]):
        size += len(chunk)
        if size > max(_FREE_OUTPUT, _MOST_RATIO * raw.tell()):
            raise Swollen(
                f"{raw.tell():,} bytes hold more than {size:,}: over {_MOST_RATIO:,} times as much is not text"
            )
        yield chunk


class Swollen(Exception):
    """The decompressed data is so much larger than the file that it cannot be text."""


class _Gzip:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self):
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        text = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = len(text) < max_length and not self._inner.unconsumed_tail
        return text

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": _Gzip,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY),
}


def _members(raw: BinaryIO, make: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress one member after another (pigz, bgzip and `cat a.gz b.gz` write several)."""
    decompressor = None
    while data := raw.read(_CHUNK):
        while data:
            if decompressor is None or decompressor.eof:
                data = data.lstrip(b"\0")  # padding between and after members
                if not data:
                    break
                decompressor = make()
            yield decompressor.decompress(data, _MOST_OUTPUT)
            while not (decompressor.eof or decompressor.needs_input):
                yield decompressor.decompress(b"", _MOST_OUTPUT)
            data = decompressor.unused_data if decompressor.eof else b""
    if decompressor is not None and not decompressor.eof:
        raise EOFError("the compressed data ends before its end mark")


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


class _ChunkStream(io.RawIOBase):
    """An iterator of chunks as a raw stream. What comes before a break stays readable; then `failure` says why."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]):
        self.failure: tuple[str, str] | None = None
        self._chunks, self._close, self._rest = chunks, close, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def readall(self) -> bytes:
        first, self._rest = bytes(self._rest), memoryview(b"")
        return b"".join([first, *iter(self._next, b"")])

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()

    def _next(self) -> bytes:
        if self.failure:
            return b""
        try:
            return next((chunk for chunk in self._chunks if chunk), b"")
        except EOFError as error:
            self.failure = ("truncated_archive", str(error))
        except Swollen as error:
            self.failure = ("compression_ratio", str(error))
        except FileNotFoundError as error:
            self.failure = ("vanished", f"it disappeared while it was read: {error}")
        except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
            cut_off = "truncated" in str(error).lower()  # pyarrow has no exception type of its own for this
            self.failure = ("truncated_archive" if cut_off else "unreadable", f"{type(error).__name__}: {error}")
        return b""
