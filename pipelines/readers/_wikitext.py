"""MediaWiki markup to plain text, in time linear in the page. About 5 MB/s per core.

mwparserfromhell reads links, headings and entities, line by line. What is left out anyway (templates, tables,
references: half of a dump) is removed first, and so is markup without a partner: on unclosed markup its time grows with
the square or cube of the length. Needs the extra `wiki`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

_TEXT_LEVEL = 7  # headings have 1 to 6
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
_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)  # of a table that is not closed, a parameter of such a template
_MAGIC_WORD = re.compile(r"__[^\W\d_]{3,24}__")
_VARIANTS = re.compile(r"-\{([^{}]*)\}-")  # of Chinese, Serbian, ...: -{zh-hans:...; zh-hant:...}-
_BRACES = re.compile(r"\{\{+|\}\}+")
_TABLE = re.compile(r"^[ \t]*(?:(\{\|)|\|\}(?!\}))", re.MULTILINE)
_BRACKET = re.compile(r"[\[\]]")
_EMPTY_PARENTHESES = re.compile(r"[ \u00a0]?[(（][\s,;:，；：、]*[)）]")
_SPACES = re.compile(r"[ \t]{2,}")
_LANGUAGE_LINK = re.compile(r"(?:[a-z]{2,3}|simple)(?:-[a-z-]+)?:\S")


def plain_text(wikitext: str, *, left_out: frozenset[str] = frozenset()) -> str:
    """The prose that a page shows: paragraphs, headings and list items, a line each.

    Left out: templates, tables, references, comments, magic words, formulas, galleries, links between languages, and
    links into the namespaces `left_out` (lower case: file, category, and their local names). So are sections in which
    nothing remains.
    """
    text = _without_tags(_without_extensions(wikitext))
    text = _VARIANTS.sub(_variant, _QUOTES.sub(_apostrophes, _LINE_START.sub("", text)))
    text = _without_tables(_without_templates(text))
    text = _balanced(_MAGIC_WORD.sub("", _ROW.sub("", text)))
    return "\n".join(_without_empty_sections(list(_lines(text, left_out))))


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


def _apostrophes(quotes: re.Match[str]) -> str:
    """What is left of a run of quotes: two are italics, three are bold, five are both; the rest are apostrophes."""
    count = len(quotes[0])
    return "'" * (1 if count == 4 else max(0, count - 5))


def _variant(variants: re.Match[str]) -> str:
    first = variants[1].rpartition("|")[2].partition(";")[0]
    return first.partition(":")[2] or first


def _without_templates(text: str) -> str:
    """The text without {{...}} and {{{...}}}, nested as MediaWiki nests them; braces without a partner go alone.

    text     a {{b {{{c}}} d}} e }} f
    pairs      [2   [3   3]   2]   ^ no partner
    left     a                   e    f
    """
    cuts: list[tuple[int, int]] = []
    stack: list[list[int]] = []  # [place, braces] of runs that are not closed
    for run in _BRACES.finditer(text):
        if run[0][0] == "{":
            stack.append([run.start(), len(run[0])])
            continue
        place, count = run.start(), len(run[0])
        while count >= 2 and stack:
            start = stack[-1]
            matched = min(start[1], count, 3)
            place, count, start[1] = place + matched, count - matched, start[1] - matched
            _cut(cuts, start[0] + start[1], place)
            if start[1] < 2:
                stack.pop()
        if count >= 2:
            cuts.append((place, place + count))
    cuts += [(place, place + count) for place, count in stack]
    return _without(text, cuts)


def _without_tables(text: str) -> str:
    """The text without {| ... |}. Of a table that is not closed the mark goes; its rows, with a bar each, go later."""
    cuts: list[tuple[int, int]] = []
    stack: list[tuple[int, int]] = []
    for mark in _TABLE.finditer(text):
        if mark[1]:
            end_of_line = text.find("\n", mark.end())
            stack.append((mark.start(), len(text) if end_of_line < 0 else end_of_line))
        elif stack:
            _cut(cuts, stack.pop()[0], mark.end())
        else:
            cuts.append(mark.span())
    return _without(text, cuts + stack)


def _cut(cuts: list[tuple[int, int]], start: int, end: int) -> None:
    """Add a range to cut, in place of those inside it."""
    while cuts and cuts[-1][0] >= start:
        cuts.pop()  # it lies inside
    cuts.append((start, end))


def _without(text: str, cuts: list[tuple[int, int]]) -> str:
    """The text without these ranges."""
    parts: list[str] = []
    place = 0
    for start, end in sorted(cuts):
        if end > place:
            parts.append(text[place : max(place, start)])
            place = end
    return "".join([*parts, text[place:]])


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
    changed |= {place: _lone(text, place) for place in stack}
    parts: list[str] = []
    done = 0
    for place in sorted(changed):
        parts += [text[done:place], changed[place]]
        done = place + 1
    return "".join([*parts, text[done:]])


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
        if block.startswith("=") or "[" in block or "&" in block or "://" in block:
            code = mwparserfromhell.parse(block, skip_style_tags=True)  # those are gone already
            level = next((node.level for node in code.nodes if hasattr(node, "level")), 0)  # pyright: ignore[reportAttributeAccessIssue]
            plain = _plain(code, left_out)
        for line in plain.split("\n"):
            line = _SPACES.sub(" ", _EMPTY_PARENTHESES.sub("", line)).strip().lstrip(":; ")
            if line:
                yield level, line


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
    from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Text, Wikilink

    parts: list[str] = []
    for node in code.nodes:
        if isinstance(node, Text):
            parts.append(node.value)
        elif isinstance(node, Wikilink):
            parts.append(_link(node, left_out))
        elif isinstance(node, HTMLEntity):
            parts.append(html.unescape(str(node)))
        elif isinstance(node, Heading):
            parts.append(_plain(node.title, left_out))
        elif isinstance(node, ExternalLink):
            label = node.title if node.brackets else node.url
            parts.append(_plain(label, left_out) if label else "")
        elif isinstance(node, Tag) and node.contents:
            parts.append(_plain(node.contents, left_out))
    return "".join(parts)


def _link(node: Any, left_out: frozenset[str]) -> str:
    title = str(node.title).strip()
    namespace = title.partition(":")[0].strip().lower() if ":" in title else ""
    if namespace in left_out or (node.text is None and _LANGUAGE_LINK.match(title)):
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
