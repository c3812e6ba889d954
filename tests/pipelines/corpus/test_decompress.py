"""Archives that hold far more than any text would, or ask for far more memory: they end with a word about it.

What a few kilobytes can swell to, gigabytes, is stood for by small limits and archives of some hundred kilobytes.
"""

import bz2
import gzip
import io
import lzma

import pyarrow as pa
import pytest

from pipelines.corpus import decompress
from pipelines.corpus.reading import open_input, read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected

FIRST = b"".join(b"line %d says something\n" % i for i in range(100))
LETTERS = 400_000


def swelling(suffix: str) -> bytes:
    """Some lines, then 400 kB of one letter, in a hundredth of that or less."""
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(FIRST)
            stream.write(b"a" * LETTERS)
        return sink.getvalue().to_pybytes()
    pack = {".gz": lambda d: gzip.compress(d, 9), ".bz2": bz2.compress, ".xz": lambda d: lzma.compress(d, preset=0)}
    return pack[suffix](FIRST) + pack[suffix](b"a" * LETTERS)


@pytest.fixture
def small_limits(monkeypatch):
    """20 times the size of an archive, or 50 kB; 4 kB at a time."""
    monkeypatch.setattr(decompress, "_FREE_OUTPUT", 50_000)
    monkeypatch.setattr(decompress, "_MOST_RATIO", 20)
    monkeypatch.setattr(decompress, "_MOST_OUTPUT", 4096)
    monkeypatch.setattr(decompress, "_CHUNK", 4096)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_an_archive_is_left_where_it_swells(suffix, tmp_path, small_limits):
    path = tmp_path / f"f.txt{suffix}"
    path.write_bytes(swelling(suffix))
    (file,) = list_inputs([Source("text", str(path), options={"per": "line"})])
    *kept, last = read_documents(file)
    assert [d.text for d in kept] == FIRST.decode().splitlines()
    assert isinstance(last, Rejected)
    assert (last.reason, last.offset) == ("compression_ratio", len(FIRST))
    assert "over 20 times as much" in last.detail


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_it_is_left_before_it_fills_the_memory(suffix, small_limits):
    archive = swelling(suffix)
    chunks: list[int] = []
    with pytest.raises(decompress.Swollen):
        chunks.extend(map(len, decompress.decompressed(decompress.StoredFile(io.BytesIO(archive)), suffix)))
    assert max(chunks) <= 4096
    assert sum(chunks) <= max(50_000, 20 * len(archive)) < LETTERS


def test_small_archives_may_shrink_as_they_like(tmp_path, small_limits):
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"a line\n" * 7000))
    assert (tmp_path / "f.txt.gz").stat().st_size < 7000 * 7 / 100
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.gz"))])
    with open_input(file) as stream:
        assert stream.read().count(b"\n") == 7000
        assert stream.failure is None


@pytest.mark.parametrize(
    ("name", "data", "largest", "enough"),
    [
        ("f.txt.zst", 1 << 28, 1 << 27, 1 << 28),
        ("f.txt.zst", (1 << 20) + (1 << 17), 1 << 20, (1 << 20) + (1 << 17)),  # windows are not only powers of two
        ("f.txt.zst", 1 << 31, 1 << 30, 2_000_000_000),  # --data.max_window=2G
        ("f.txt.xz", 3 << 20, 1 << 20, 1 << 21),
    ],
)
def test_a_window_is_read_if_the_memory_is_allowed_and_refused_with_the_remedy(name, data, largest, enough, tmp_path):
    """A header of some bytes may ask for gigabytes, on every core at once."""
    content = xz(dictionary=data) if name.endswith(".xz") else zstd_frame(data)
    (tmp_path / name).write_bytes(content)
    (file,) = list_inputs([Source("text", str(tmp_path / name))])
    (record,) = read_documents(file, max_window=largest)
    needed = 1 << 31 if name.endswith(".xz") else data
    assert record == Rejected(
        0,
        "unreadable",
        f"it needs more memory than data.max_window={largest} allows: --data.max_window={needed} reads it, and lets "
        "each task take so many bytes",
        len(content),
    )
    assert list(read_documents(file, max_window=needed)) == [Document(FIRST.decode(), 0)]
    assert list(read_documents(file, max_window=enough)) == [Document(FIRST.decode(), 0)]


def test_the_window_of_a_later_frame_counts_too(tmp_path):
    """Also where a step ends within its header, and behind a skippable frame."""
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    (tmp_path / "f.txt.zst").write_bytes(zstd_frame(1 << 20) + skippable + zstd_frame(1 << 24))
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.zst"), options={"per": "line"})])
    assert len(list(read_documents(file, max_window=1 << 24))) == 200
    *kept, last = read_documents(file, max_window=1 << 20)
    assert len(kept) == 99
    assert isinstance(last, Rejected)
    assert "data.max_window=16777216 reads it" in last.detail


def zstd_frame(window: int) -> bytes:
    """FIRST as one stored block of a frame that declares this window (RFC 8878)."""
    exponent = window.bit_length() - 1
    mantissa = (window - (1 << exponent)) * 8 >> exponent
    block = (len(FIRST) << 3 | 1).to_bytes(3, "little") + FIRST
    return b"\x28\xb5\x2f\xfd" + bytes([0, exponent - 10 << 3 | mantissa]) + block


def test_what_xz_itself_asks_for_at_most_is_read(tmp_path):
    (tmp_path / "f.txt.xz").write_bytes(xz(dictionary=64 << 20))  # as `xz -9`
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.xz"))])
    assert list(read_documents(file)) == [Document(FIRST.decode(), 0)]


def xz(*, dictionary: int) -> bytes:
    """FIRST, behind a header that asks for so many bytes of memory."""
    packed = bytearray(lzma.compress(FIRST, format=lzma.FORMAT_ALONE))
    packed[1:5] = dictionary.to_bytes(4, "little")
    return bytes(packed)
