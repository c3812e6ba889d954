"""Wiki markup to text: whole expected values, and what the library that reads links never gets to see."""

import random
import re

import mwparserfromhell
import pytest

from pipelines.readers._wikitext import plain_text

LEFT_OUT = frozenset({"file", "category", "datei"})


def text(wikitext: str) -> str:
    return plain_text(wikitext, left_out=LEFT_OUT)


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''Art''' is ''old'', l''''x''' and '''''both''''', isn't it", "Art is old, l'x and both, isn't it"),
        ("[[a]] [[b|c]]s [[:File:x]] [[#d|e]] [[f (g)]]", "a cs File:x e f (g)"),
        ("a[[File:x.jpg|thumb|a [[b|c]]\n\nand [http://d e]]]z", "az"),
        ("a [[Datei:x.jpg]][[category: y]][[fr:Art]][[zh-min-nan:z]][[Bild:x.jpg|thumb|left|y]] b", "a b"),
        ("[http://a b ''c''] [http://a] http://d [//e f]", "b c http://d f"),
        ("a{{b|c={{d}}|[[e]]\n|f={{{g|}}} }}h", "ah"),
        ("a{{{{{b}}}}}c {{d|{{{e|}}}}}f", "ac f"),
        ("a\n{| class=x\n! b\n|-\n| c\n{|\n| d\n|}\n|}\ne", "a\ne"),
        (":{|\n| a\n|}\nb<table><tr><td>c<table><tr><td>d</table></table>e", "b\ne"),
        ("* a\n** b\n#c\n; d : e\n:: f\n----\ng", "a\nb\nc\nd : e\nf\ng"),
        ('a<ref>b {{c}}</ref>d<ref name="e" />f<REF name=g>h</REF>i<references />', "adfi"),
        ("a<math>\\frac{1}{2}</math>b<gallery>\nFile:x|y\n</gallery>c<!-- d {{ -->e<!-- f", "abce"),
        ("a<br>b<br/>c <b>d</b> <span style='x'>e</span><div>f</div>1 < 2 <g>", "a\nb\nc d e\nf\n1 < 2 <g>"),
        ("<nowiki>[[a]] {{b}} ''c'' <!--</nowiki> <!--<nowiki>-->d<pre>{|</pre>", "[[a]] {{b}} ''c'' <!-- d{|"),
        ("a&nbsp;b &lt;e&gt; &amp;amp; &#65; AT&T &#xD800; &bogus;", "a\xa0b <e> &amp; A AT&T \ufffd &bogus;"),
        ("__NOTOC__a (; ) b ({{c}}, {{d}})。[0, 1) x] [[broken", "a b。[0, 1) x] broken"),
        ("-{zh-hans:计算机; zh-hant:電腦}-和-{A|zh-cn:软件}-", "计算机和软件"),
        ("a }} b ]] c\n|} d {{ e\n| f = g", "a b c\nd e"),
        ("a <ref>b [[c]]", "a b c"),
        ("[[[a]]] and [[b|[c]]]", "a and [c]"),
        ("", ""),
    ],
)
def test_markup(wikitext, expected):
    assert text(wikitext) == expected


def test_headings_stay_where_text_follows():
    page = "Intro\n== A ==\n=== B ===\nb\n=== ''C'' ===\n{{c}}\n== D [[d|dd]] ==\n==E==\ne\n== Notes ==\n<references/>"
    assert text(page) == "Intro\nA\nB\nb\nE\ne"
    assert text("== D [[d|dd]] & co ==\nx") == "D dd & co\nx"


OPENERS = ["{{", "{{a|", "{{{", "[[", "[[a|", "[[File:a|", "[http://a ", "[", "{|\n", "{|\n|\n", "-{", "(", "(, "]
OPENERS += ["<", "<b ", "<ref>", "<ref name='", "<div>", "<nowiki>", "<!--", "''a'''", "=", "\n=a=\n", "==a", "*"]
OPENERS += [":;", "&", "&#x1F;", "http://a", "//", "__A", "x:", " ", "\t"]
CLOSERS = {
    "{{a|": "}}",
    "{{{": "}}}",
    "[[a|": "]]",
    "[[File:a|": "]]",
    "[http://a ": "]",
    "{|\n|\n": "\n|}\n",
    "[": "]",
}


def depth(block: str) -> int:
    """How deep square brackets are nested; every one has its partner."""
    deepest = level = 0
    for bracket in re.findall(r"[\[\]]", block):
        level += 1 if bracket == "[" else -1
        deepest = max(deepest, level)
        assert level >= 0, block
    assert level == 0, block
    return deepest


@pytest.mark.parametrize("opener", OPENERS)
def test_the_library_never_sees_marks_without_a_partner_or_deep_ones(opener, monkeypatch):
    """It reads such pages in time of the square or the cube of their length: 100 levels stand for many thousands."""
    seen: list[str] = []
    parse = mwparserfromhell.parse
    monkeypatch.setattr(mwparserfromhell, "parse", lambda block, **more: (seen.append(block), parse(block, **more))[1])
    pages = [opener * 100, "x" + opener * 100 + "\n", "\n".join([opener] * 100)]
    if closer := CLOSERS.get(opener):
        pages += [opener * 100 + "x" + closer * 100, (opener + "x" + closer) * 100]
    for page in pages:
        assert not re.search(r"\{\{|\[\[|\n\{\|", text(f"[[link]] & text\n{page}"))
    assert len(seen) >= len(pages)
    assert max(depth(block) for block in seen) <= 10
    assert [block for block in seen if re.search(r"\{\{|\}\}|\{\||<|''", block)] == []


def test_any_mixture_of_marks_becomes_text():
    marks = [*OPENERS, *CLOSERS.values()]
    marks += ["]]", "}}", "|}", "</ref>", "-->", "</nowiki>", "|", "a ", "中", "\n", "&amp;"]
    for seed in range(300):
        generator = random.Random(seed)
        page = "".join(generator.choices(marks, k=60))
        found = text(page)
        if "nowiki" not in page:  # what stands in it is shown as it is
            assert not re.search(r"\{\{|\[\[|''|<!--(?!.)|<ref>", found.replace("\n", " ")), page
