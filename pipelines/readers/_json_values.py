"""JSON values that follow each other in whatever layout: one array of objects, objects without line ends between them,
or spread over several lines. Streams: memory holds one value and a chunk. About 60 MB/s per core.

A value that is damaged costs itself: reading goes on where the next object seems to begin.

    [{"text": "a"},        at the top, brackets, commas and white space separate values
     {"text": "b},         malformed; the next object begins on a line of the same indentation
     {"text": "c"}]
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_READ_BYTES = 1 << 16
_MAX_VALUE = 1 << 28  # characters: an open quote must end somewhere
_MAX_GAP = 1 << 16  # characters
_CUT = 16  # characters: of text that ends early, the decoder complains at most so far before its end
_LINK = 80  # characters between two objects, at most, where one is searched behind damage
_SEPARATORS = re.compile(r"[\s,\[\]\ufeff]*")
_SCALAR = re.compile(r"[^\s,\[\]{}\"]+|[{}\"]")
_BETWEEN_OBJECTS = re.compile(rf"\}}(?=[\s,]{{0,{_LINK}}}\{{)")
_DECODER = json.JSONDecoder()


class Value(NamedTuple):
    """A JSON value, or what stands in the place of one."""

    offset: int
    """Where its first byte stands."""
    text: str
    """As it stands there, or its beginning if it is damaged; bytes that are not UTF-8 are surrogates (Python's
    handler `surrogateescape`).
    """
    value: Any
    error: str = ""
    """Why there is no value."""
    is_cut: bool = False
    """Whether the stream ends inside it, or inside the array around it."""


def read_values(stream: BinaryIO) -> Iterator[Value]:
    """All values of a stream, in order. Arrays at the top are not values but what holds them."""
    text = _Text(stream)
    depth = 0
    while True:
        is_first = text.offset == 0
        gap = _gap(text)
        depth += gap.count("[") - gap.count("]")
        if text.at == len(text.left):
            if text.read_more():
                continue
            break
        indent = len(gap.rpartition("\n")[2]) if "\n" in gap or is_first else None
        value = _next_value(text, indent)
        yield value
        if value.error:
            depth = 0  # brackets may have been passed
        if value.is_cut:
            break
    if depth > 0:
        yield Value(text.offset, "", None, "the array is not closed", is_cut=True)


def is_cut_off(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the decoder failed because the text ends, and might not with more of it."""
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - _CUT


class _Text:
    """What was read of a stream and not yet passed, as text: `left` from `at`, which is byte `offset` of the stream."""

    def __init__(self, stream: BinaryIO):
        self.left, self.at, self.offset = "", 0, 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._ended = False

    def skip(self, end: int) -> str:
        """Pass what stands before `end`, and return it."""
        passed, self.at = self.left[self.at : end], end
        self.offset += len(passed) if passed.isascii() else len(passed.encode(errors="surrogateescape"))
        return passed

    def read_more(self) -> bool:
        """Read as much again as is left, at least a chunk; False at the end of the stream."""
        if self._ended:
            return False
        data = self._stream.read(max(_READ_BYTES, len(self.left) - self.at))
        self._ended = not data
        self.left, self.at = self.left[self.at :] + self._decoder.decode(data, final=self._ended), 0
        return True


def _gap(text: _Text) -> str:
    """Pass what separates values, and return it; of a long gap, a part."""
    while True:
        end = _SEPARATORS.match(text.left, text.at).end()  # type: ignore[union-attr]
        if end < len(text.left) or end - text.at > _MAX_GAP or not text.read_more():
            return text.skip(end)


def _next_value(text: _Text, indent: int | None) -> Value:
    """The value that begins here; reads as much as it needs. indent: characters before it on its line; None where
    it does not begin one.
    """
    if text.left[text.at] not in '{"':
        return _scalar(text)
    while True:
        start = text.at
        try:
            value, end = _DECODER.raw_decode(text.left, start)
        except RecursionError:  # its own words depend on the depth of the call
            return _damaged(text, indent, start + 1, "nested too deeply")
        except json.JSONDecodeError as error:
            may_be_cut = is_cut_off(text.left, error) and len(text.left) - start < _MAX_VALUE
            if may_be_cut and text.read_more():
                continue
            place = error.pos - start
            return _damaged(text, indent, max(error.pos, start + 1), f"{error.msg}: character {place}", may_be_cut)
        offset = text.offset
        return Value(offset, text.skip(end), value)


def _scalar(text: _Text) -> Value:
    """A number or a word, which ends where something else begins."""
    while (end := _SCALAR.match(text.left, text.at).end()) == len(text.left) and text.read_more():  # type: ignore
        if end - text.at > _MAX_VALUE:
            break
    offset, word = text.offset, text.skip(end)
    try:
        return Value(offset, word, json.loads(word))
    except ValueError as error:
        return Value(offset, word[:_LINK], None, str(error))


def _damaged(text: _Text, indent: int | None, search: int, error: str, may_be_cut: bool = False) -> Value:
    """Pass the value that begins here, up to the next object behind `search`."""
    # Objects within it are further to the right; where all stand on one line, there is only what stands between two.
    next_object = _BETWEEN_OBJECTS
    if indent is not None:
        next_object, search = re.compile(rf"(?=\n[ \t,\[]{{{indent}}}\{{)"), text.at
    offset, head = text.offset, text.left[text.at : text.at + _LINK]
    while not (found := next_object.search(text.left, search)):
        kept = max(text.at, len(text.left) - 2 * _LINK - (indent or 0))
        text.skip(kept)
        if not text.read_more():
            text.skip(len(text.left))
            return Value(offset, head, None, error, is_cut=may_be_cut)
        search = max(search - kept, 0)
    text.skip(found.end())
    return Value(offset, head, None, error)
