"""MediaWiki markup to plain text, in time linear in the page. About 5 MB/s per core.

mwparserfromhell reads links, headings and entities, line by line. What is left out anyway (templates, tables,
references: half of a dump) is removed first, and so is markup without a partner: on unclosed markup its time grows with
the square or cube of the length. Needs the extra `wiki`.
"""

from __future__ import annotations

import functools
import html
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from pipelines.readers import _braces

_TEXT_LEVEL = 7  # headings have 1 to 6
_HEADING = re.compile(r"(={1,6})(.+)\1[ \t]*")
_MAX_DEPTH = 10  # of brackets; a caption with links has 4

# Tags that MediaWiki takes out with their content before it reads anything else. All but the verbatim ones are dropped.
_VERBATIM = ("nowiki", "pre")
_EXTENSIONS = re.compile(
    r"<!--|<(ref|references|math|chem|ce|gallery|timeline|score|hiero|syntaxhighlight|source|imagemap|graph|mapframe|maplink"
    r"|templatedata|templatestyles|inputbox|categorytree|indicator|includeonly|section|rss|style|script|nowiki|pre"
    r")\b([^<>]*)>",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"<(/?)(abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|ins"
    r"|kbd|li|mark|noinclude|ol|onlyinclude|p|poem|q|rb|rp|rt|rtc|ruby|s|samp|small|span|strike|strong|sub|sup|table|td"
    r"|th|time|tr|tt|u|ul|var|wbr|ref|references|math|gallery|nowiki|pre|includeonly)\b[^<>]*>",
    re.IGNORECASE,
)
_LINE_TAG = re.compile(r"br|blockquote|center|dd|div|dl|dt|hr|li|ol|p|poem|td|th|tr|ul")
_QUOTES = re.compile("''+")
_LINE_START = re.compile(r"^(?:[*#:;]+[ \t]*|-{4,})", re.MULTILINE)
_MAGIC_WORD = re.compile(r"__[^\W\d_]{3,24}__")
_VARIANTS = re.compile(r"-\{([^{}]*)\}-")  # of Chinese, Serbian, ...: -{zh-hans:...; zh-hant:...}-
_WRAPPED_TITLE = re.compile(r"(\[\[[^\[\]|\n]{1,200})\n([^\[\]|\n]{1,200}(?:\||\]\]))")
_TITLE = re.compile(r"[^\[\]|\n]*")
_BRACKET = re.compile(r"[\[\]]")
_EMPTY_PARENTHESES = re.compile(r"[ \u00a0]?(?:[(（][\s,;:，；：、]*[)）]|\[[\s,;:，；：、]*\])")
_SPACES = re.compile(r"[ \t]{2,}")
_FILE = re.compile(
    r"\.(?:jpe?g|png|gif|svg|tiff?|webp|xcf|og[agvx]|opus|webm|mp[34]|wav|flac|midi?|pdf|djvu|stl)$", re.I
)
_LANGUAGE_LINK = re.compile(r"(?:[a-z]{2,3}|simple)(?:-[a-z-]+)?:\S")


class Prose(NamedTuple):
    """What a page shows."""

    text: str
    holes: Counter[str]
    """Names of templates that stood inside sentences and could not be rendered -> how often."""


def plain_text(wikitext: str, *, left_out: frozenset[str] = frozenset()) -> str:
    """The text of `prose`."""
    return prose(wikitext, left_out=left_out).text


def prose(wikitext: str, *, left_out: frozenset[str] = frozenset()) -> Prose:
    """The prose that a page shows: paragraphs, headings and list items, a line each.

    Left out: templates except those that `_templates` renders, tables, references, comments, magic words, formulas,
    galleries, links between languages, and links into the namespaces `left_out` (lower case: file, category, and their
    local names). So are sections in which nothing remains.
    """
    holes = Counter[str]()
    text = _LINE_START.sub("", _without_tags(_without_extensions(wikitext)))
    text = _braces.without_tables(_braces.without_templates(_VARIANTS.sub(_variant, text), holes))
    text = _without_quotes(_braces.without_rows(text))
    text = _balanced(_WRAPPED_TITLE.sub(r"\1 \2", _MAGIC_WORD.sub("", text)))
    return Prose("\n".join(_without_empty_sections(list(_lines(text, left_out)))), holes)


# --- what is taken out first ------------------------------------------------------------------------------------------


def _without_extensions(text: str) -> str:
    """The text without comments and the tags of _EXTENSIONS with their content; verbatim content is escaped."""
    parts: list[str] = []
    place = 0
    unclosed: set[str] = set()
    for tag in _EXTENSIONS.finditer(text):
        if tag.start() < place:
            continue
        parts.append(text[place : tag.start()])
        name = (tag[1] or "").lower()
        end = _end_of_comment(text, tag.end()) if not name else None
        if name and not tag[2].endswith("/") and name not in unclosed:
            closing = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, tag.end())
            if closing is None:
                unclosed.add(name)  # nor is there one further on: looking each time would take quadratic time
            else:
                end = closing.end()
                if name in _VERBATIM:
                    parts.append(re.sub(r"[^\w\s]", _escaped, text[tag.end() : closing.start()]))
        place = tag.end() if end is None else end
    return "".join([*parts, text[place:]])


def _end_of_comment(text: str, begin: int) -> int:
    end = text.find("-->", begin)
    return len(text) if end < 0 else end + 3


def _without_tags(text: str) -> str:
    text = _TAG.sub(_tag, text)
    return text.replace("<", "&lt;")


def _tag(tag: re.Match[str]) -> str:
    name = tag[2].lower()
    if name == "table":
        return "\n|}\n" if tag[1] else "\n{|\n"
    return "\n" if _LINE_TAG.fullmatch(name) else ""


def _escaped(character: re.Match[str]) -> str:
    return f"&#{ord(character[0])};"


def _without_quotes(text: str) -> str:
    """The text without the quotes that make italics and bold, by the rules of MediaWiki's `doQuotes`."""
    if "''" not in text:
        return text
    return "\n".join(_apostrophes(line) if "''" in line else line for line in text.split("\n"))


def _apostrophes(line: str) -> str:
    """The line with what is left of its runs of quotes: two are italics, three are bold, five are both; the rest are
    apostrophes. If both italics and bold are odd in number, one bold was an apostrophe before italics: l'''Eneide''.
    """
    runs = [len(run) for run in _QUOTES.findall(line)]
    left = ["'" * (1 if count == 4 else max(0, count - 5)) for count in runs]
    words = [word + quotes for word, quotes in zip(_QUOTES.split(line), [*left, ""], strict=True)]
    bold = [number for number, count in enumerate(runs) if count in (3, 4)]
    both = sum(count >= 5 for count in runs)
    if bold and (runs.count(2) + both) % 2 and (len(bold) + both) % 2:
        words[_meant_as_apostrophe(words, bold)] += "'"
    return "".join(words)


def _meant_as_apostrophe(words: list[str], bold: list[int]) -> int:
    """Which of these words ends in an apostrophe: the first of one letter, else the first, else the first space."""
    for number in bold:
        if len(words[number]) > 1 and words[number][-1] != " " and words[number][-2] == " ":
            return number
    return next((number for number in bold if not words[number].endswith(" ")), bold[0])


def _variant(variants: re.Match[str]) -> str:
    first = variants[1].rpartition("|")[2].partition(";")[0]
    return first.partition(":")[2] or first


def _balanced(text: str) -> str:
    """The text with brackets in pairs, at most _MAX_DEPTH deep. A bracket without a partner becomes an entity."""
    changed: dict[int, str] = {}
    stack: list[int] = []
    for bracket in _BRACKET.finditer(text):
        place = bracket.start()
        if bracket[0] == "[":
            stack.append(place)
        elif not stack:
            changed[place] = _lone(text, place)
        else:
            start = stack.pop()
            torn = text[start - 1 : start] == "[" and text[place + 1 : place + 2] != "]"  # "[[a] b]"
            if len(stack) >= _MAX_DEPTH or torn or text.startswith("[[[", start):
                changed[place] = changed[start] = ""
            elif text[start - 1 : start + 1] == "[[" and not _has_title(text, start + 1, place):
                changed |= dict.fromkeys((start - 1, start, place, place + 1), "")
    changed |= {place: _lone(text, place) for place in stack}
    parts: list[str] = []
    done = 0
    for place in sorted(changed):
        parts += [text[done:place], changed[place]]
        done = place + 1
    return "".join([*parts, text[done:]])


def _has_title(text: str, begin: int, end: int) -> bool:
    """Whether what stands from `begin` to a bar or `end` can be the title of a page, or more brackets begin there."""
    title = _TITLE.match(text, begin, end)
    return text[begin] == "[" or (title is not None and (title.end() == end or text[title.end()] == "|"))


def _lone(text: str, place: int) -> str:
    """What becomes of a bracket without a partner: half an interval [0, 1) stays, the rest of a broken link goes."""
    character = text[place]
    return "" if character in (text[place - 1 : place], text[place + 1 : place + 2]) else f"&#{ord(character)};"


# --- lines ------------------------------------------------------------------------------------------------------------


def _lines(text: str, left_out: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(level of a heading or 0, line) for all lines that are not empty."""
    import mwparserfromhell

    for block in _blocks(text):
        level, plain = 0, block
        if block.startswith("="):
            heading = _HEADING.fullmatch(block)
            level, plain = (len(heading[1]), heading[2]) if heading else (0, "&#61;" + block[1:])  # not for the parser
        if "[" in plain or "&" in plain or "://" in plain:
            plain = _plain(mwparserfromhell.parse(plain, skip_style_tags=True), left_out)  # those are gone already
        for line in plain.split("\n"):
            line = _SPACES.sub(" ", _without_empty_parentheses(line)).strip().lstrip(":; ")
            if line:
                yield level, line


def _without_empty_parentheses(line: str) -> str:
    """The line without parentheses in which nothing, or only others like it, remained."""
    for _ in range(_MAX_DEPTH if any(begin in line for begin in "(（[") else 0):
        line, count = _EMPTY_PARENTHESES.subn("", line)
        if not count:
            break
    return line


def _blocks(text: str) -> Iterator[str]:
    """Lines, joined where a bracket is open across them."""
    block: list[str] = []
    depth = 0
    for line in text.split("\n"):
        block.append(line)
        depth += line.count("[") - line.count("]")
        if not depth:
            yield "\n".join(block)
            block = []


def _plain(code: Any, left_out: frozenset[str]) -> str:
    """The text of parsed markup."""
    kinds = _node_kinds()
    parts: list[str] = []
    for node in code.nodes:
        kind = kinds.get(type(node))
        if kind == "text":
            parts.append(node.value)
        elif kind == "link":
            parts.append(_link(node, left_out))
        elif kind == "entity":
            parts.append(html.unescape(str(node)))
        elif kind == "heading":
            parts.append(_plain(node.title, left_out))
        elif kind == "external":
            label = node.title if node.brackets else node.url
            parts.append(_plain(label, left_out) if label else "")
        elif kind == "tag" and node.contents:
            parts.append(_plain(node.contents, left_out))
    return "".join(parts)


@functools.cache
def _node_kinds() -> dict[type, str]:
    """What there is to do with a node. Importing the classes wherever they are needed takes a twentieth of the time."""
    from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Text, Wikilink

    kinds = {Text: "text", Wikilink: "link", HTMLEntity: "entity", Heading: "heading"}
    return {**kinds, ExternalLink: "external", Tag: "tag"}


def _link(node: Any, left_out: frozenset[str]) -> str:
    title = str(node.title).strip()
    namespace = title.partition(":")[0].strip().lower() if ":" in title else ""
    if namespace in left_out or (node.text is None and _LANGUAGE_LINK.match(title)):
        return ""
    if namespace and _FILE.search(title):  # not all names of a wiki's files are listed in its dump
        return ""
    if node.text is None:
        return _plain(node.title, left_out).strip().removeprefix(":")
    label = _plain(node.text, left_out)
    # "[[Bild:a.jpg|thumb|...]]": only files have further bars, whatever a wiki calls them.
    return "" if namespace and not title.startswith(":") and "|" in label else label


def _without_empty_sections(lines: list[tuple[int, str]]) -> Iterator[str]:
    """The lines without headings that have no text before the next heading of the same or a higher level or the end."""
    kept: list[str] = []
    follows = 0  # level of the heading that was kept last, seen from the end; below all headings where that is text
    for level, line in reversed(lines):
        if level and level >= follows:
            continue
        follows = level or _TEXT_LEVEL
        kept.append(line)
    return reversed(kept)
