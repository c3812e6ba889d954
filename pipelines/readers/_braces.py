"""What markup marks with pairs of braces and bars: templates and tables, in time linear in the page."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from pipelines.readers import _templates

_BRACES = re.compile(r"\{\{+|\}\}+")
_TEMPLATE_NAME = re.compile(r"\s*([^|{}\[\]<>\n:]+)(:?)")
# Templates inside sentences that show no words of them: notes, pronunciations, places on a map.
_NO_WORDS = re.compile(
    r"(?:r|rp|refn?|sfn\w*|harv\w*|efn\S*|note\w*|cn|fact|citation needed|clarify|when|who|which|by whom|dubious|update"
    r"|according to whom|better source.*|page needed|failed verification|dead link|webarchive|cite .*|coord|ipa.*"
    r"|respell|audio|listen|flagicon|anchor|citation|oclc|issn|isbn|doi|.* icon|[\w -]+ inline|main|see also|clear|-|br"
    r"|use \w+ dates|bots|legend|#.*)"
)
_TABLE = re.compile(r"^[ \t]*(?:(\{\|)|\|\}(?!\}))", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)  # of a table that is not closed, a parameter of such a template
_LINK_MARK = re.compile(r"\[\[|\]\]")
_BAR_LINE = re.compile(r"\n[ \t]*\|")


def without_templates(text: str, holes: Counter[str]) -> str:
    """The text with what `_templates` renders, and without other {{...}} and {{{...}}}, nested as MediaWiki nests them;
    braces without a partner go alone. holes: counts what was cut out of sentences.

    text     a {{b {{{c}}} d}} e }} f
    pairs      [2   [3   3]   2]   ^ no partner
    left     a                   e    f
    """
    cuts: list[_Cut] = []
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
            begin = start[0] + start[1]
            inside = _taken(cuts, begin)
            cuts.append(_Cut(begin, place, _rendered(text, begin, place, inside) if matched == 2 else ""))
            if start[1] < 2:
                stack.pop()
        if count >= 2:
            cuts.append(_Cut(place, place + count))
    holes.update(name for cut in cuts if (name := _hole(text, cut)))
    cuts += [_Cut(place, place + count) for place, count in stack]
    return _with(text, cuts)


def _rendered(text: str, begin: int, end: int, inside: list[_Cut]) -> str:
    """What the template between `begin` and `end` shows, in which these cuts lie; nothing of one that is not known."""
    name = _TEMPLATE_NAME.match(text, begin + 2, end - 2)
    rule = _templates.rule_of(name[1]) if name else None
    if name is None or rule is None or end - begin > _templates.MOST_CHARACTERS:
        return ""
    content = _with(text, inside, name.end(), end - 2)
    return rule(*_templates.arguments(content.removeprefix("|")) if content else ([], {}))


def _hole(text: str, cut: _Cut) -> str | None:
    """The name of a template that was cut out of a sentence, where that misses its words."""
    if cut.text or text[cut.end - 2 : cut.end] != "}}":
        return None
    before, after = text[max(0, cut.begin - 9) : cut.begin].rstrip(" "), text[cut.end : cut.end + 1]
    if before[-1:] in ("", "\n", "}") and after in ("", "\n", "{"):
        return None
    name = _TEMPLATE_NAME.match(text, cut.begin + 2, cut.end - 2)
    key = " ".join(name[1].replace("_", " ").split()).lower() if name else ""
    return None if not key or _NO_WORDS.fullmatch(key) else key[:60]


def without_tables(text: str) -> str:
    """The text without {| ... |}. Of a table that is not closed the mark goes; its rows, with a bar each, go later."""
    cuts: list[_Cut] = []
    stack: list[_Cut] = []
    for mark in _TABLE.finditer(text):
        if mark[1]:
            end_of_line = text.find("\n", mark.end())
            stack.append(_Cut(mark.start(), len(text) if end_of_line < 0 else end_of_line))
        elif stack:
            _take_out(cuts, stack.pop().begin, mark.end())
        else:
            cuts.append(_Cut(*mark.span()))
    return _with(text, cuts + stack)


def without_rows(text: str) -> str:
    """The text without lines that begin with a bar, unless it is the bar of a link that began before."""
    if not _ROW.search(text):
        return text
    links: list[_Cut] = []
    stack: list[int] = []
    for mark in _LINK_MARK.finditer(text):
        if mark[0] == "[[":
            stack.append(mark.start())
        elif stack:
            _take_out(links, stack.pop(), mark.end())
    joined = [link._replace(text=_BAR_LINE.sub("|", text[link.begin : link.end])) for link in links]
    return _ROW.sub("", _with(text, joined))


class _Cut(NamedTuple):
    """A range of a text, and what takes its place."""

    begin: int
    end: int
    text: str = ""


def _taken(cuts: list[_Cut], begin: int) -> list[_Cut]:
    """Take those behind `begin`, which are the last ones, out of the cuts."""
    number = len(cuts)
    while number and cuts[number - 1].begin >= begin:
        number -= 1
    taken, cuts[number:] = cuts[number:], []
    return taken


def _take_out(cuts: list[_Cut], begin: int, end: int) -> None:
    """Add a cut, in place of those inside it."""
    _taken(cuts, begin)
    cuts.append(_Cut(begin, end))


def _with(text: str, cuts: list[_Cut], begin: int = 0, end: int | None = None) -> str:
    """The text, or a part of it, with these cuts made."""
    parts: list[str] = []
    place = begin
    for cut in sorted(cuts):
        if cut.end > place:
            parts += [text[place : max(place, cut.begin)], cut.text]
            place = cut.end
    return "".join([*parts, text[place:end]])
