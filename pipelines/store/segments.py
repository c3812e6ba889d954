"""Cut documents into segments: `[CLS]` and text of one document, cut at sentence ends, at most sequence_length tokens.

A long text is first split into chunks of some hundred characters at sentence ends, which are tokenised by themselves; a
segment is a run of whole chunks:

    text       First sentences. Some more of them. And others. The end.
    chunks     |First sentences.| Some more of them.| And others.| The end.|
    tokens     |  3             |  5                |  3         |  3      |
    segments   [CLS]  3 + 5                        |[CLS]  3 + 3       eos|       at most 10 tokens

So the bytes of every segment are known exactly, without the token offsets that would cost a sixth of the tokenizer's
speed. Most texts are short, and one chunk.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from glm_model.layout import ranges
from pipelines.document import segment_ids
from pipelines.ragged import Segments, offsets_of

CHUNK_CHARACTERS = 250
# ASCII text has about four characters a token, other scripts down to one: it is cut half as often, which saves 4 % of
# the tokenizer's time.
ASCII_CHUNK_CHARACTERS = 500

# A place to cut: behind a sentence end and its closing marks, before the white space (byte-level tokenizers join a word
# with the space before it); a line break; or, in scripts without spaces, directly behind the sentence end.
_CUT = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)|(?=\n)|[。！？…][”’」』）]*")
_SPACE = re.compile(r"(?=\s\S)")


class Chunks(NamedTuple):
    """Chunks of N documents: texts [C], offsets [N+1] into them, num_bytes [C] (UTF-8)."""

    texts: list[str]
    offsets: np.ndarray
    num_bytes: np.ndarray


@dataclass(frozen=True, slots=True)
class DocumentSegments(Segments):
    """The segments of some documents, one document after the other; document [N]: the number of each one's document."""

    document: np.ndarray


def chunk_documents(texts: list[str]) -> Chunks:
    """Split each text into chunks of about CHUNK_CHARACTERS; concatenated, a text's chunks are the text."""
    chunks: list[str] = []
    offsets = np.zeros(len(texts) + 1, np.int64)
    for i, text in enumerate(texts):
        size = ASCII_CHUNK_CHARACTERS if text.isascii() else CHUNK_CHARACTERS
        if len(text) <= 2 * size:
            chunks.append(text)
        else:
            chunks.extend(_split(text, size))
        offsets[i + 1] = len(chunks)
    num_bytes = np.fromiter((len(c) if c.isascii() else len(c.encode()) for c in chunks), np.int64, len(chunks))
    return Chunks(chunks, offsets, num_bytes)


def segment_documents(
    flat: np.ndarray,
    token_offsets: np.ndarray,
    chunks: Chunks,
    document_keys: np.ndarray,
    *,
    length: int,
    cls: int,
    eos: int,
) -> DocumentSegments:
    """Segments of N documents from the tokens of their chunks.

    flat [T] and token_offsets [C+1] are the chunks' tokens; document_keys uint64 [N]. A segment takes as many whole
    chunks as fit behind `[CLS]`; a chunk longer than a segment is cut hard. A document's last segment ends in eos. A
    document without any token gives no segment.
    """
    chunk_tokens = np.diff(token_offsets)
    begin, end = token_offsets[chunks.offsets[:-1]], token_offsets[chunks.offsets[1:]]
    num_bytes = np.diff(np.concatenate(([0], np.cumsum(chunks.num_bytes)))[chunks.offsets])
    fits = end - begin <= length - 2  # the usual case: [CLS], the whole text, eos
    whole = np.flatnonzero(fits & (end > begin))
    table = [np.stack([whole, 0 * whole, begin[whole], end[whole], num_bytes[whole]], axis=1)]
    for doc in np.flatnonzero(~fits).tolist():
        first, last = chunks.offsets[doc], chunks.offsets[doc + 1]
        ranges = _ranges(
            int(begin[doc]), chunk_tokens[first:last].tolist(), chunks.num_bytes[first:last].tolist(), length
        )
        table.append(np.array([(doc, number, *one) for number, one in enumerate(ranges)], np.int64))
    rows = np.concatenate(table)
    return _assemble(flat, rows[np.argsort(rows[:, 0], kind="stable")], document_keys, cls=cls, eos=eos)


def _split(text: str, size: int) -> list[str]:
    """Cut at the first sentence end behind every `size` characters; only the text behind that point is searched."""
    chunks, start, end = [], 0, len(text)
    while end - start > 2 * size:
        cut = _CUT.search(text, start + size, start + 3 * size)
        if cut is None or cut.end() >= end:  # no sentence end for long: tables, code, lists
            cut = _SPACE.search(text, start + size, start + 3 * size)
        stop = min(cut.end(), end) if cut else min(start + 3 * size, end)
        chunks.append(text[start:stop])
        start = stop
    if start < end:
        chunks.append(text[start:])
    return chunks


def _ranges(begin: int, sizes: list[int], num_bytes: list[int], length: int) -> list[tuple[int, int, int]]:
    """(first token, one past the last, bytes) of each segment of a document; the last keeps a place for eos.

    begin: the document's first token; sizes, num_bytes: of its chunks.
    """
    ranges = []
    head = tail = begin
    taken = 0
    final = max(index for index, size in enumerate(sizes) if size)  # white space at the end gives chunks without tokens
    for index, (size, size_bytes) in enumerate(zip(sizes, num_bytes, strict=True)):
        room = length - (2 if index >= final else 1)
        if tail > head and tail - head + size > room:
            ranges.append((head, tail, taken))
            head, taken = tail, 0
        tail += size
        taken += size_bytes
        while tail - head > room:  # one chunk alone is longer than a segment: bytes are shared out by tokens
            part = taken * room // (tail - head)
            ranges.append((head, head + room, part))
            head, taken = head + room, taken - part
    if tail > head:
        ranges.append((head, tail, taken))
    return ranges


def _assemble(
    flat: np.ndarray, table: np.ndarray, document_keys: np.ndarray, *, cls: int, eos: int
) -> DocumentSegments:
    """The segments of a table, int64 [S, 5]: document, number in it, first token, one past the last, bytes.

    flat      a b c d e f g       two documents, the first of two segments:  (0, 0, 0, 2)  (0, 1, 2, 4)  (1, 0, 4, 7)
    tokens    C a b C c d E C e f g E
    offsets   0     3       7         12
    body        x x   x x     x x x       where text goes
    """
    doc, number, head, tail, num_bytes = table.T
    last = np.append(doc[1:] != doc[:-1], True)[: len(doc)]
    sizes = tail - head + 1 + last
    offsets = offsets_of(sizes)
    tokens = np.empty(int(offsets[-1]), flat.dtype)
    body = np.ones(len(tokens), bool)
    body[offsets[:-1]] = False
    body[offsets[1:][last] - 1] = False
    tokens[body] = flat[ranges(head, tail - head)]
    tokens[offsets[:-1]] = cls
    tokens[offsets[1:][last] - 1] = eos
    return DocumentSegments(tokens, offsets, segment_ids(document_keys[doc], number), num_bytes.copy(), doc.copy())
