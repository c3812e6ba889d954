"""Every reader keeps the contract; each one's documents in full for small inputs."""

import gzip
import inspect
import io
import json
import sysconfig
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from infra.errors import UserError
from pipelines import plugins, readers
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected
from pipelines.readers import jsonl, pydocs, text, wikiextractor

CORPORA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "corpora"
NAMES = plugins.names(readers)


def run(reader, data: bytes, options=None, path: str = "f") -> list[Document | Rejected]:
    return list(reader.read(io.BufferedReader(io.BytesIO(data)), path=path, options=options))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    reader = readers.find(name)
    assert reader.SUFFIXES is None or all(s == s.lstrip("*") for s in reader.SUFFIXES)
    kinds = {p.name: p.kind for p in inspect.signature(reader.read).parameters.values()}
    assert list(kinds) == ["stream", "path", "options"]
    assert kinds["path"] == kinds["options"] == inspect.Parameter.KEYWORD_ONLY
    assert not hasattr(reader, "Options") or is_dataclass(reader.Options)
    assert readers.options(name, {}) == (reader.Options() if hasattr(reader, "Options") else None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data", [b"\n", b"{", b"}\n{]\n\n[1]\n", b"<doc id=", b"</doc>\n\n</doc>\n", b"def f(:\n", b"\xff\xfe\n"]
)
def test_no_input_makes_a_reader_fail(name, data):
    records = run(readers.find(name), data, readers.options(name, {}))
    assert all(isinstance(r, Document | Rejected) and 0 <= r.offset <= len(data) for r in records)


def test_text_per_file_line_and_paragraph():
    data = "\ufeffone\r\ntwo\n \nthr\u00e9\n\n\nfour".encode()
    assert run(text, data, text.Options()) == [Document("one\ntwo\n \nthr\u00e9\n\n\nfour", 0)]
    assert run(text, data, text.Options(per="line")) == [
        *(Document("one", 0), Document("two", 8), Document("thr\u00e9", 14), Document("four", 22)),
    ]
    assert run(text, data, text.Options(per="paragraph")) == [
        *(Document("one\ntwo", 0), Document("thr\u00e9", 14), Document("four", 22)),
    ]


def test_jsonl():
    lines = [b'{"text": "a\\r\\nb"}', b"", b'{"text": 3}', b"[1]", b'{"tex', b'{"body": "x"}', b'{"text": "\\ud83d!"}']
    offsets = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    records = run(jsonl, b"\n".join(lines), jsonl.Options())
    assert [(r.offset, getattr(r, "reason", None)) for r in records] == [
        (0, None),
        (offsets[2], "not_text"),
        (offsets[3], "not_an_object"),
        (offsets[4], "malformed_json"),
        (offsets[5], "missing_field"),
        (offsets[6], None),
    ]
    assert records[0] == Document("a\nb", 0)
    assert records[-1] == Document("\ud83d!", offsets[6])


def test_jsonl_without_the_field_names_the_fields_that_are_there():
    assert run(jsonl, b'{"text": "a", "id": 1}\n{}\n', jsonl.Options(field="txt")) == [
        Rejected(0, "missing_field", "no 'txt', but id, text"),
        Rejected(23, "missing_field", "no 'txt', but nothing"),
    ]


WIKI = """<doc id="7" url="?curid=7" title="A &amp; "B" > C">
A &amp; B

It is &lt;5 &gt; 3 &amp;para; ?a=1&para=2 &amp;lt;

</doc>
<doc id="8" url="u" title="Empty">
</doc>
junk
<doc id="9" url="u" title="中">
中

文。

</doc>"""


def test_wikiextractor_blocks():
    at = [WIKI.encode().index(mark) for mark in (b'<doc id="8"', b"junk", b'<doc id="9"')]
    junk = WIKI.encode()[at[1] :].removesuffix(b"\n</doc>")
    assert run(wikiextractor, WIKI.encode()) == [
        Document(
            "A & B\n\nIt is <5 > 3 &para; ?a=1&para=2 &lt;", 0, {"id": "7", "url": "?curid=7", "title": 'A & "B" > C'}
        ),
        Document("", at[0], {"id": "8", "url": "u", "title": "Empty"}),
        Rejected(at[1], "outside_document", repr(junk[:80]) + " is in no <doc> block"),
        Document("中\n\n文。", at[2], {"id": "9", "url": "u", "title": "中"}),
    ]


@pytest.mark.parametrize(
    ("header", "meta"),
    [
        ('id="7" revid="99" url="u?a=1&amp;b" title="T"', {"id": "7", "revid": "99", "url": "u?a=1&b", "title": "T"}),
        ('title="A "b" c > d" url="u" id="7"', {"title": 'A "b" c > d', "url": "u", "id": "7"}),
        (
            'id="7" url="u" title="T" language="en" revision="5"',
            {"id": "7", "url": "u", "title": "T", "language": "en", "revision": "5"},
        ),
        ('id="7"', {"id": "7"}),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_wikiextractor_headers_have_their_attributes_in_any_order(header, meta, line_end):
    blocks = [f"<doc {header}>", "T", "", "Text.", "</doc>", ""]
    data = line_end.join(blocks * 2).encode()
    assert run(wikiextractor, data) == [
        Document("T\n\nText.", 0, meta),
        Document("T\n\nText.", data.rindex(b"<doc "), meta),
    ]


def test_wikiextractor_without_any_header_names_the_reader_that_reads_it():
    assert run(wikiextractor, b"Title\n\nText of an article.\n\n\nTitle\n\nText.\n") == [
        Rejected(0, "no_header", "no <doc id=...> in it: the reader 'text' reads articles without headers")
    ]
    (record,) = run(wikiextractor, b'<doc url="u" title="T">\nT\n\nText.\n</doc>\n')
    assert record.reason == "bad_header"


def test_wikiextractor_without_an_end_is_told():
    assert [getattr(r, "reason", r.offset) for r in run(wikiextractor, WIKI.encode()[:-8])][-1] == "unterminated_block"


def test_wikiextractor_does_not_depend_on_how_the_stream_is_cut(monkeypatch):
    whole = run(wikiextractor, WIKI.encode())
    for size in (1, 7, 100):
        monkeypatch.setattr(wikiextractor, "_READ_BYTES", size)
        assert run(wikiextractor, WIKI.encode()) == whole


def test_wikiextractor_json_lines():
    line = json.dumps({"id": "12", "url": "u", "title": "T", "text": "T\n\nAT&amp;T"})
    assert run(wikiextractor, f"{line}\n{{}}\n".encode()) == [
        Document("T\n\nAT&amp;T", 0, {"id": "12", "url": "u", "title": "T"}),
        Rejected(len(line) + 1, "missing_field", "no 'text', but nothing"),
    ]


def test_wikiextractor_reads_real_files_whole():
    if not CORPORA.exists():
        pytest.skip("shared/data/corpora is not there")
    file = CORPORA / "enwiki_wikiextractor" / "AA" / "wiki_05.gz"
    (found,) = list_inputs([Source("wikiextractor", str(file))])
    documents = list(read_documents(found))
    assert (len(documents), {type(d) for d in documents}) == (1528, {Document})
    data = gzip.decompress(file.read_bytes())
    assert all(data[d.offset :].startswith(f'<doc id="{d.meta["id"]}"'.encode()) for d in documents)
    assert documents[0].text == (
        "Samer Tawk\n\nSamer Tawk (born 3 September 1998) is a Lebanese cross-country skier. "
        "He competed in the men's 15 kilometre freestyle at the 2018 Winter Olympics."
    )


LONG = "It says at length what it is for. " * 8


def test_pydocs_joins_long_docstrings_in_source_order():
    code = f'''"""Short."""
class A:
    """{LONG}A"""
    def f(self):
        """{LONG}f
            indented"""
        def inner():
            """{LONG}inner"""
if True:
    async def g():
        """{LONG}g"""
'''
    (document,) = run(pydocs, code.encode(), pydocs.Options(prose=False), path="stdlib/a.py")
    assert document == Document(f"{LONG}A\n\n{LONG}f\nindented\n\n{LONG}g", 0)
    assert [r.reason for r in run(pydocs, b'"""Short."""', pydocs.Options())] == ["no_documentation"]
    assert [r.reason for r in run(pydocs, b"def f(:", pydocs.Options())] == ["syntax_error"]
    metadata = f"Metadata-Version: 2.1\nName: x\nSummary: An x.\n\n{LONG}\n"
    (document,) = run(
        pydocs, metadata.encode(), pydocs.Options(prose=False), path="site-packages/x-1.dist-info/METADATA"
    )
    assert document == Document(f"x: An x.\n\n{LONG.strip()}", 0, {"title": "x: An x."})


DOCUMENTATION = f"""{LONG}

Parameters
----------
x : array_like
    Where to begin, with one number for each axis of it.

Notes
-----
The ``search`` of :func:`~solve.it` ends where *nothing* is left, neither here
nor a * b steps away, or when the `time limit`_ is over:

>>> search([1, 2], steps=3)
array([0.5, 0.25])

======== =====
method   order
======== =====

Method 1 uses f(x) = x**2 and g(x, y) = x + y and no more, 2 of 3.

- the first of several things that are listed in this place;
- the last.
"""


def test_of_documentation_pydocs_keeps_paragraphs_of_running_text():
    expected = f"""{LONG}

Parameters
x : array_like
    Where to begin, with one number for each axis of it.

Notes
The search of solve.it ends where nothing is left, neither here
nor a * b steps away, or when the time limit is over:

- the first of several things that are listed in this place;
- the last."""
    code = f'"""{DOCUMENTATION}"""'.encode()
    (document,) = run(pydocs, code, pydocs.Options())
    assert document.text == expected
    (rejected,) = run(pydocs, f'"""{">>> 1 + 1 " * 40}"""'.encode(), pydocs.Options())
    assert (rejected.reason, rejected.detail) == ("no_documentation", "no paragraph of running text")


def test_pydocs_topics_are_documents_of_their_own():
    path = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    if not path.exists():
        pytest.skip("this Python has no pydoc_data")
    data = path.read_bytes()
    documents = run(pydocs, data, pydocs.Options(prose=False), path="stdlib/pydoc_data/topics.py")
    assert len(documents) > 50
    assert all(data[d.offset :].startswith(repr(d.meta["title"]).encode()) for d in documents)


LARGE, SMALL = "site-packages/large", ["site-packages/small.py", "stdlib/ast.py"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A Python installation in small: its standard library and two packages."""
    files = {
        "lib/ast.py": f'"""{LONG}"""\n',
        "lib/code_only.py": "x = 1\n" * 200,
        "lib/mostly_code.py": f'"""{LONG}"""\n' + "x = 1\n" * 200,
        "lib/short.py": '"""Short."""\n',
        "lib/test/test_ast.py": f'"""{LONG}"""\n',
        "lib/site-packages/large/b.py": f'"""{LONG}"""\n',
        "lib/site-packages/large/a.py": f'"""{LONG}"""\ndef f():\n    """{LONG}"""\n',
        "lib/site-packages/large-1.dist-info/METADATA": f"Name: large\nSummary: Long.\n\n{LONG}\n",
        "lib/site-packages/large-1.dist-info/RECORD": LONG,
        "lib/site-packages/small.py": f'"""{LONG}"""\n',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    site = str(tmp_path / "lib" / "site-packages")
    paths = {"stdlib": str(tmp_path / "lib"), "purelib": site, "platlib": site}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        (10_000, [f"{LARGE}-1.dist-info/METADATA", f"{LARGE}/a.py", f"{LARGE}/b.py", *SMALL]),
        (1300, [f"{LARGE}-1.dist-info/METADATA", f"{LARGE}/b.py", *SMALL]),  # a.py alone is above the quota
        (200, []),
    ],
)
def test_pydocs_lists_sorted_paths_within_its_budget(installed, max_bytes, expected):
    files = list_inputs([Source("pydocs", options={"max_bytes": max_bytes})])
    assert [f.path for f in files] == expected
    read = [d for f in files for d in read_documents(f)]
    assert all(isinstance(d, Document) for d in read)
    assert sum(len(d.text.encode()) for d in read) <= max_bytes


@pytest.mark.parametrize(
    ("sizes", "budget", "quota"),
    [([10, 10, 100], 50, 30), ([10, 10, 20], 50, 20), ([40, 40], 50, 25), ([], 50, 0)],
)
def test_pydocs_quota_cuts_the_largest_packages_first(sizes, budget, quota):
    assert pydocs._quota([(str(i), size) for i, size in enumerate(sizes)], budget) == quota


STORIES = (
    b"\xef\xbb\xbfOne.\n\nMore of one.\n<|endoftext|>\nTwo.\r\n<|endoftext|>\n\n<|endoftext|>Three.<|endoftext|>Four.\n"
)


@pytest.mark.parametrize(
    ("per", "texts"),
    [
        ("file", ["One.\n\nMore of one.", "Two.", "Three.", "Four."]),
        ("line", ["One.", "More of one.", "Two.", "Three.", "Four."]),
        ("paragraph", ["One.", "More of one.", "Two.", "Three.", "Four."]),
    ],
)
def test_no_document_reaches_over_a_separator(per, texts):
    options = text.Options(per=per, separator="<|endoftext|>")
    documents = list(text.read(io.BufferedReader(io.BytesIO(STORIES)), path="", options=options))
    assert all(isinstance(document, Document) for document in documents)
    assert [document.text for document in documents] == texts  # type: ignore[union-attr]
    for document in documents[1:]:
        assert STORIES[document.offset :].startswith(document.text.encode())  # type: ignore[union-attr]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("separator", ["\n---\n", "---", "\n"])
def test_a_separator_is_found_wherever_the_file_is_cut_into_chunks_and_whatever_its_line_ends(
    chunk, separator, monkeypatch
):
    monkeypatch.setattr(text, "_READ_BYTES", chunk)
    parts = ["One -- more", "two", "", "three---"]
    for line_end in ("\n", "\r\n"):
        data = separator.join(parts).replace("\n", line_end).encode()
        found = list(text._parts(io.BytesIO(data), separator))
        expected = separator.join(parts).split(separator)
        assert [part.decode() for _, part in found] == expected
        assert [data[at : at + len(part)] for at, part in found] == [part for _, part in found]


def test_a_separator_that_is_empty_is_refused_and_one_of_several_lines_keeps_a_file_whole():
    with pytest.raises(UserError, match="the separator is empty"):
        text.Options(separator="")
    assert text.splittable(text.Options(per="line", separator="<|endoftext|>"))
    assert not text.splittable(text.Options(per="line", separator="\n--\n"))
