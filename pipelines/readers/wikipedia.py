"""Wikipedia's own dumps: MediaWiki XML, pages-articles. About 5 MB/s of dump per core.

Streams: memory holds one page. The markup becomes plain text in pipelines/readers/_wikitext.py. Needs the extra `wiki`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from infra.errors import UserError
from pipelines.document import Document, Rejected
from pipelines.readers._wikitext import prose

SUFFIXES = (".xml",)
VERSION = 2

_READ_BYTES = 1 << 16
_MAX_TAG = 1 << 20  # bytes: expat below 2.6 reads a long tag or comment in time of the square of its length
_MAX_PAGE = 1 << 24  # characters; MediaWiki allows 2 MB
_REDIRECT = re.compile(r"\s*#\s*redirect\b", re.IGNORECASE)
_FILES_AND_CATEGORIES = {"-2": "media", "6": "file", "14": "category"}


@dataclass
class Options:
    namespaces: list[int] = field(default_factory=lambda: [0])
    """Numbers of the namespaces to read. 0 holds the articles."""


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """One Document a page; `meta` holds id, url and title, and the title is the text's first line. "holes" in it counts
    the templates that were left out of sentences. `path` is not used.

    Pages that are left out are Rejected as redirect, namespace, not_wikitext or no_text. Where the XML breaks off, or
    declares a document type (whose entities could expand without limit), a Rejected ends the file.
    """
    pages = _Pages()
    parser, errors = _parser(pages)
    size, chunk, failure = 0, b"", None
    while failure is None:
        chunk = stream.read(_READ_BYTES)
        size += len(chunk)
        failure = _feed(parser, chunk, errors)
        if size - pages.place() > _MAX_TAG:
            failure = failure or ValueError(f"a tag or comment of over {_MAX_TAG:,} bytes")
        for page in pages.taken():
            yield _document(page, pages, options)
        if not chunk:
            break
    if failure is not None:
        at = pages.page.offset if pages.page else pages.offset
        yield Rejected(min(at, size), _reason(failure, is_at_end=not chunk), str(failure)[:200])


def _parser(pages: _Pages) -> tuple[Any, tuple[type[Exception], ...]]:
    """A parser that forbids document types, and the exceptions that it raises."""
    try:
        import defusedxml.ElementTree as ElementTree
        import mwparserfromhell  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the reader 'wikipedia' needs packages that are not installed",
            why=str(error),
            try_="pip install -c constraints.txt -e '.[wiki]'   # in the checkout",
        ) from None
    parser = ElementTree.DefusedXMLParser(target=pages, forbid_dtd=True)
    expat = parser.parser
    pages.place = lambda: expat.CurrentByteIndex
    # ValueError: what defusedxml forbids. LookupError: an encoding that Python does not know.
    return parser, (ElementTree.ParseError, ValueError, LookupError)


def _feed(parser: Any, chunk: bytes, errors: tuple[type[Exception], ...]) -> Exception | None:
    try:
        parser.feed(chunk) if chunk else parser.close()
    except errors as error:
        return error
    return None


def _reason(failure: Exception, *, is_at_end: bool) -> str:
    if type(failure).__name__ == "DTDForbidden":
        return "document_type"
    return "truncated_xml" if is_at_end else "malformed_xml"


# --- XML --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Page:
    offset: int
    title: str = ""
    id: str = ""
    namespace: str = ""
    model: str = "wikitext"
    is_redirect: bool = False
    text: str = ""
    is_too_long: bool = False


class _Pages:
    """Target of the parser: collects the fields of pages. If a page has several revisions, the last one counts."""

    def __init__(self) -> None:
        self.page: _Page | None = None
        self.offset = 0
        self.base = ""
        self.names: dict[str, str] = {}  # of the site's namespaces in lower case -> number
        self.place: Any = None
        self._done: list[_Page] = []
        self._path: list[str] = []
        self._parts: list[str] = []
        self._length = 0
        self._key = ""

    def taken(self) -> list[_Page]:
        done, self._done = self._done, []
        return done

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self._parts, self._length = [], 0
        self._path.append(name)
        if name == "page":
            self.page = _Page(self.place())
        elif name == "redirect" and self.page:
            self.page.is_redirect = True
        elif name == "namespace":
            self._key = attributes.get("key", "")

    def data(self, text: str) -> None:
        self._length += len(text)
        if self._length <= _MAX_PAGE:
            self._parts.append(text)
        elif self.page:
            self.page.is_too_long = True

    def end(self, tag: str) -> None:
        name = self._path.pop()
        parent = self._path[-1] if self._path else ""
        value, self._parts = "".join(self._parts), []
        page = self.page
        if page is None:
            if name == "namespace":
                self.names[value.strip().lower()] = self._key
            elif name == "base":
                self.base = value.strip().rpartition("/")[0]
        elif name == "page":
            self._done.append(page)
            self.page = None
            self.offset = self.place()
        elif parent == "page" and name == "title":
            page.title = value.strip()
        elif parent == "page" and name == "ns":
            page.namespace = value.strip()
        elif parent == "page" and name == "id":
            page.id = value.strip()
        elif parent == "revision" and name == "model":
            page.model = value.strip()
        elif parent == "revision" and name == "text":
            page.text = value

    def close(self) -> None:
        """Part of the parser's contract."""


# --- one page ---------------------------------------------------------------------------------------------------------


def _document(page: _Page, pages: _Pages, options: Options) -> Document | Rejected:
    if page.is_too_long:
        return Rejected(page.offset, "page_too_long", f"over {_MAX_PAGE:,} characters: {page.title[:80]}")
    if page.is_redirect or _REDIRECT.match(page.text):
        return Rejected(page.offset, "redirect", page.title)
    # Dumps from before 2012 have no <ns>.
    namespace = page.namespace or pages.names.get(page.title.partition(":")[0].lower(), "0")
    if namespace not in map(str, options.namespaces):
        return Rejected(page.offset, "namespace", f"{namespace}: {page.title}")
    if page.model != "wikitext":
        return Rejected(page.offset, "not_wikitext", f"{page.model}: {page.title}")
    files = {name for name, number in pages.names.items() if number in _FILES_AND_CATEGORIES}
    text, holes = prose(page.text, left_out=frozenset({*files, *_FILES_AND_CATEGORIES.values(), "image"}))
    if not text:
        return Rejected(page.offset, "no_text", f"nothing but templates, tables and the like: {page.title}")
    meta: dict[str, Any] = {"id": page.id, "url": f"{pages.base}?curid={page.id}", "title": page.title}
    if holes:
        meta["holes"] = dict(holes)
    return Document(f"{page.title}\n\n{text}", page.offset, meta)
