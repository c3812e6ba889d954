"""The English documentation that is installed with Python: a corpus on any machine, without a download.

Documents: one per module file (its docstrings of 200 characters and more, in order), per topic of `help()`, per
package description. Of each the paragraphs that are running text: examples, tables, signatures and headings teach a
small model to write dots and dashes into every blank. Files are parsed with `ast`, never imported. Listing reads every
file once (about 1 CPU-s for 14,000 files, 230 MB); parsing runs at 9 MB/s of source, so only files with much
documentation are listed: 30 MB of text take about 10 CPU-s.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infra.config import Count, dataclass_from
from pipelines.document import Document, Rejected, decode_utf8

if TYPE_CHECKING:
    from infra.storage import FileInfo

SUFFIXES = (".py", "METADATA")

_MIN_DOCSTRING = 200  # characters: shorter ones say little more than the name does
_MIN_SHARE = 0.3  # of a file in long triple-quoted strings: two thirds of all such text, in a third of the source
_SKIPPED_FOLDERS = {"test", "tests", "testing", "idle_test", "lib2to3", "__pycache__", "site-packages", "dist-packages"}
_TOPICS = "stdlib/pydoc_data/topics.py"
_BLANK_LINES = re.compile(r"\n\s*\n")
_LETTER = re.compile(r"[^\W\d_]")
_PLAIN_WORD = re.compile(r"[(\"'`*]*[^\W\d_]+(?:['’-][^\W\d_]+)*[)\"'`*]*[.,;:!?]*\Z")
_MARKUP = re.compile(  # :func:`name`, `name`_, *emphasis*, **strong**
    r"(?<!\w):(?:\w+:)+`~?|`+_{0,2}|(?<!\S)\*{1,2}(?=\w)|(?<=\w)\*{1,2}(?!\w)"
)
_MIN_WORDS, _MIN_PLAIN, _ENDS = 8, 0.8, ".!?:\"')"
_DEFAULT_BYTES = Count(30_000_000)


@dataclass
class Options:
    max_bytes: Count = _DEFAULT_BYTES
    """Maximum amount of text in bytes, roughly. Large packages are cut first, so that small ones stay whole."""
    prose: bool = True
    """Whether paragraphs that are not running text are left out: about two fifths of the text."""


def list_inputs(source: Any) -> list[FileInfo]:
    """Files below the standard library and site-packages, sorted; paths do not depend on where Python is installed."""
    from infra.storage import FileInfo

    options = dataclass_from(Options, source.options, where="in the options of the reader 'pydocs'")
    found = sorted(_candidates())
    quota = _quota([(_package(path), text_bytes) for path, _, text_bytes in found], options.max_bytes)
    left: dict[str, int] = {}
    files = []
    for path, file, text_bytes in found:
        package = _package(path)
        left[package] = left.get(package, quota) - text_bytes
        if left[package] >= 0:
            stat = os.stat(file)
            files.append(FileInfo(str(file), path, stat.st_size, str(stat.st_mtime_ns)))
        else:
            left[package] += text_bytes  # a smaller file further on may still fit
    return files


def read(stream: BinaryIO, *, path: str, options: Options) -> Iterator[Document | Rejected]:
    """`path` says what kind of file it is."""
    for found in _whole(stream.read(), path):
        if isinstance(found, Rejected) or not options.prose:
            yield found
        elif text := running_text(found.text):
            yield replace(found, text=text)
        else:
            yield Rejected(found.offset, "no_documentation", "no paragraph of running text")


# --- what to read -----------------------------------------------------------------------------------------------------


def _candidates() -> Iterator[tuple[str, Path, int]]:
    """(path below root, file, upper bound of its bytes of text), in no order."""
    paths = sysconfig.get_paths()
    roots = {("stdlib", paths["stdlib"]), ("site-packages", paths["purelib"]), ("site-packages", paths["platlib"])}
    for label, root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if f not in _SKIPPED_FOLDERS]
            for name in names:
                if name.endswith(".py") or (name == "METADATA" and folder.endswith(".dist-info")):
                    file = Path(folder, name)
                    path = f"{label}/{file.relative_to(root).as_posix()}"
                    if text_bytes := _text_bytes(file, path):
                        yield path, file, text_bytes


def _text_bytes(file: Path, path: str) -> int:
    """Bytes of text in a file, at most; 0 where there is little documentation in it."""
    try:
        data = file.read_bytes()
    except OSError:
        return 0
    if path == _TOPICS or path.endswith("METADATA"):
        return len(data)
    quoted = data.split(b'"""')[1::2]
    text_bytes = sum(len(block) for block in quoted if len(block) >= _MIN_DOCSTRING)
    return text_bytes if text_bytes >= _MIN_SHARE * len(data) else 0


def _package(path: str) -> str:
    """The top-level package or module: numpy for site-packages/numpy/linalg/linalg.py."""
    return "/".join(path.split("/")[:2])


def _quota(sizes: list[tuple[str, int]], max_bytes: int) -> int:
    """The largest share that every package may have so that together they stay below max_bytes."""
    totals: dict[str, int] = {}
    for package, size in sizes:
        totals[package] = totals.get(package, 0) + size
    room, ascending = max_bytes, sorted(totals.values())
    for place, total in enumerate(ascending):
        share = room // (len(ascending) - place)
        if total > share:
            return share
        room -= total
    return max(ascending, default=0)


# --- reading it -------------------------------------------------------------------------------------------------------


def running_text(text: str) -> str:
    """The paragraphs that are sentences: of eight words and more, four fifths of them plain, behind the last a mark.
    Lines without a letter, which underline a heading, go from these too, and reStructuredText's marks around words.
    """
    kept = []
    for paragraph in _BLANK_LINES.split(text):
        words = paragraph.split()
        plain = sum(bool(_PLAIN_WORD.match(word)) for word in words)
        if len(words) >= _MIN_WORDS and plain >= _MIN_PLAIN * len(words) and words[-1][-1] in _ENDS:
            kept.append("\n".join(line for line in paragraph.splitlines() if _LETTER.search(line)))
    return _MARKUP.sub("", "\n\n".join(kept))


def _whole(data: bytes, path: str) -> Iterator[Document | Rejected]:
    decoded = decode_utf8(data)
    if decoded is None:
        yield Rejected(0, "not_utf8", path)
    elif path == _TOPICS:
        yield from _topics(decoded[0])
    elif path.endswith("METADATA"):
        yield _description(decoded[0])
    else:
        yield _docstrings(decoded[0])


def _docstrings(source: str) -> Document | Rejected:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (RecursionError, MemoryError):  # Python's parser says MemoryError of too many brackets
        return Rejected(0, "syntax_error", "nested too deeply")
    except (SyntaxError, ValueError) as error:
        return Rejected(0, "syntax_error", str(error))
    texts = [text for text in _walk(tree) if len(text) >= _MIN_DOCSTRING]
    return (
        Document("\n\n".join(texts), 0) if texts else Rejected(0, "no_documentation", "no docstring of 200 characters")
    )


def _walk(node: Any) -> Iterator[str]:
    """Docstrings of a module, its classes and functions in source order. Bodies of functions are not searched."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield text
    if isinstance(node, ast.Module | ast.ClassDef | ast.If | ast.Try):
        for child in node.body:
            yield from _walk(child)


def _topics(source: str) -> Iterator[Document | Rejected]:
    assignment = next(node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    assert isinstance(assignment.value, ast.Dict)
    for key, value in zip(assignment.value.keys, assignment.value.values, strict=True):
        assert key is not None
        offset = starts[key.lineno - 1] + key.col_offset
        yield Document(ast.literal_eval(value), offset, {"title": ast.literal_eval(key)})


def _description(metadata: str) -> Document | Rejected:
    message = message_from_string(metadata)
    body = message.get_payload()
    title = f"{message['Name']}: {message['Summary'] or ''}".strip()
    if isinstance(body, str) and len(body.strip()) >= _MIN_DOCSTRING:
        return Document(f"{title}\n\n{body.strip()}", 0, {"title": title})
    return Rejected(0, "no_documentation", "no description of 200 characters")
