"""How docstrings and messages are worded, as far as a program can tell; docs/style.md has the rest, with examples."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("glm_model", "pipelines", "infra", "workflows", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py"))

OF = 'begins with "Of"'
TORN = "is torn by a wrap"
ANEW = 'says "anew", not "again" or "from scratch"'
NO = 'says "is no", not "is not a"'
TYPES = 'does not say "expected ..., got ..."'
REMEDY = "a try begins with a verb or is a command"

WIDTH = 120
ROOM = 10  # columns that a line in mid-sentence may leave empty although the next word would have fitted
# How a `try` may begin. A verb that is missing here is added here.
VERBS = """
    accept add allow append ask begin bring build call change check choose connect continue copy create decrease define
    delete describe do drop end evaluate export fill find fix free get give go have import increase install join keep
    leave let list load look lower make mend mount move name open pass pick point prepare put quote raise read reduce
    remove rename replace request restart restore run save see select send set share shorten show spell split start
    state stop submit switch take tell train try turn unset update upgrade use wait write
"""
COMMAND = re.compile(r"-|python |pip |make |ray |mlflow |\w+\.py |[A-Z_]+=|[\w{}]+(\.[\w{}]+)*\+?=|\{\}")
KIND = r"(number|string|text|list|object|mapping|bool|int|float|dict|tuple)s?"
NOT_THAT_KIND = re.compile(rf"[\w}}'], (no|not) (an? |the )?(whole |list of )?{KIND}\b.*")


class Finding(NamedTuple):
    """line: where, from 1; law: which rule it breaks; text: what stands there."""

    line: int
    law: str
    text: str


def findings(source: str) -> list[Finding]:
    """Everything in a module's source that breaks a rule of this page, in the order of lines."""
    tree = ast.parse(source)
    found = docstring_findings(source)
    lines = enumerate(source.splitlines(), start=1)
    found += [Finding(number, ANEW, line.strip()) for number, line in lines if re.search(r"\banew\b", line)]
    ignored = {node.value for node in docstrings(tree)}
    found += [finding for node, text in messages(tree, ignored) for finding in in_message(node.lineno, text)]
    found += [finding for node in remedies(tree) for finding in in_remedy(node)]
    return sorted(set(found))


def docstring_findings(source: str) -> list[Finding]:
    """Those in docstrings alone: what tests hold besides quotes messages of others, or bad ones."""
    lines = source.splitlines()
    return sorted({finding for node in docstrings(ast.parse(source)) for finding in in_docstring(node, lines)})


def docstrings(tree: ast.AST) -> list[ast.Expr]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# -- docstrings --------------------------------------------------------------------------------------------------------


def in_docstring(node: ast.Expr, lines: list[str]) -> Iterator[Finding]:
    assert isinstance(node.value, ast.Constant)
    text = str(node.value.value)
    if text.lstrip().startswith("Of "):
        yield Finding(node.lineno, OF, text.split("\n")[0])
    if match := re.search(r"(?<!there )(?<!There )\b(is|are|was|were) no(?! longer| more| \w+er\b)\s\S+", text):
        yield Finding(node.lineno, NO, match.group())
    first, end = node.lineno, node.end_lineno or node.lineno
    for start, paragraph in paragraphs(lines[first - 1 : end]):
        indented = indentation(paragraph[0]) > node.col_offset
        for number, line in torn(paragraph, commands=indented):
            yield Finding(first + start + number, TORN, line.strip())


def paragraphs(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, lines) of each paragraph of prose, without quotes at both ends of the docstring.

    A change of indentation, an item of a list, a command and a description `name: ...` begin a paragraph of their own.
    Tables and drawings, which have bars or several blanks in a row, belong to none.
    """
    start, found = 0, []
    for number, line in enumerate([*lines, ""]):
        bare = line.rstrip().removesuffix('"""').rstrip()
        words = re.sub(r'^r?"""', "", bare.strip())
        drawn = re.search(r"\S {2,}\S|^\s*[|+]", bare) is not None
        begins = re.match(r"[*-] |\d+\. |python |[\w`*.]+(, [\w`*.]+)*( \[[^]]*\])?: ", words) is not None
        if found and (not words or drawn or begins or indentation(bare) != indentation(found[-1])):
            yield start, found
            found = []
        if words and not drawn:
            start = start if found else number
            found = [*found, bare]


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def torn(paragraph: list[str], *, commands: bool) -> Iterator[tuple[int, str]]:
    """(number, line) of lines that an automatic wrap left behind: one orphan word, or a gap in mid-sentence.

    A break after a full stop, a colon or a semicolon is a writer's own. So is every break between `commands` that was
    not forced by the width.
    """
    for number, line in enumerate(paragraph):
        if number and len(line.split()) == 1 and len(line.strip()) <= 20:
            if not commands or len(paragraph[number - 1]) + 1 + len(line.strip()) > WIDTH:
                yield number, line
        elif number + 1 < len(paragraph) and not (commands or line.endswith((".", ":", ";", "?", "!", ".)"))):
            (word,) = re.findall(r"^\s*(`[^`]*`\S*|\S+)", paragraph[number + 1])
            if len(line) + 1 + len(word) + ROOM <= WIDTH:
                yield number, line


# -- messages ----------------------------------------------------------------------------------------------------------


def messages(tree: ast.AST, ignored: set[ast.expr]) -> Iterator[tuple[ast.expr, str]]:
    """Every text that is not a docstring; {} stands for what an f-string fills in."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (is_text(node) and id(node) not in parts):
            assert isinstance(node, ast.expr)
            if node not in ignored:
                yield node, template(node)


def template(node: ast.expr) -> str:
    """A text as written, with {} for what is not known before it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "{}"


def in_message(line: int, text: str) -> Iterator[Finding]:
    if match := re.search(r"(\bis|(?<!there )\b(are|was|were)) no\b(?! longer| more\b).*", text):
        yield Finding(line, NO, match.group())
    if match := NOT_THAT_KIND.search(text):
        yield Finding(line, TYPES, match.group())


def remedies(tree: ast.AST) -> Iterator[ast.expr]:
    """Texts that are given as `try_`: by that name, by place to a function of the module, or assigned to it.

    Where a function of the module is called for it, what that returns.
    """
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def called(node: ast.expr) -> ast.FunctionDef | None:
        return functions.get(node.func.id) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None

    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            function = called(node)
            names = [argument.arg for argument in function.args.args] if function else []
            given = [value for name, value in zip(names, node.args, strict=False) if name == "try_"]
            given += [keyword.value for keyword in node.keywords if keyword.arg == "try_"]
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["try_"]:
            given = [node.value]
        for value in given:
            function = called(value)
            returns = [n.value for n in ast.walk(function) if isinstance(n, ast.Return)] if function else [value]
            yield from (text for text in returns if text is not None)


def in_remedy(node: ast.expr) -> Iterator[Finding]:
    if isinstance(node, ast.IfExp):
        yield from in_remedy(node.body)
        yield from in_remedy(node.orelse)
        return
    text = template(node)
    if text and not COMMAND.match(text) and text.split()[0].strip(",:;") not in VERBS.split():
        yield Finding(node.lineno, REMEDY, text)


# -- the checks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_wording(path):
    found = [f"{path.relative_to(ROOT)}:{line}: {law}: {text}" for line, law, text in findings(path.read_text())]
    assert found == [], "\n".join(["docs/style.md says how to write it", *found])


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_wording_of_tests(path):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {law}: {text}" for line, law, text in docstring_findings(path.read_text())
    ]
    assert found == [], "\n".join(["docs/style.md says how to write it", *found])


def test_docstrings_that_begin_with_of_are_found():
    source = '''
"""Of nothing."""
class A:
    """Office hours."""
    seed: int = 0
    """Of sampling."""
    def f(self):
        """The seed.

        Of which one would say more.
        """
'''
    assert findings(source) == [
        Finding(2, OF, "Of nothing."),
        Finding(6, OF, "Of sampling."),
    ]


FULL = "A segment of text that is held in a column of its own, which a reader gets at without a decoder, and without"


def test_torn_docstrings_are_found():
    source = f'''
"""{FULL}
a
copy: about ten times the rate.
"""
def f():
    """{FULL}
    one.
    """
def g():
    """Takes a segment's tokens,
    which may be none, and gives them back in the same order.

        {FULL} more
        ...
    """
'''
    assert findings(source) == [
        Finding(3, TORN, "a"),
        Finding(8, TORN, "one."),
        Finding(11, TORN, '"""Takes a segment\'s tokens,'),
        Finding(15, TORN, "..."),
    ]


def test_translated_words_are_found_in_comments_too():
    assert findings("x = 1  # drawn anew\n") == [Finding(1, ANEW, "x = 1  # drawn anew")]
    assert findings("renew = 1\n") == []


def test_docstrings_that_are_whole_pass():
    source = f'''
"""{FULL}
making a copy. A short last line ends a paragraph.

This line ends where its sentence does.
So the next one begins a thought of its own; and here
`a piece of code that is never broken, however long it is, as it would be wrong to copy it`.

* items of a list
* stand alone

    indented   lines
    as they
    are

tokens, targets: int64 [B, L]
mask: None where there is no mask; it is no longer than a row and is no larger than that, and no more

| a | table |
|---|---|
python workflows/pretrain.py --config a
python workflows/pretrain.py --config b
"""
x = 1
"One line."
'''
    assert findings(source) == []


def test_negations_by_no_are_found():
    source = '''
def f(x):
    """What is no document. These are no longer wanted."""
    if x:
        raise ValueError(f"{x} is no run")
    return "there is no lock", "is no longer there", "they were no runs", "there are no runs", "no such run"
'''
    assert findings(source) == [
        Finding(3, NO, "is no document."),
        Finding(5, NO, "is no run"),
        Finding(6, NO, "is no lock"),
        Finding(6, NO, "were no runs"),
    ]


def test_types_are_refused_by_what_was_expected():
    source = """
def f(x, kind):
    raise TypeError(f"text is a {kind}, no string")
    raise TypeError("a number, not a list of numbers, was given " + f"for {x}")
    raise TypeError(f"text: expected a string, got {kind}")
"""
    assert findings(source) == [
        Finding(3, TYPES, "}, no string"),
        Finding(4, TYPES, "r, not a list of numbers, was given "),
    ]


def test_remedies_without_a_verb_are_found():
    source = """
def f(url):
    raise UserError(f"{url} is bad", try_="a folder")
    raise UserError("bad", try_=f"the folder {url}" if url else "choose a folder")
    raise UserError("bad", try_="30M, the default")
    raise UserError("bad", try_=remedy(url))
    try_ = "fewer of them"
    refuse("bad", "Another one")
    for good in ("a folder",):
        raise UserError("bad", try_=good)
    raise UserError("bad", try_="use a folder")
    raise UserError("bad", try_="--run.name=other, or python workflows/pretrain.py")
    raise UserError("bad", try_=f"data.row_width={url}")
    raise UserError("bad", try_=f"{url}/model")
    raise UserError("bad", try_="pip install x")
    raise UserError("bad", try_="MLFLOW_TRACKING_URI=http://server")


def remedy(url):
    if url:
        return "other credentials"
    return "check the credentials"


def refuse(message, try_):
    raise UserError(message, try_=try_)
"""
    assert findings(source) == [
        Finding(3, REMEDY, "a folder"),
        Finding(4, REMEDY, "the folder {}"),
        Finding(5, REMEDY, "30M, the default"),
        Finding(7, REMEDY, "fewer of them"),
        Finding(8, REMEDY, "Another one"),
        Finding(21, REMEDY, "other credentials"),
    ]
