"""Compressed files as streams of their text: .gz .bz2 .xz .zst. They end where a file breaks off or expands too much.

Memory: about 2 MB, and the window that the file was compressed with: at most `data.max_window` for zstd, rounded up to
a power of two, and twice that for xz.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from infra.config import Count
from infra.errors import UserError

CODECS = (".gz", ".bz2", ".xz", ".zst")
MAX_WINDOW = 1 << 27  # zstd's own limit, where none is given: files may ask for gigabytes, on every core at once

_CHUNK = 1 << 18
_STEP = 1 << 14  # stored bytes that are decompressed at once: damage costs no more than these
_MOST_OUTPUT = 1 << 20  # of one step: 16 KiB of bzip2 can hold hundreds of megabytes
# Prose shrinks to a third or a fifth, logs to a fiftieth. A thousand times is not text: gzip's best is 1,032, on zeros.
# The first 64 MB are not limited, since a small file of few different lines does no harm.
_MOST_RATIO, _FREE_OUTPUT = 1000, 64 << 20
_MOST_WINDOW = 1 << 31  # of zstd
_MAGIC = {  # what a member begins with; of a zstd frame to be skipped, the first byte varies
    ".gz": (b"\x1f\x8b",),
    ".bz2": (b"BZh",),
    ".xz": (b"\xfd7zXZ\0",),
    ".zst": (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))),
}
_HEADER = 18  # bytes of the longest header of a zstd frame


class StoredFile:
    """A file, and which of its bytes the last read took: [start, stop)."""

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self.start = self.stop = 0

    def read(self, count: int) -> bytes:
        data = self._raw.read(count)
        self.start, self.stop = self.stop, self.stop + len(data)
        return data

    def close(self) -> None:
        self._raw.close()


class TextStream(io.BufferedReader):
    """The decompressed bytes of a file. Where its data breaks off, the stream ends instead of raising.

    origin: offset of the first byte in the decompressed file. failure: (reason, detail) after the end, if it broke off.
    """

    def __init__(self, chunks: Iterator[bytes], stored: StoredFile, *, origin: int = 0):
        super().__init__(_ChunkStream(chunks, stored.close), buffer_size=_CHUNK)
        self.stored, self.origin = stored, origin

    @property
    def failure(self) -> tuple[str, str] | None:
        return cast(_ChunkStream, self.raw).failure

    @property
    def stop(self) -> int:
        """Offset behind the last byte that was decompressed so far, read or not."""
        return self.origin + cast(_ChunkStream, self.raw).size

    def stored_bytes(self, num_bytes: int) -> int:
        """About how many bytes of the file, as stored, hold so many bytes of its text: by the ratio so far. Ends the
        step that is being decompressed, whose text would otherwise be missing from the ratio.
        """
        chunks, stop = cast(_ChunkStream, self.raw), self.stored.stop
        while self.stored.stop == stop and chunks.skip():
            pass
        place = self.stored.start if self.failure else self.stored.stop  # the step that failed gave nothing
        return place * num_bytes // max(chunks.size, 1)


def text_stream(raw: BinaryIO, codec: str | None, *, max_window: int = MAX_WINDOW) -> TextStream:
    """The decompressed bytes of an open file, which closes with the stream; memory: as this module says."""
    stored = StoredFile(raw)
    return TextStream(decompressed(stored, codec, max_window=max_window), stored)


def codec_of(path: str) -> str | None:
    """The ending of a compressed file's name, or None."""
    return next((suffix for suffix in CODECS if path.lower().endswith(suffix)), None)


def without_codec(path: str) -> str:
    """The file's name without the ending of its compression."""
    suffix = codec_of(path)
    return path[: -len(suffix)] if suffix else path


def decompressed(raw: StoredFile, codec: str | None, *, max_window: int = MAX_WINDOW) -> Iterator[bytes]:
    """The text of a file in chunks of up to 1 MiB. Raises EOFError if it is cut off, Swollen if it expands too much,
    LargeWindow if it needs more memory than it may have, and what the codecs raise for damage.
    """
    if codec is None:
        while chunk := raw.read(_CHUNK):
            yield chunk
        return
    size = 0
    for chunk in _members(raw, codec, max_window):
        size += len(chunk)
        if size > max(_FREE_OUTPUT, _MOST_RATIO * raw.stop):
            raise Swollen(f"{raw.stop:,} bytes hold more than {size:,}: over {_MOST_RATIO:,} times as much is not text")
        yield chunk


class Swollen(Exception):
    """The decompressed data is so much larger than the file that it cannot be text."""


class TrailingBytes(Exception):
    """Something that is not compressed data follows the text, whose last line is complete: as gunzip, leave it out."""


class LargeWindow(Exception):
    """The file was compressed with a window that needs more memory than it may have."""


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


def _decompressors(codec: str, max_window: int) -> Callable[[], Any]:
    """What makes a decompressor of one member; all have the interface of bz2's."""
    if codec == ".xz":
        return lambda: lzma.LZMADecompressor(memlimit=2 * max_window)
    if codec == ".zst":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: max(10, (max_window - 1).bit_length())}
        return lambda: zstd.ZstdDecompressor(options=options)
    return {".gz": _Gzip, ".bz2": bz2.BZ2Decompressor}[codec]


def _members(raw: StoredFile, codec: str, max_window: int) -> Iterator[bytes]:
    """Decompress one member after another (pigz, bgzip, pzstd and `cat a.gz b.gz` write several)."""
    make = _decompressors(codec, max_window)
    decompressor, head, last = None, b"", b""
    while data := raw.read(_STEP):
        while data:
            if decompressor is None or decompressor.eof:
                data = data.lstrip(b"\0")  # padding between and after members
                if not data:
                    break
                if last == b"\n" and not any(magic.startswith(data[: len(magic)]) for magic in _MAGIC[codec]):
                    more = raw.read(_STEP)  # what goes on for long is rather a damaged member than a note at the end
                    data, raw.start = data + more, raw.stop - len(data + more)
                    if not more:
                        raise TrailingBytes(f"behind its end are bytes that are not {codec} data: {data[:20]!r}")
                decompressor, head = make(), b""
            head = (head + data)[:_HEADER] if len(head) < _HEADER else head
            try:
                text = decompressor.decompress(data, _MOST_OUTPUT)
            except Exception as error:
                if "memory" in str(error).lower():  # lzma and zstd have no exception type of its own for this
                    raise LargeWindow(_window_remedy(head, max_window)) from error
                raise
            last = text[-1:] or last
            yield text
            while not (decompressor.eof or decompressor.needs_input):
                text = decompressor.decompress(b"", _MOST_OUTPUT)
                last = text[-1:] or last
                yield text
            data = decompressor.unused_data if decompressor.eof else b""
    if decompressor is not None and not decompressor.eof:
        raise EOFError("the compressed data ends before its end mark")


def _window_remedy(head: bytes, max_window: int) -> str:
    """Which setting reads the member that begins so."""
    needed = _zstd_window(head) if head.startswith(_MAGIC[".zst"][0]) else _MOST_WINDOW
    limit = f"it needs more memory than data.max_window={Count(max_window).short} allows"
    if needed > _MOST_WINDOW:
        return f"{limit}, and than zstd can read: a window of {needed:,} bytes"
    return f"{limit}: --data.max_window={Count(needed).short} reads it, and lets each task take so many bytes"


def _zstd_window(head: bytes) -> int:
    """The window of a frame, in bytes, from the first of its bytes (RFC 8878, 3.1.1.1)."""
    descriptor, window = head[4], head[5]
    if descriptor & 0x20:  # a single segment: the window is all of its content, whose size follows the dictionary's id
        begin = 5 + (0, 1, 2, 4)[descriptor & 3]
        return int.from_bytes(head[begin : begin + (1, 2, 4, 8)[descriptor >> 6]], "little")
    base = 1 << (10 + (window >> 3))
    return base + base // 8 * (window & 7)


class _ChunkStream(io.RawIOBase):
    """An iterator of chunks as a raw stream. What comes before a break stays readable; then `failure` says why.

    size: bytes of the chunks so far.
    """

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]):
        self.failure: tuple[str, str] | None = None
        self.size = 0
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

    def skip(self) -> bool:
        """Leave out the next chunk; whether there was one."""
        return bool(self._next())

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()

    def _next(self) -> bytes:
        if self.failure:
            return b""
        try:
            chunk = next((chunk for chunk in self._chunks if chunk), b"")
        except (UserError, MemoryError):  # a server that is away, say: nothing is known of the file
            raise
        except Exception as error:
            self.failure = _failure(error)
            return b""
        self.size += len(chunk)
        return chunk


def _failure(error: Exception) -> tuple[str, str]:
    """(reason, detail) for what ends the reading of a file."""
    if isinstance(error, EOFError):
        return "truncated_archive", str(error)
    if isinstance(error, Swollen):
        return "compression_ratio", str(error)
    if isinstance(error, TrailingBytes):
        return "trailing_bytes", str(error)
    if isinstance(error, LargeWindow):
        return "unreadable", str(error)
    if isinstance(error, FileNotFoundError):
        return "vanished", f"it disappeared while it was read: {error}"
    return "unreadable", f"{type(error).__name__}: {error}"  # OSError, or the codec's own
