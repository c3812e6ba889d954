"""Wikipedia as its search index is dumped, *-cirrussearch-content.json: plain text, rendered by MediaWiki.

Two lines a page, as Elasticsearch's bulk interface takes them: one that says which page, and the page itself.

    {"index": {"_type": "_doc", "_id": "12"}}
    {"title": "Anarchism", "namespace": 0, "text": "Anarchism is a ...", ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from pipelines.document import Document, Rejected
from pipelines.readers import jsonl

SUFFIXES = (".json",)
in_one_piece = jsonl.in_one_piece

_META = ("page_id", "version", "title", "language", "wiki")


@dataclass
class Options:
    namespaces: list[int] = field(default_factory=lambda: [0])
    """Namespaces to read; 0 holds the articles."""


def splittable(options: Options) -> bool:
    """A line is a page, or tells which page follows."""
    return True


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document a page, with its title as the first line; lines that say which page follows are none. It does
    without `path`.
    """
    for offset, record in jsonl.objects(stream):
        if isinstance(record, Rejected):
            yield record
        elif "index" in record and "text" not in record:
            continue
        elif (namespace := record.get("namespace", 0)) not in options.namespaces:
            yield Rejected(offset, "namespace", str(namespace))
        else:
            meta = {name: str(record[name]) for name in _META if name in record}
            page = jsonl.field_document(record, offset, "text", meta)
            if isinstance(page, Document) and page.text and "title" in meta:
                page = replace(page, text=f"{meta['title']}\n\n{page.text}")
            yield page
