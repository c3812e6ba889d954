"""Rows of tables: every kind of file gives the same rows, and a damaged one costs no other."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import DataError
from pipelines.questions.rows import BadRow, Row, as_text, check_bad, read_rows

TABLE = [{"text": "one, two", "label": "yes"}, {"text": 'a "quoted" word', "label": "no"}]


def write(folder, kind: str) -> str:
    place = folder / f"rows.{kind}"
    if kind == "csv":
        place.write_text('text,label\n"one, two",yes\n"a ""quoted"" word",no\n')
    elif kind == "tsv.gz":
        place.write_bytes(gzip.compress(b'text\tlabel\none, two\tyes\na "quoted" word\tno\n'))
    elif kind == "jsonl":
        place.write_text("\n".join(map(json.dumps, TABLE)))  # no line end behind the last
    else:
        pq.write_table(pa.Table.from_pylist(TABLE), place)
    return str(place)


@pytest.mark.parametrize(("kind", "first"), [("csv", 2), ("tsv.gz", 2), ("jsonl", 1), ("parquet", 1)])
def test_every_kind_gives_the_same_rows(tmp_path, kind, first):
    url = write(tmp_path, kind)
    assert list(read_rows(url)) == [Row(url, first, TABLE[0]), Row(url, first + 1, TABLE[1])]


def test_a_file_without_a_header_gets_names(tmp_path):
    (tmp_path / "a.tsv").write_text("bad\t0\r\ngood\t1\r\n")
    rows = list(read_rows(str(tmp_path / "a.tsv"), columns=["text", "label"]))
    assert [row.fields for row in rows] == [{"text": "bad", "label": "0"}, {"text": "good", "label": "1"}]
    assert rows[1].place == f"{tmp_path}/a.tsv:2"


def test_a_field_of_several_lines_is_one_row(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",x\nthree,y\n')
    assert [(row.line, row.fields["text"]) for row in read_rows(str(tmp_path / "a.csv"))] == [
        (2, "one\ntwo"),
        (4, "three"),
    ]


def test_a_damaged_row_costs_no_other(tmp_path):
    csv, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text("text,label\na\nb,1\n")
    lines.write_text('{"text": "a"\n[1]\n{"text": "b", "n": 3}\n')
    assert list(read_rows(str(csv))) == [
        BadRow(str(csv), 2, "1 fields instead of 2 (text, label)"),
        Row(str(csv), 3, {"text": "b", "label": "1"}),
    ]
    first, second, third = read_rows(str(lines))
    assert (first.line, first.reason[:15]) == (1, "malformed JSON:")
    assert second == BadRow(str(lines), 2, "expected a JSON object, got list")
    assert third == Row(str(lines), 3, {"text": "b", "n": "3"})


def test_a_stray_quote_costs_its_own_line(tmp_path):
    """It would make a field of all lines behind it: up to the next quote, or to the end of the file."""
    csv = tmp_path / "a.csv"
    csv.write_text('text,label\none,1\n"stray,1\ntwo,2\n"three",3\n"stray at the end,1\nfour,4\nfive,5\n')
    found = [(row.line, row.fields["text"] if isinstance(row, Row) else row.reason) for row in read_rows(str(csv))]
    assert found == [
        (2, "one"),
        (3, "malformed CSV: ',' expected after '\"'"),
        *((4, "two"), (5, "three")),
        (6, "malformed CSV: unexpected end of data"),
        *((7, "four"), (8, "five")),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_lines_end_as_they_do_on_any_machine(tmp_path, kind, end):
    mark, table = {"csv": ",", "tsv": "\t"}[kind], tmp_path / f"a.{kind}"
    lines = [f"\ufefftext{mark}label", f"größe{mark}x", "", f"b{mark}y", ""]
    table.write_bytes(end.join(lines).encode())
    assert list(read_rows(str(table))) == [
        Row(str(table), 2, {"text": "größe", "label": "x"}),
        Row(str(table), 4, {"text": "b", "label": "y"}),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, ""), (True, "true"), (3, "3"), (2.0, "2"), (0.5, "0.5"), (float("nan"), "")),
        *(("NA", "NA"), (["a"], '["a"]'), (b"x", "x"), ("\ud83d\ude00", "\N{GRINNING FACE}")),
    ],
)
def test_values_become_text(value, text):
    assert as_text(value) == text


def test_files_that_are_no_tables_or_break_off_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is not a table that can be read"):
        list(read_rows(str(tmp_path / "a.txt")))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"a,b\n" * 1000)[:-20])
    with pytest.raises(DataError, match=r"a\.csv\.gz breaks off"):
        list(read_rows(str(tmp_path / "a.csv.gz")))
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="two columns named 'a'"):
        list(read_rows(str(tmp_path / "twice.csv")))


@pytest.mark.parametrize(
    ("reason", "count", "setting", "told"),
    [
        ("no field 'text', but body", 4, "task.max_bad", "--task.text=<the column that holds it>"),
        ("no field 'text', but body", 4, "max_bad", "--text=<the column that holds it>"),
        ("no field 'premise', but body", 4, "task.max_bad", "give a table with this column, or change the setting or"),
        ("the source is empty", 4, "task.max_bad", "mend them, or give another file"),
        ("no field 'text', but body", 1, "task.max_bad", "mend them, or allow more: --task.max_bad=0.26"),
        (
            *("the label 'sad' is not one of the task's: happy, angry", 2, "task.max_bad"),
            "mend them, give this label a word in task.words, or allow more: --task.max_bad=0.51",
        ),
    ],
)
def test_advice_about_rows_follows_what_they_lack(reason, count, setting, told):
    with pytest.raises(DataError) as refused:
        check_bad([f"a.csv:2: {reason}"] * count, 4, limit=0.01, of="a.csv", setting=setting)
    assert refused.value.message == f"{count} of 4 rows of a.csv cannot be asked"
    assert refused.value.try_ is not None
    assert refused.value.try_.startswith(told)
