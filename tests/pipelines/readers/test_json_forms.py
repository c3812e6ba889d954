"""JSON in the layouts in which it comes: lines, arrays, objects over several lines or next to each other."""

import io
import json
import tracemalloc

import pytest

from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, group_inputs, list_inputs
from pipelines.document import Document, Rejected
from pipelines.readers import _json_values, cirrus, jsonl

ROWS = [{"id": number, "text": f'Größe {number}: "{{[中文]}}, \\'} for number in range(40)]


def run(data: bytes, field: str = "text") -> list[Document | Rejected]:
    stream = io.BufferedReader(io.BytesIO(data))
    return list(jsonl.read(stream, path="f", options=jsonl.Options(field=field)))


def kinds(data: bytes) -> list[str]:
    """The texts, and reasons in parentheses."""
    return [f"({one.reason})" if isinstance(one, Rejected) else one.text for one in run(data)]


FORMS = {
    "an array over several lines": json.dumps(ROWS, indent=2),
    "an array in one line": json.dumps(ROWS, ensure_ascii=False),
    "an array, a line each": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "an array, a line each with the comma first": "[" + "\n,".join(map(json.dumps, ROWS)) + "\n]\n",
    "arrays, a line each": "\n".join(json.dumps([one, one])[:-1] + "]" for one in ROWS[::2]),
    "arrays one after another": json.dumps(ROWS[:20], indent=1) + json.dumps(ROWS[20:], indent=1),
    "an array of arrays": json.dumps([ROWS[:20], ROWS[20:]]),
    "objects without anything between": "".join(map(json.dumps, ROWS)),
    "objects over several lines": "\n".join(json.dumps(one, indent=4) for one in ROWS),
    "objects over several lines, with CRLF": "\r\n".join(
        json.dumps(one, indent=4).replace("\n", "\r\n") for one in ROWS
    ),
    "two objects a line": "\n".join(
        json.dumps(a) + " " + json.dumps(b) for a, b in zip(ROWS[::2], ROWS[1::2], strict=True)
    ),
    "lines with commas": ",\n".join(map(json.dumps, ROWS)),
    "a byte order mark": "\ufeff" + json.dumps(ROWS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_all_layouts_hold_the_same_documents(form, chunk, monkeypatch):
    monkeypatch.setattr(_json_values, "_READ_BYTES", chunk)
    data = FORMS[form].encode()
    texts = [one["text"] for one in ROWS]
    found = run(data)
    if form == "arrays, a line each":
        texts = [text for text in texts[::2] for _ in range(2)]
    assert [one.text for one in found if isinstance(one, Document)] == texts
    decoder = json.JSONDecoder()
    at_offsets = [decoder.raw_decode(data[one.offset :].decode())[0]["text"] for one in found]
    assert at_offsets == texts


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # what is damaged costs itself
        (b'[{"text": "a"},\n {"text": "b},\n {"text": "c"},\n {"text": "d"}]', ["a", "(malformed_json)", "c", "d"]),
        (b'[\n  {"text": "a", "x": [\n    {"text": 1\n  },\n  {"text": "c"}\n]', ["(malformed_json)", "c"]),
        (b'[{"text": "a"}, {"text": 01}, {"text": "c"}]', ["a", "(malformed_json)", "c"]),
        (b'{"text": "a"}x{"text": "c"}\n{"te\n{"text": "d"}', ["a", "(malformed_json)", "c", "(malformed_json)", "d"]),
        (b'[1, "x", null, tru, {"text": "a"}]', [*["(not_an_object)"] * 3, "(malformed_json)", "a"]),
        (b'[{"text": "\xff"}, {"text": "' + b"x" * 99 + b'\xff"}]', ["(not_utf8)", "x" * 99 + "\ufffd"]),
        (b"[" + b'{"text":' * 5000, ["(malformed_json)"]),
        # what ends before its end mark may have lost anything
        (b'[{"text": "a"},\n {"text": "b', ["a", "(truncated_json)"]),
        (b'[{"text": "a"},', ["a", "(truncated_json)"]),
        (b'{\n "text": "a"\n}\n{\n "te', ["a", "(truncated_json)"]),
        (b'{"text": "a"}\n{"text": "b', ["a", "(malformed_json)"]),  # of lines, only this one
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_damage_costs_the_damaged_values(data, expected, chunk, monkeypatch):
    monkeypatch.setattr(_json_values, "_READ_BYTES", chunk)
    assert kinds(data) == expected


def test_an_array_that_breaks_off_counts_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(FORMS["an array over several lines"].encode()[:-300])
    (file,) = list_inputs([Source("jsonl", str(tmp_path / "a.json"))])
    last = list(read_documents(file))[-1]
    assert isinstance(last, Rejected)
    assert (last.reason, last.lost) == ("truncated_json", file.size)


@pytest.mark.parametrize("form", FORMS)
def test_a_large_file_is_cut_into_ranges_only_where_a_line_is_an_object(form, tmp_path):
    data = (FORMS[form] + "\n").encode() * 3
    (tmp_path / "a.json").write_bytes(data)
    (file,) = list_inputs([Source("jsonl", str(tmp_path / "a.json"))])
    parts = [part for (part,) in group_inputs([file], 1000)]
    assert (len(parts) > 1) == (form == "lines with commas")
    assert [one for part in parts for one in read_documents(part)] == list(read_documents(file))


def test_memory_holds_a_value_and_not_the_array():
    data = b"[" + b", ".join(b'{"text": "%d %s"}' % (n, b"word " * 2000) for n in range(2000)) + b"]"
    stream = io.BufferedReader(io.BytesIO(data))
    tracemalloc.start()
    count = sum(isinstance(one, Document) for one in jsonl.read(stream, path="f", options=jsonl.Options()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert len(data) > 20e6
    assert peak < 2e6


def test_a_field_inside_others_has_a_name_with_dots():
    lines = [
        {"doc": {"body": {"text": "in"}}},
        {"doc.body.text": "by name", "doc": {"body": {"text": "in"}}},
        {"doc": {"body": "text"}, "id": 1, "tags": {}},
        {"doc": {"body": {"text": ["list"]}}},
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    at = [sum(len(json.dumps(line)) + 1 for line in lines[:number]) for number in range(4)]
    assert run(data, "doc.body.text") == [
        Document("in", 0),
        Document("by name", at[1]),
        Rejected(at[2], "missing_field", "no 'doc.body.text', but doc.body, id, tags"),
        Rejected(at[3], "not_text", "'doc.body.text': expected a string, got list"),
    ]
    outside = run(data, "doc")[0]
    assert outside == Rejected(0, "not_text", "'doc': expected a string, got dict, which has doc.body")


def test_pages_of_a_search_index_come_without_the_lines_that_name_them():
    lines = [
        {"index": {"_type": "_doc", "_id": "12"}},
        {"title": "Anarchism", "namespace": 0, "text": "It is a philosophy.", "language": "en", "version": 7},
        {"index": {"_type": "_doc", "_id": "13"}},
        {"title": "Talk:Anarchism", "namespace": 1, "text": "Is it?"},
        {"index": {"_type": "_doc", "_id": "14"}},
        {"title": "Albedo", "namespace": 0, "source_text": "{{x}}"},
    ]
    at = [sum(len(json.dumps(line)) + 1 for line in lines[:number]) for number in range(6)]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    stream = io.BufferedReader(io.BytesIO(data))
    meta = {"version": "7", "title": "Anarchism", "language": "en"}
    assert list(cirrus.read(stream, path="f", options=cirrus.Options())) == [
        Document("Anarchism\n\nIt is a philosophy.", at[1], meta),
        Rejected(at[3], "namespace", "1"),
        Rejected(at[5], "missing_field", "no 'text', but namespace, source_text, title"),
    ]
