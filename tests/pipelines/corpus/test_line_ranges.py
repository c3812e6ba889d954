"""A file read in ranges is the file: every line once, at its place, whatever its bytes and wherever it is cut."""

import io
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus import line_ranges
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import InputFile, Source, estimated_bytes, group_inputs, list_inputs
from pipelines.document import Document, Rejected

CONTENT = st.lists(
    st.sampled_from([b"\n", b"\r\n", b" ", b"a", b'{"text": "b"}\n', b"\n\n\n", b"x" * 30, "\u00e9\u4e2d".encode()])
    | st.binary(max_size=12)
).map(b"".join)


def whole_and_parts(file: InputFile, edges: list[int]) -> tuple[list, list]:
    """Records of a file, and of its ranges between some edges."""
    bounds = itertools.pairwise([0, *sorted(edges), None])
    parts = [replace(file, start=start, stop=stop) for start, stop in bounds if start != stop]
    return list(read_documents(file)), [record for part in parts for record in read_documents(part)]


def found(records: list[Document | Rejected]) -> list[Document | Rejected]:
    """Without the word that there is nothing, which a first range of blank lines says too; and without lost bytes, as
    blank lines behind a malformed one may belong to the next range.
    """
    known = [r for r in records if not (isinstance(r, Rejected) and r.reason == "no_documents")]
    return [replace(r, lost=0) if isinstance(r, Rejected) else r for r in known]


@given(data=CONTENT, edges=st.lists(st.integers(1, 200), unique=True, max_size=12))
@pytest.mark.parametrize("reader", ["jsonl", "text"])
def test_the_records_of_all_ranges_are_those_of_the_file(reader, data, edges, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"ranges-{reader}.txt"
    path.write_bytes(data)
    options = {"per": "line"} if reader == "text" else {}
    file = InputFile(0, "s", reader, options, str(path), path.name, len(data), "")
    whole, parts = whole_and_parts(file, edges)
    assert found(parts) == found(whole)
    for records in (whole, parts):
        assert sum(r.lost or 0 for r in records if isinstance(r, Rejected)) <= len(data)
    assert whole
    assert parts


@given(data=CONTENT, edges=st.lists(st.integers(1, 200), unique=True, max_size=12))
def test_ranges_tile_a_file(data, edges):
    owned = []
    for start, stop in itertools.pairwise([0, *sorted(edges), None]):
        first, chunks = line_ranges.owned_lines(io.BytesIO(data), start, stop)
        lines = b"".join(chunks)
        if lines:
            assert data[first : first + len(lines)] == lines
            assert first == 0 or data[first - 1 : first] == b"\n"
        owned.append(lines)
    assert b"".join(owned) == data


@given(size=st.integers(0, 10**12), unit=st.integers(10**6, 10**9))
def test_bounds_tile_a_size_in_parts_of_about_a_unit(size, unit):
    bounds = line_ranges.bounds(size, unit)
    assert bounds[0][0] == 0
    assert bounds[-1][1] is None
    sizes = [(size if stop is None else stop) - start for start, stop in bounds]
    assert sum(sizes) == size
    assert [stop for _, stop in bounds[:-1]] == [start for start, _ in bounds[1:]]
    if len(bounds) > 1:
        assert all(0.6 * unit < part < 1.5 * unit for part in sizes)
    else:
        assert size <= 1.5 * unit


def test_only_large_plain_files_of_lines_are_cut():
    def file(path: str, reader: str, size: int, **options) -> InputFile:
        return InputFile(0, "s", reader, options, path, path, size, "")

    files = [
        file("a.jsonl", "jsonl", 50),
        file("b.jsonl", "jsonl", 420),
        file("c.jsonl.gz", "jsonl", 420),
        file("d.txt", "text", 420),
        file("e.txt", "text", 220, per="line"),
        file("f.jsonl", "jsonl", 30),
        file("g.jsonl", "jsonl", 30),
    ]
    units = [[(f.path, f.start, f.stop) for f in unit] for unit in group_inputs(files, 100)]
    assert units == [
        [("a.jsonl", 0, None)],
        *([("b.jsonl", start, start + 105)] for start in (0, 105, 210)),
        [("b.jsonl", 315, None)],
        [("c.jsonl.gz", 0, None)],
        [("d.txt", 0, None)],
        [("e.txt", 0, 110)],
        [("e.txt", 110, None)],
        [("f.jsonl", 0, None), ("g.jsonl", 0, None)],
    ]
    assert [estimated_bytes(f) for f in (files[1], replace(files[1], start=315), files[2])] == [420, 105, 1260]


def test_a_line_longer_than_ranges_belongs_to_one(tmp_path):
    lines = [b"short", b"long " * 400_000, b"end"]
    (tmp_path / "f.txt").write_bytes(b"\n".join(lines))
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt"), options={"per": "line"})])
    units = group_inputs([file], 100_000)
    per_unit = [list(read_documents(part)) for (part,) in units]
    assert len(per_unit) == 20
    assert [len(records) for records in per_unit] == [2, *[0] * 18, 1]
    assert [record for records in per_unit for record in records] == list(read_documents(file))


def test_ranges_of_a_file_of_another_encoding_say_so_once(tmp_path):
    (tmp_path / "f.txt").write_bytes(("line of text\n" * 1000).encode("utf-16"))
    (file,) = list_inputs([Source("text", str(tmp_path / "f.txt"), options={"per": "line"})])
    parts = [part for (part,) in group_inputs([file], 2000)]
    assert len(parts) == 13
    assert [r.reason for part in parts for r in read_documents(part)] == ["binary_file"]
