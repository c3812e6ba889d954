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
        chunks.extend(map(len, decompress.decompressed(io.BytesIO(archive), suffix)))
    assert max(chunks) <= 4096
    assert sum(chunks) <= max(50_000, 20 * len(archive)) < LETTERS


def test_small_archives_may_shrink_as_they_like(tmp_path, small_limits):
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"a line\n" * 7000))
    assert (tmp_path / "f.txt.gz").stat().st_size < 7000 * 7 / 100
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.gz"))])
    with open_input(file) as stream:
        assert stream.read().count(b"\n") == 7000
        assert stream.failure is None


def test_windows_that_are_too_large_are_refused(tmp_path, monkeypatch):
    """A header of some bytes may ask for gigabytes, on every core at once.

    xz gets a small limit here. That of zstd is its library's: a window of 256 MB, the smallest above it, is refused.
    """
    monkeypatch.setattr(decompress, "_XZ_MEMORY", 1 << 20)
    window_log_28 = b"\x28\xb5\x2f\xfd" + b"\0" + bytes([18 << 3]) + b"\x01\0\0"
    for name, data in {"f.txt.xz": xz(dictionary=4 << 20), "f.txt.zst": window_log_28}.items():
        (tmp_path / name).write_bytes(data)
        (file,) = list_inputs([Source("text", str(tmp_path / name))])
        (record,) = read_documents(file)
        assert isinstance(record, Rejected)
        assert record.reason == "unreadable"
        assert "memory" in record.detail.lower()
    (tmp_path / "f.txt.xz").write_bytes(xz(dictionary=1 << 18))
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.xz"))])
    assert list(read_documents(file)) == [Document(FIRST.decode(), 0)]


def test_what_xz_itself_asks_for_at_most_is_read(tmp_path):
    (tmp_path / "f.txt.xz").write_bytes(xz(dictionary=64 << 20))  # as `xz -9`
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.xz"))])
    assert list(read_documents(file)) == [Document(FIRST.decode(), 0)]


def xz(*, dictionary: int) -> bytes:
    """FIRST, behind a header that asks for so many bytes of memory."""
    packed = bytearray(lzma.compress(FIRST, format=lzma.FORMAT_ALONE))
    packed[1:5] = dictionary.to_bytes(4, "little")
    return bytes(packed)
