"""Listing and reading: deterministic, and no file or record is lost without a reason."""

import bz2
import gzip
import lzma
import os
import zipfile
from functools import partial

import pyarrow as pa
import pytest
from helpers.small import clean_unit

from infra import storage
from infra.errors import DataError, UserError
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.reading import open_input, read_documents
from pipelines.corpus.sources import InputFile, Source, group_inputs, list_inputs, local_places
from pipelines.document import Document, Rejected

LINES = b"".join(b"document number %d has some text\n" % i for i in range(20_000))


def compress(suffix: str, data: bytes) -> bytes:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": partial(lzma.compress, preset=0), ".zst": zstd}
    return pack[suffix](data)


def zstd(data: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


def write(folder, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def read_one(folder, name: str, data: bytes, reader: str = "text", **options) -> list[Document | Rejected]:
    write(folder, {name: data})
    (file,) = list_inputs([Source(reader, str(folder / name), options=options)])
    return list(read_documents(file))


def test_listing_is_sorted_filtered_and_named(tmp_path):
    write(tmp_path, {"c/b.txt": b"1", "c/a b%20é.TXT.gz": gzip.compress(b"2"), "c/x/c.md": b"3", "c/d.pdf": b"4"})
    files = list_inputs([Source("text", str(tmp_path / "c")), Source("text", str(tmp_path / "c/d.pdf"), name="other")])
    assert [(f.source_index, f.source, f.path, f.size) for f in files] == [
        (0, "c", "a b%20é.TXT.gz", 21),
        (0, "c", "b.txt", 1),
        (0, "c", "x/c.md", 1),
        (1, "other", "d.pdf", 1),  # a file named by itself is read whatever its suffix
    ]
    assert [list(read_documents(f)) for f in files] == [[Document(t, 0)] for t in "2134"]


def test_listing_errors_say_what_is_wrong(tmp_path):
    write(tmp_path, {"c/d.pdf": b"4"})
    with pytest.raises(DataError, match="nowhere"):
        list_inputs([Source("text", str(tmp_path / "nowhere"))])
    with pytest.raises(DataError) as error:
        list_inputs([Source("text", str(tmp_path / "c"))])
    assert "*.txt" in str(error.value)
    assert ".zst" in str(error.value)
    with pytest.raises(UserError, match="named 'c'"):
        list_inputs([Source("text", str(tmp_path / "c")), Source("text", str(tmp_path / "b" / "c"))])
    with pytest.raises(UserError, match="no url"):
        list_inputs([Source("text")])
    with pytest.raises(UserError, match="did you mean 'jsonl'") as error:
        list_inputs([Source("json", str(tmp_path))])
    assert "wikiextractor" in str(error.value)
    with pytest.raises(UserError, match="pr"):
        list_inputs([Source("text", str(tmp_path / "c/d.pdf"), options={"pr": "line"})])
    with pytest.raises(UserError, match="no options"):
        list_inputs([Source("wikiextractor", str(tmp_path / "c"), options={"field": "x"})])


def test_a_reader_may_be_any_importable_module(tmp_path, monkeypatch):
    write(tmp_path, {"my_readers/__init__.py": b"", "in.dat": b"\0\1"})
    code = "SUFFIXES = None\nBINARY = True\ndef read(stream, *, path, options):\n    raise OSError(path)\n    yield\n"
    write(tmp_path, {"my_readers/broken.py": code.encode(), "my_readers/empty.py": b""})
    monkeypatch.syspath_prepend(str(tmp_path))
    (file,) = list_inputs([Source("my_readers.broken", str(tmp_path / "in.dat"))])
    assert list(read_documents(file)) == [Rejected(0, "reader_error", "OSError: in.dat", 2)]
    for name, what in (("my_readers.empty", "does not define `read`"), ("my_readers.gone", "cannot import")):
        with pytest.raises(UserError, match=what):
            list_inputs([Source(name, str(tmp_path / "in.dat"))])


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_read_as_plain_ones(suffix, tmp_path):
    plain = read_one(tmp_path, "plain.txt", LINES, per="line")
    assert len(plain) == 20_000
    half = len(LINES) // 2
    packed = compress(suffix, LINES)
    assert read_one(tmp_path, f"one.txt{suffix}", packed, per="line") == plain
    two_members = compress(suffix, LINES[:half]) + compress(suffix, LINES[half:])
    assert read_one(tmp_path, f"two.txt{suffix}", two_members, per="line") == plain
    (file,) = list_inputs([Source("text", str(tmp_path / f"one.txt{suffix}"))])
    with open_input(file) as stream:
        assert stream.read() == LINES


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_archive_keeps_what_came_before(suffix, tmp_path):
    data = os.urandom(600_000).hex().encode()
    lines = b"".join(data[i : i + 99] + b"\n" for i in range(0, len(data), 99))
    whole = read_one(tmp_path, "whole.txt", lines, per="line")
    packed = compress(suffix, lines)
    *kept, last = read_one(tmp_path, f"cut.txt{suffix}", packed[: len(packed) * 9 // 10], per="line")
    assert kept == whole[: len(kept)]
    assert len(kept) > 1000
    assert isinstance(last, Rejected)
    assert (last.reason, last.offset) == ("truncated_archive", whole[len(kept)].offset)


def test_a_file_is_never_lost_silently(tmp_path):
    cases = {
        "empty.txt": (b"", "empty_file"),
        "empty.txt.gz": (gzip.compress(b""), "empty_file"),
        "not.txt.gz": (b"no gzip at all", "unreadable"),
        "binary.txt": (b"\x7fELF\0\0", "binary_file"),
        "utf16.txt": ("text".encode("utf-16"), "binary_file"),
        "gbk.txt": ("我们在北京学习中文。".encode("gbk"), "binary_file"),
        "latin.txt": ("Grüße aus Köln".encode("latin-1"), "not_utf8"),
    }
    for name, (data, reason) in cases.items():
        records = read_one(tmp_path, name, data)
        assert [getattr(r, "reason", r) for r in records] == [reason], name
    assert [r.reason for r in read_one(tmp_path, "blank.txt", b"\n \n", per="line")] == ["no_documents"]
    folder = InputFile(0, "s", "text", {}, str(tmp_path), "x.txt", 5, "1")
    assert [r.reason for r in read_documents(folder)] == ["unreadable"]


def test_groups_are_in_order_of_about_one_size_and_of_one_source():
    def file(source: int, path: str, size: int) -> InputFile:
        return InputFile(source, str(source), "text", {}, path, path, size, "")

    files = [
        file(0, "a.txt", 50),
        file(0, "b.txt.gz", 20),
        file(0, "c.txt", 60),
        file(0, "d.txt", 500),
        file(1, "e.txt", 1),
    ]
    units = group_inputs(files, 110)
    assert [[f.path for f in unit] for unit in units] == [["a.txt", "b.txt.gz"], ["c.txt"], ["d.txt"], ["e.txt"]]
    assert group_inputs([], 110) == []


NAMES = ["a b.txt", "100%.txt", "50%20x.txt", "größe 中文.txt", "two\nlines.txt", "br[a]c*et?.txt", "#h;&'\".txt"]


def test_any_name_is_listed_read_and_written_down(tmp_path):
    folder = os.fsencode(tmp_path / "c")
    os.mkdir(folder)
    names = [*(name.encode() for name in NAMES), b"latin \xe9\xff.txt", b"\xff"]  # bytes that are no UTF-8
    for name in names:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"text of " + name.hex().encode())
    source = Source("text", str(tmp_path / "c"))
    files = list_inputs([source])
    assert sorted(os.fsencode(f.path) for f in files) == sorted(n for n in names if n.endswith(b".txt"))
    for file in files:
        assert list(read_documents(file)) == [Document(f"text of {os.fsencode(file.path).hex()}", 0)]
        assert list_inputs([Source("text", file.url)])[0].url == file.url  # named by itself, wildcards and all
    unit = clean_unit(files, CleanConfig(min_characters=1), str(tmp_path / "out" / "unit"))
    assert unit.read == unit.kept == len(files)


def test_a_source_whose_own_name_is_no_utf_8_has_a_name(tmp_path):
    folder = os.fsencode(tmp_path) + b"/corpus \xe9"
    os.mkdir(folder)
    with open(folder + b"/a.txt", "wb") as file:
        file.write(b"some text")
    files = list_inputs([Source("text", os.fsdecode(folder))])
    assert [f.source for f in files] == ["corpus \ufffd"]
    unit = clean_unit(files, CleanConfig(min_characters=1), str(tmp_path / "unit"))
    assert unit.source == "corpus \ufffd"


def test_links_that_lead_nowhere_are_told(tmp_path):
    write(tmp_path, {"c/a.txt": b"a", "c/d/b.txt": b"b"})
    (tmp_path / "c" / "circle.txt").symlink_to("circle.txt")
    (tmp_path / "c" / "d" / "up").symlink_to(tmp_path / "c")
    (tmp_path / "c" / "nowhere.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "c" / "other.txt").symlink_to(tmp_path / "c" / "a.txt")
    files = list_inputs([Source("text", str(tmp_path / "c"))])
    read = {f.path: [getattr(r, "reason", None) or r.text for r in read_documents(f)] for f in files}
    assert read == {
        "a.txt": ["a"],
        "circle.txt": ["unreadable"],
        "d/b.txt": ["b"],
        "nowhere.txt": ["vanished"],
        "other.txt": ["a"],
    }


@pytest.mark.parametrize("gone", ["d/e/c.txt", "d/e", "z.jsonl"])
def test_a_local_file_that_goes_before_it_is_read_ends_the_reading(tmp_path, gone):
    """Its documents would be lost; a range of it too, or one inside an archive."""
    write(tmp_path, {"c/d/e/c.txt": b"c", "c/z.jsonl": b'{"text": "z"}\n' * 9})
    sources = [Source("text", str(tmp_path / "c"), name="t"), Source("jsonl", str(tmp_path / "c"), name="j")]
    files = list_inputs(sources)
    units = group_inputs(files, 50)
    assert [len(list(read_documents(part))) for (part,) in units] == [1, 3, 3, 3]
    if (tmp_path / "c" / gone).is_dir():
        os.remove(tmp_path / "c" / gone / "c.txt")
        os.rmdir(tmp_path / "c" / gone)
    else:
        os.remove(tmp_path / "c" / gone)
    hit = [part for (part,) in units if part.path.startswith(gone)]
    assert len(hit) == (3 if gone == "z.jsonl" else 1)
    for part in hit:
        with pytest.raises(DataError) as caught:
            list(read_documents(part))
        assert caught.value.message == f"{part.url} disappeared after it was listed"
        assert str(caught.value.why).startswith(f"{os.uname().nodename} does not have this file")
        assert ("nor its folder" in str(caught.value.why)) == (gone == "d/e")
        assert caught.value.exit_code == 3


def test_an_archive_that_goes_before_its_files_are_read_ends_the_reading(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.txt", "text")
    (file,) = list_inputs([Source("text", f"zip://in/*.txt::{tmp_path}/a.zip")])
    assert list(read_documents(file)) == [Document("text", 0)]
    os.remove(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.zip disappeared after it was listed"):
        list(read_documents(file))


def test_a_file_of_another_machine_that_goes_is_a_record_with_a_reason():
    """Somebody may replace files of a bucket; `prepare.py` warns of them with their number."""
    storage.write_bytes("memory://gone/a.txt", b"a")
    (file,) = list_inputs([Source("text", "memory://gone/a.txt")])
    assert list(read_documents(file)) == [Document("a", 0)]
    storage.remove_tree("memory://gone")
    (rejected,) = read_documents(file)
    assert isinstance(rejected, Rejected)
    assert (rejected.offset, rejected.reason) == (0, "vanished")


def test_local_places_are_those_that_every_machine_that_reads_must_see(tmp_path):
    write(tmp_path, {f"c/{number}.txt": b"a" for number in range(9)})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.txt", "text")
        archive.writestr("in/b.txt", "text")
    storage.write_bytes("memory://there/a.txt", b"a")
    urls = [str(tmp_path / "c"), f"zip://in/*.txt::{tmp_path}/a.zip", "memory://there", f"file://{tmp_path}/c/[23].txt"]
    sources = [Source("text", url, name=str(number)) for number, url in enumerate(urls)]
    assert local_places(list_inputs(sources)) == {
        0: [f"{tmp_path}/c/0.txt", f"{tmp_path}/c/4.txt", f"{tmp_path}/c/8.txt"],
        1: [f"{tmp_path}/a.zip"],
        3: [f"{tmp_path}/c/2.txt", f"{tmp_path}/c/3.txt"],
    }


def test_a_disk_that_fails_while_a_file_is_read_is_told(tmp_path):
    """/proc/self/mem opens, and reading its first page is an input/output error."""
    file = InputFile(0, "s", "text", {"per": "line"}, "/proc/self/mem", "mem", 0, "")
    (rejected,) = read_documents(file)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unreadable"
    assert "Input/output error" in rejected.detail


SEEKING = """
from pipelines.document import Document
SUFFIXES = (".cards",)
SEEKABLE = True
def read(stream, *, path, options):
    stream.seek(-5, 2)
    yield Document(stream.read().decode(), stream.seek(0))
    yield Document(stream.read(5).decode(), 0)
"""


def test_a_reader_may_seek_in_a_plain_file(tmp_path, monkeypatch):
    write(tmp_path, {"my_seeking_reader/cards.py": SEEKING.encode(), "my_seeking_reader/__init__.py": b""})
    write(tmp_path, {"c/a.cards": b"first\0\0\0last.", "c/b.cards.gz": gzip.compress(b"first last."), "c/e.cards": b""})
    monkeypatch.syspath_prepend(str(tmp_path))
    plain, packed, empty = list_inputs([Source("my_seeking_reader.cards", str(tmp_path / "c"))])
    assert list(read_documents(plain)) == [Document("last.", 0), Document("first", 0)]
    (rejected,) = read_documents(packed)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unreadable"
    assert "seeks in its file, which .gz does not allow: decompress it" in rejected.detail
    assert [r.reason for r in read_documents(empty)] == ["empty_file"]
