"""Books of Project Gutenberg: one document a text file, without licence and credits. 30 MB/s per core.

The rules follow the forms in which the licence was attached since 1993. A file without any of its marks is kept whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.document import Document, Rejected, text_document

SUFFIXES = (".txt",)

_HEADER_BYTES = 30_000  # the longest headers, those with the small print of 2002, have 15,000
_FOOTER_CHARACTERS = 500  # an "End of" line with its title; what follows small print at the foot of a file
_CREDITS = 4  # paragraphs
_CREDIT_CHARACTERS = 1500

_ENCODING = re.compile(rb"^Cha[rt]acter set encoding:[ \t]*([\w-]+)", re.IGNORECASE | re.MULTILINE)
_LATIN1 = re.compile(rb"iso-?(?:8859-?|latin-?)1$|latin-?1$|(?:windows|cp)-?1252$", re.IGNORECASE)

_FLAGS = re.IGNORECASE | re.MULTILINE
# "*** START OF THIS PROJECT GUTENBERG EBOOK A TITLE ***", whose title may go on in further lines.
_START = re.compile(
    r"^[ \t]*\*{3} ?START OF (?:TH(?:E|IS) )?PROJECT GUTENBERG(?:[^*\n]*(?:\n[^*\n]+){0,4}\*{3}|[^\n]*)[^\n]*", _FLAGS
)
_END = re.compile(r"^[ \t]*\*{3} ?END OF (?:TH(?:E|IS) )?PROJECT GUTENBERG", _FLAGS)
_END_LINE = re.compile(r"^[ \t]*(?:\*+ ?)?End of (?:the |this )?Project Gutenberg", _FLAGS)
_SMALL_PRINT = re.compile(r"^[ \t]*\*+START\*+ ?THE SMALL PRINT", _FLAGS)
_SMALL_PRINT_END = re.compile(r"^[ \t]*\*END ?\*? ?THE SMALL PRINT[^\n]*", _FLAGS)
_CREDIT = re.compile(
    r"\[?(?:Produced by|(?:This )?(?:Project Gutenberg )?e-?(?:text|book) (?:was )?(?:first )?(?:prepared|produced"
    r"|created|transcribed|scanned) |Credits?(?: for e-?text)?:|(?:Transcribed|Prepared|Scanned|Proofed|HTML version"
    r"|PDF version)[^\n]{0,40} (?:by|from) |Note: (?:Images of the original pages|Project Gutenberg )"
    r"|This (?:e-?text|e-?book|file) was (?:prepared|produced|created)|(?:Most recently|Last) updated:)",
    re.IGNORECASE,
)


def read(stream: BinaryIO, *, path: str, options: None = None) -> Iterator[Document | Rejected]:
    """One Document a file. Files whose header says that they are Latin-1 are read as such; `path` is not used."""
    data = stream.read()
    record = _latin1(data) or text_document(data, 0)
    yield record if isinstance(record, Rejected) else Document(book(record.text), 0, record.meta)


def book(text: str) -> str:
    """What stands between header and footer of a Project Gutenberg text, without the credits of its makers."""
    text = _without_footer(text)
    starts = [_START.search(text), _SMALL_PRINT_END.search(text)]
    ends = [mark.end() for mark in starts if mark]
    return _without_credits(text[max(ends) :].strip("\n")) if ends else text


def _latin1(data: bytes) -> Document | None:
    """The text of a file that is not UTF-8 and declares itself Latin-1; None for all others."""
    declared = _ENCODING.search(data[:_HEADER_BYTES])
    if declared is None or not _LATIN1.match(declared[1]):
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        pass
    else:
        return None
    try:
        text = data.decode("cp1252")  # Latin-1 with quotes and dashes where that has control characters
    except UnicodeDecodeError:
        text = data.decode("latin1")
    return Document(text.replace("\r\n", "\n"), 0, {"repaired": "latin1"})


def _without_footer(text: str) -> str:
    """The text up to the marks of the licence at its end, and without small print at its foot."""
    start = _START.search(text)
    begin = start.end() if start else 0
    # The last marks: volumes that were joined have some inside.
    end = _last(_END, text, begin)
    text = text[: end.start()].rstrip() if end else text
    line = _last(_END_LINE, text, begin)
    if line and (end is None or len(text) - line.start() < _FOOTER_CHARACTERS):
        text = text[: line.start()].rstrip()
    # From 1999 to 2003 the small print stood at the head of some files, at the foot of others.
    small_print, its_end = _SMALL_PRINT.search(text), _last(_SMALL_PRINT_END, text, 0)
    if small_print and its_end and len(text[its_end.end() :].strip()) < _FOOTER_CHARACTERS:
        text = text[: small_print.start()].rstrip()
    return text


def _last(pattern: re.Pattern[str], text: str, begin: int) -> re.Match[str] | None:
    """The last match behind `begin`."""
    found = None
    for match in pattern.finditer(text, begin):
        found = match
    return found


def _without_credits(text: str) -> str:
    """The text without its first paragraphs, as far as they say who made the file."""
    for _ in range(_CREDITS):
        paragraph, _, rest = text.partition("\n\n")
        if len(paragraph) > _CREDIT_CHARACTERS or not _CREDIT.match(paragraph.lstrip()):
            break
        text = rest.lstrip("\n")
    return text
