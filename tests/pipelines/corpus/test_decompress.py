"""Archives that hold more than any text would: they end with a word about it, and cost no memory."""

import bz2
import gzip
import lzma
import resource

import pyarrow as pa
import pytest

from pipelines.corpus.reading import open_input, read_documents
from pipelines.corpus.sources import InputFile, Source, list_inputs
from pipelines.document import Document, Rejected

FIRST = b"".join(b"line %d says something\n" % i for i in range(100))


def bomb(suffix: str) -> bytes:
    """Some lines, then 200 MiB of one letter, in about 200 KB or far less."""
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(FIRST)
            for _ in range(200):
                stream.write(b"a" * (1 << 20))
        return sink.getvalue().to_pybytes()
    pack = {".gz": lambda d: gzip.compress(d, 9), ".bz2": bz2.compress, ".xz": lambda d: lzma.compress(d, preset=0)}
    member = pack[suffix](b"a" * (20 << 20))
    return pack[suffix](FIRST) + member * 10


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_bomb_is_left_where_it_swells(suffix, tmp_path):
    path = tmp_path / f"f.txt{suffix}"
    path.write_bytes(bomb(suffix))
    (file,) = list_inputs([Source("text", str(path), options={"per": "line"})])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    *kept, last = read_documents(file)
    assert [d.text for d in kept] == FIRST.decode().splitlines()
    assert isinstance(last, Rejected)
    assert (last.reason, last.offset) == ("compression_ratio", len(FIRST))
    assert "over 1,000 times as much" in last.detail
    # The reader holds the line of 64 MB and more that it waits to end, not the 200 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


def test_small_archives_may_shrink_as_they_like(tmp_path):
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"a line\n" * (5 << 20)))
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.gz"))])
    with open_input(file) as stream:
        assert stream.read().count(b"\n") == 5 << 20
        assert stream.failure is None


def test_one_step_of_decompression_is_bounded(tmp_path):
    """A few hundred bytes of bzip2 hold 40 MB: they come in pieces."""
    (tmp_path / "f.txt.bz2").write_bytes(bz2.compress(b"a" * (40 << 20)))
    file = InputFile(0, "s", "text", {}, str(tmp_path / "f.txt.bz2"), "f.txt.bz2", 0, "")
    with open_input(file) as stream:
        assert len(stream.raw._next()) <= 1 << 20
        assert 1 + len(stream.read()) + (1 << 20) - 1 == 40 << 20


def test_windows_of_gigabytes_are_refused(tmp_path):
    alone = bytearray(lzma.compress(FIRST, format=lzma.FORMAT_ALONE))
    alone[1:5] = (1 << 30).to_bytes(4, "little")  # the dictionary that its header asks for
    window_log_31 = b"\x28\xb5\x2f\xfd" + b"\0" + bytes([21 << 3]) + b"\x01\0\0"
    for name, data in {"f.txt.xz": bytes(alone), "f.txt.zst": window_log_31}.items():
        (tmp_path / name).write_bytes(data)
        (file,) = list_inputs([Source("text", str(tmp_path / name))])
        (record,) = read_documents(file)
        assert isinstance(record, Rejected)
        assert record.reason == "unreadable"
        assert "memory" in record.detail.lower()
    alone[1:5] = (64 << 20).to_bytes(4, "little")  # what xz -9 asks for
    (tmp_path / "f.txt.xz").write_bytes(alone)
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt.xz"))])
    assert list(read_documents(file)) == [Document(FIRST.decode(), 0)]
