"""csv and parquet: whole documents of small tables, and what damaged ones become."""

import csv as python_csv
import io
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import UserError
from pipelines import csv_records, readers
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected
from pipelines.readers import csv, parquet


def rows(data: bytes, path: str = "a.csv", **options) -> list[Document | Rejected]:
    return list(csv.read(io.BufferedReader(io.BytesIO(data)), path=path, options=csv.Options(**options)))


def test_csv_with_everything():
    lines = [
        b"\xef\xbb\xbfid,text\r\n",
        b'1,"a, ""b""\r\nsecond line\n\nfourth"\r\n',
        b"\r\n",
        b"2,plain\r\n",
        b"3\r\n",
        b"4,five,six\r\n",
        b'5,"quoted" and more\r\n',
        b"6,nul\0\r\n",
        b"7,\xff\xfe\xfd\r\n",
        b"8," + b"x" * 200 + b"\xff\r\n",
        b"9,\r\n",
        '10,"中文"\r\n'.encode(),
        b'11,"never closed\r\n',
    ]
    at = [sum(map(len, lines[:i])) for i in range(len(lines))]
    assert rows(b"".join(lines)) == [
        Document('a, "b"\nsecond line\n\nfourth', at[1]),
        Document("plain", at[3]),
        Rejected(at[4], "ragged_row", "1 fields, the header has 2"),
        Rejected(at[5], "ragged_row", "3 fields, the header has 2"),
        Rejected(at[6], "malformed_csv", "',' expected after '\"'"),
        Rejected(at[7], "malformed_csv", "it has NUL characters"),
        Rejected(at[8], "not_utf8", "more than 1 % of the characters of b'\\xff\\xfe\\xfd'... do not decode"),
        Document("x" * 200 + "\ufffd", at[9], {"repaired": "utf8"}),
        Document("", at[10]),
        Document("中文", at[11]),
        Rejected(at[12], "malformed_csv", "unexpected end of data"),
    ]


def test_csv_stray_quotes_cost_their_lines_only():
    lines = [b"id,text\n", b'1,"never closed\n', b"2,b\n", b'3,"c\nc"\n', b'4,"d" e\n', b'5,"f\n', b"6,g\n"]
    at = [sum(map(len, lines[:i])) for i in range(len(lines))]
    expected = "',' expected after '\"'"
    assert rows(b"".join(lines)) == [
        Rejected(at[1], "malformed_csv", expected),
        Document("b", at[2]),
        Document("c\nc", at[3]),
        Rejected(at[4], "malformed_csv", expected),
        Rejected(at[5], "malformed_csv", "unexpected end of data"),
        Document("g", at[6]),
    ]


def test_csv_of_stray_quotes_is_not_read_once_per_line():
    line = b'x",y,"z\n'  # each line opens a quote that the next one closes, and opens another
    found = rows(b"id,text\n" + line * 1000)
    assert 2 <= len(found) <= 20  # one for each reading
    assert {row.reason for row in found} == {"malformed_csv"}


def test_csv_delimiters():
    assert rows(b"a\ttext\nb, c\td\n", "x.tsv") == rows(b"a\ttext\nb, c\td\n", "x.TSV.gz") == [Document("d", 7)]
    assert rows(b"text;a\nb, c;d\n", delimiter=";") == [Document("b, c", 7)]
    for wrong in ("", "ab", '"', "\n"):
        with pytest.raises(UserError, match="cannot separate fields"):
            readers.options("csv", {"delimiter": wrong})


ESCAPED = [
    b"id,text\n",
    rb'''1,"She said \"go\", and \\ went"''' + b"\n",
    rb'''2,"C:\\dir\\"''' + b"\n",
    rb"3,C:\new a\,b" + b"\n",
    b'4,"two\nlines \\""\n',
    b'5,"doubled "" too"\n',
    b"6,plain\\\nnext\n",
]


def test_csv_with_an_escape_keeps_every_other_use_of_that_character():
    at = [sum(map(len, ESCAPED[:i])) for i in range(len(ESCAPED))]
    assert rows(b"".join(ESCAPED), escape="\\") == [
        Document(r'She said "go", and \ went', at[1]),
        Document("C:\\dir\\", at[2]),
        Document(r"C:\new a,b", at[3]),
        Document('two\nlines "', at[4]),
        Document('doubled " too', at[5]),
        Document("plain\nnext", at[6]),
    ]
    assert rows(b'text|n\nit^"s ^^ a^|b|1\n', delimiter="|", escape="^") == [Document('it"s ^ a|b', 7)]
    with pytest.raises(UserError, match="cannot escape quotes"):
        readers.options("csv", {"escape": "ab"})


def test_csv_without_its_escape_names_the_option():
    first = rows(b"".join(ESCAPED))[0]
    expected = "',' expected after '\"'; quotes have a backslash before them: options: {escape: '\\'} reads such files"
    assert first == Rejected(8, "malformed_csv", expected)


def test_csv_without_the_field_is_told_once_for_a_file():
    assert rows(b"a,b,c\n1,2,3\n4,5,6\n", field="body") == [Rejected(0, "missing_field", "no 'body', but a, b, c")]
    assert rows(b'"a\n') == [Rejected(0, "malformed_csv", "unexpected end of data")]


def test_csv_reads_fields_of_any_length(monkeypatch):
    long = "x" * 3_000_000
    assert rows(f'text\n{long}\n"{long}"\n'.encode()) == [Document(long, 5), Document(long, 6 + len(long))]
    monkeypatch.setattr(csv_records, "_MAX_FIELD", 1000)
    before = python_csv.field_size_limit(1000)
    try:
        assert [getattr(r, "reason", r) for r in rows(f"text\n{long}\nb\n".encode())][-2:] == [
            "malformed_csv",
            Document("b", 6 + len(long)),
        ]
    finally:
        python_csv.field_size_limit(before)


def table(columns: dict, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue().to_pybytes()


def records(data: bytes, field: str = "text") -> list[Document | Rejected]:
    options = parquet.Options(field=field)
    return list(parquet.read(io.BufferedReader(io.BytesIO(data)), path="a.parquet", options=options))


KINDS = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("kind", [*KINDS, pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_parquet(kind):
    texts = ["a\r\nb", None, "", "中文", *[f"row {i}" for i in range(4, 300)]]
    data = table({"id": list(range(300)), "text": pa.array(texts).cast(kind)}, row_group_size=50)
    found = records(data)
    assert found[:4] == [
        Document("a\nb", 0),
        Rejected(1, "not_text", "'text' is null"),
        Document("", 2),
        Document("中文", 3),
    ]
    assert found[4:] == [Document(f"row {i}", i) for i in range(4, 300)]


def test_parquet_without_a_column_of_strings_is_told_once():
    data = table({"id": [1, 2], "b.c": ["x", "y"], "d": [{"text": "z"}] * 2, "lines": [["a"], ["b", "c"]]})
    assert records(data) == [Rejected(0, "missing_field", "no 'text', but id, b.c, d.text, lines", None)]
    assert records(data, "id") == [Rejected(0, "not_text", "'id': expected strings, got int64", None)]
    assert records(data, "d") == [Rejected(0, "not_text", "'d': expected strings, got struct<text: string>", None)]
    wrong = Rejected(0, "not_text", "'lines': expected strings, got list<element: string>", None)
    assert records(data, "lines") == [wrong]
    assert records(data, "b.c") == [Document("x", 0), Document("y", 1)]


def test_parquet_fields_inside_others_have_names_with_dots():
    page = pa.struct([("body", pa.struct([("raw", pa.binary()), ("html", pa.string())])), ("a.b", pa.string())])
    rows = [{"body": {"raw": b"one", "html": "h"}, "a.b": "dots"}, None, {"body": None, "a.b": None}]
    data = table({"page": pa.array(rows, page), "page.x": ["top"] * 3, "n": [1, 2, 3]})
    null = [Rejected(row, "not_text", "'page.body.raw' is null") for row in (1, 2)]
    assert records(data, "page.body.raw") == [Document("one", 0), *null]
    assert records(data, "page.a.b")[0] == Document("dots", 0)
    assert records(data, "page.x") == [Document("top", row) for row in range(3)]
    missing = "no 'page.raw', but page.body.raw, page.body.html, page.a.b, page.x, n"
    assert records(data, "page.raw") == [Rejected(0, "missing_field", missing, None)]


def test_parquet_strings_that_are_not_utf8():
    binary = pa.array([b"x" * 200 + b"\xff", b"\xff\xfe", b"a"], pa.binary())
    strings = pa.StringArray.from_buffers(3, *binary.buffers()[1:])
    assert [getattr(r, "reason", getattr(r, "meta", None)) for r in records(table({"text": strings}))] == [
        {"repaired": "utf8"},
        "not_utf8",
        None,
    ]


def test_damaged_parquet_is_unreadable_wherever_it_is_damaged():
    data = table({"text": [f"{i} {'word ' * (i % 50)}" for i in range(2000)]}, row_group_size=500, compression="zstd")
    whole = records(data)
    assert len(whole) == 2000
    damages = [data[:place] for place in range(0, len(data), 997)]
    damages += [data[:place] + bytes(64) + data[place + 64 :] for place in range(0, len(data) - 64, 499)]
    broken = 0
    for damaged in damages:
        found = records(damaged)
        assert found
        if found[-1] != whole[-1]:
            broken += 1
            assert {r.reason for r in found if isinstance(r, Rejected)} <= {"unreadable", "missing_field", "not_utf8"}
    assert broken > len(damages) // 2


def test_parquet_holds_some_rows_of_a_row_group_at_a_time():
    rows = 8000
    data = table({"text": [f"{i:010d}" * 1000 for i in range(rows)]}, use_dictionary=False, compression="none")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    stream = parquet.read(io.BytesIO(data), path="a", options=parquet.Options())
    held = [pa.total_allocated_bytes() - before for _ in stream]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held) == rows
    assert len(data) > 80e6  # in one row group
    assert max(held) < 20e6
    assert peak < 20e6


def test_files_of_both_by_way_of_a_source(tmp_path):
    (tmp_path / "a.parquet").write_bytes(table({"text": ["p"]}))
    (tmp_path / "b.csv").write_bytes(b"text\nc\n")
    for reader, text in (("parquet", "p"), ("csv", "c")):
        (file,) = list_inputs([Source(reader, str(tmp_path))])
        assert [d.text for d in read_documents(file)] == [text]
