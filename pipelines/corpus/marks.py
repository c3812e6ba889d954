"""Signs that documents are not what they are read as: separators inside them, markup, JSON, another reader's format,
a library's licence.

A sample is looked at, and only the beginning of each document: that costs less than 1 % of cleaning.
"""

import re
from collections import Counter

from infra.console import counted
from pipelines.corpus.ledger import by_source
from pipelines.corpus.records import Unit

_FIRST, _EVERY = 64, 16  # documents of a unit: all of the first ones, and then one of so many
_HEAD = 1 << 15  # characters of a document
_LEAST = 0.01  # share of the sample; texts that only talk about such marks are rarer
_TAGS = 5  # of a document that is called HTML

_SEPARATOR = re.compile(
    r"<(?:\|(?:endoftext|end_of_text|endofdocument|eot_id|im_end|eos|eod|sep)\|>|/s>|(?:eos|eod|eot|sep)>)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?(?:html|head|body|p|div|span|li|ul|table|td|tr|a|h[1-6])(?: [^<>\n]*)?>", re.IGNORECASE)
# What the reader `text` should leave to another one: a part of its mark, which is looked for first, and the mark.
_FORMATS = {
    "jsonl": ("{", re.compile(r'\A\s*\{\s*"[^"\n]{1,100}"\s*:')),
    "wikiextractor": ("<doc ", re.compile(r'(?m)^<doc (?=[^\n]*\bid=")(?=[^\n]*\burl=")')),
    "wikipedia": ("<mediawiki", re.compile(r"\A\s*(?:<\?xml[^<>]*>\s*)?<mediawiki[ >]")),
    "gutenberg": ("***", re.compile(r"(?im)^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG")),
}
# What the libraries that are like gutenberg.org, in other countries, put before or behind their books.
_LICENCE_HEAD = 1 << 12
_LICENCE = re.compile(
    r"Project Gutenberg (?:of )?(?:Australia|Canada|Europe|Philippines)|gutenberg\.(?:net\.au|ca\b)"
    r"|Projekt Gutenberg-DE|Distributed Proofreaders Canada|fadedpage\.com|Project Gutenberg(?:-tm|™)? Licen[cs]e",
    re.IGNORECASE,
)


def is_sampled(number: int) -> bool:
    """Whether the document of this number in its unit is looked at."""
    return number < _FIRST or number % _EVERY == 0


def find_marks(text: str, reader: str) -> list[str]:
    """What shows in the beginning of a document: its separators as they stand there, "HTML", and where it was read as
    plain text, the name of the reader that it is for. Of books, also "licence", from their ends.
    """
    head = text[:_HEAD]
    formats = _FORMATS.items() if reader == "text" else []
    found = [name for name, (part, mark) in formats if part in head and mark.search(head)]
    ends = (text[:_LICENCE_HEAD], text[-_LICENCE_HEAD:])
    if not found and reader in ("gutenberg", "text") and any(_LICENCE.search(end) for end in ends):
        found.append("licence")
    if "<" not in head:
        return found
    if "</" in head and sum(1 for _ in zip(range(_TAGS), _TAG.finditer(head), strict=False)) == _TAGS:
        return [*found, "HTML"]  # in which </s> ends what is struck out
    return [*found, *sorted({match[0] for match in _SEPARATOR.finditer(head)})]


def describe_marks(units: list[Unit], readers: dict[str, str]) -> list[str]:
    """A sentence for each source with frequent marks: the most frequent one, its share of the sample, and what helps.
    readers: source -> reader.
    """
    sentences = []
    for name, own in by_source(units).items():
        counts, sampled = Counter[str](), sum(unit.sampled for unit in own)
        for unit in own:
            counts.update(unit.marks)
        sentences.append(describe_mark(name, readers.get(name, ""), counts, sampled))
    return [one for one in sentences if one]


def describe_mark(name: str, reader: str, counts: Counter[str], sampled: int) -> str:
    """The same for one source; "" where no mark is frequent. counts: documents that have each mark; sampled: documents
    that were looked at.
    """
    mark, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if not count or count < _LEAST * sampled:
        return ""
    of = f"{sampled:,} sampled documents" if sampled > 1 else "1 sampled document"
    return _sentence(mark, f"{count / sampled:.0%} of {of} of {name!r}", reader)


def _sentence(mark: str, place: str, reader: str) -> str:
    if mark in _FORMATS:
        return f"{place} look like the format of another reader: reader: {mark} reads them"
    if mark == "HTML":
        return (
            f"{place} hold HTML, whose tags would be learnt as text: extract the text first, for example by trafilatura"
        )
    if mark == "licence":
        return (
            f"{place} hold the licence of their library, which would be learnt as text: the reader gutenberg removes "
            "that of gutenberg.org only, so remove it before, or drop these by a rule of your own (data.clean.rules)"
        )
    if reader == "text":
        return f"{place} hold {mark}: options: {{separator: '{mark}'}} makes a document of each text between these"
    return f"{place} hold {mark}: make a record of each text between these, for one document must not hold several"


def describe_holes(units: list[Unit]) -> list[str]:
    """A sentence for each source whose reader left words out of sentences: how many, and the most frequent ones."""
    sentences = []
    for name, own in by_source(units).items():
        counts = Counter[str]()
        for unit in own:
            counts.update(unit.holes)
        if counts:
            some = ", ".join(f"{hole} {count:,}" for hole, count in counts.most_common(5))
            more = ", ..." if len(counts) > 5 else ""
            sentences.append(
                f"{counted(counts.total(), 'template')} inside sentences of {name!r} left holes, in "
                f"{counted(sum(unit.kept for unit in own), 'document')}: {some}{more}"
            )
    return sentences
