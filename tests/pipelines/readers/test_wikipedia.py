"""MediaWiki dumps: whole documents of a small one, what damaged and hostile ones become, and the real ones."""

import bz2
import io
import re
import sys
from pathlib import Path

import pytest

from infra.errors import UserError
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected
from pipelines.readers import wikipedia

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "corpora" / "wiki_xml"

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de">
  <siteinfo>
    <base>https://de.wikipedia.org/wiki/Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="4" case="first-letter">Wikipedia</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""


def page(title: str, text: str, *, namespace: int | None = 0, more: str = "") -> str:
    ns = "" if namespace is None else f"<ns>{namespace}</ns>"
    return (
        f"  <page>\n<title>{title}</title>{ns}<id>7</id>{more}<revision><id>99</id><contributor>"
        f'<username>U</username><id>98</id></contributor><text xml:space="preserve">{text}</text></revision></page>\n'
    )


PAGES = [
    page("Bär &amp; Co", "'''Bär''' [[Datei:b.jpg|x]] &lt;ref&gt;y&lt;/ref&gt;[[a|b]]\n== C ==\nd [[Kategorie:E]]"),
    page("Alt", "#WEITERLEITUNG [[Neu]]", more='<redirect title="Neu" />'),
    page("Older", " #redirect [[x]]"),
    page("Wikipedia:Rules", "text of another namespace", namespace=4),
    page("Wikipedia:Old", "a dump without numbers of namespaces", namespace=None),
    page("Stub", "{{nothing|but}} [[Kategorie:F]]"),
    page("Code", "x = 1", more="<model>not here</model>").replace("<text", "<model>Scribunto</model><text"),
    page("Two", "first").replace("</page>", "<revision><text>second</text></revision></page>"),
]
DUMP = (HEAD + "".join(PAGES) + "</mediawiki>\n").encode()


def read(data: bytes, **options) -> list[Document | Rejected]:
    return list(wikipedia.read(io.BytesIO(data), path="x", options=wikipedia.Options(**options)))


def offset(number: int) -> int:
    return len((HEAD + "".join(PAGES[:number])).encode()) + 2


def test_a_dump():
    site = {"id": "7", "url": "https://de.wikipedia.org/wiki?curid=7"}

    assert read(DUMP) == [
        Document("Bär & Co\n\nBär b\nC\nd", offset(0), {**site, "title": "Bär & Co"}),
        Rejected(offset(1), "redirect", "Alt"),
        Rejected(offset(2), "redirect", "Older"),
        Rejected(offset(3), "namespace", "4: Wikipedia:Rules"),
        Rejected(offset(4), "namespace", "4: Wikipedia:Old"),
        Rejected(offset(5), "no_text", "nothing but templates, tables and the like: Stub"),
        Rejected(offset(6), "not_wikitext", "Scribunto: Code"),
        Document("Two\n\nsecond", offset(7), {**site, "title": "Two"}),
    ]
    assert all(DUMP[record.offset :].startswith(b"<page>") for record in read(DUMP))
    rules = read(DUMP, namespaces=[4])
    assert [d.meta["title"] for d in rules if isinstance(d, Document)] == ["Wikipedia:Rules", "Wikipedia:Old"]


def test_a_dump_does_not_depend_on_how_it_is_cut(monkeypatch):
    whole = read(DUMP)
    for size in (1, 7, 100):
        monkeypatch.setattr(wikipedia, "_READ_BYTES", size)
        assert read(DUMP) == whole


def test_one_page_without_a_dump_around_it():
    assert read(page("A", "[[File:x]] b").encode()) == [
        Document("A\n\nb", 2, {"id": "7", "url": "?curid=7", "title": "A"})
    ]


@pytest.mark.parametrize(
    ("cut", "kept", "at", "reason"),
    [
        (offset(1) + 30, 1, offset(1), "truncated_xml"),
        (offset(0) + 3, 0, 0, "truncated_xml"),
        (len(DUMP) - 4, 8, len(DUMP) - len("</page>\n</mediawiki>\n"), "truncated_xml"),
    ],
)
def test_a_truncated_dump_yields_what_was_whole(cut, kept, at, reason):
    *before, last = read(DUMP[:cut])
    assert before == read(DUMP)[:kept]
    assert (last.offset, last.reason) == (at, reason)


def test_xml_that_is_none():
    place = offset(2) + 20
    *before, last = read(DUMP[:place] + b"\xff & <" + DUMP[place:])
    assert before == read(DUMP)[:2]
    assert (last.offset, last.reason) == (offset(2), "malformed_xml")
    for data in (b"no xml", b"<?xml version='1.0' encoding='no-such'?><a/>", b"<a>&b;</a>", b""):
        assert [r.reason for r in read(data)] in (["malformed_xml"], ["truncated_xml"])


def test_document_types_are_refused():
    """Entities may stand for others, which stand for others: a few lines would grow to gigabytes, or name a file.

    One that stands for two letters is refused like them.
    """
    inside = f'<!DOCTYPE m [<!ENTITY a "ha">]>{page("B", "&a;")}'
    outside = f'<!DOCTYPE m [<!ENTITY a SYSTEM "a.txt">]>{page("B", "&a;")}'
    for data in (inside, outside, "<!DOCTYPE html><html/>"):
        (record,) = read(data.encode())
        assert (record.offset, record.reason) == (0, "document_type")


def test_a_long_page_is_left_out_and_the_next_one_read(monkeypatch):
    """A page without end would fill the memory."""
    monkeypatch.setattr(wikipedia, "_MAX_PAGE", 1000)
    long, fits = page("L", "x" * 1001), page("F", "x" * 1000)
    records = read((HEAD + long + fits + PAGES[0] + "</mediawiki>").encode())
    assert [getattr(r, "reason", None) or r.text.split("\n")[-1] for r in records] == ["page_too_long", "x" * 1000, "d"]


def test_a_long_tag_ends_the_file(monkeypatch):
    """Some versions of the parser take time of the square of a tag's length."""
    monkeypatch.setattr(wikipedia, "_READ_BYTES", 100)
    monkeypatch.setattr(wikipedia, "_MAX_TAG", 1000)
    dump = HEAD + PAGES[0] + "  <page " + "x" * 2000
    page_before, rejected = read((dump + "='1'></page></mediawiki>").encode())
    assert page_before == read(DUMP)[0]
    assert (rejected.reason, rejected.detail) == ("malformed_xml", "a tag or comment of over 1,000 bytes")


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(UserError, match=re.escape("pip install -c constraints.txt -e '.[wiki]'")):
        read(DUMP)


def test_real_dumps():
    if not REAL.exists():
        pytest.skip("shared/data/corpora is not there")
    counts = {}
    for file in list_inputs([Source("wikipedia", str(REAL))]):
        data = (REAL / file.path).read_bytes()
        data = bz2.decompress(data) if file.path.endswith(".bz2") else data
        records = list(read_documents(file))
        counts[file.path.split("-")[0] + str(len(data))] = [sum(isinstance(r, Document) for r in records), len(records)]
        assert all(data[r.offset :].startswith(b"<page>") for r in records)
        for document in (r for r in records if isinstance(r, Document)):
            assert document.text.startswith(f"{document.meta['title']}\n\n")
            left = re.search(r"\{\{|\}\}|\[\[|\]\]|\|thumb|''|</?ref|</?div|&[a-z]+;|^[|*#:]", document.text, re.M)
            assert left is None, (document.meta["title"], document.text[left.start() - 50 : left.end() + 50])
    assert counts == {
        "enwiki142055": [1, 1],
        "enwiki6089746": [106, 206],
        "simplewiki6817": [1, 1],
        "tinywiki26918": [7, 8],
    }
