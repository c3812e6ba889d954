"""Cut documents into segments: `[CLS]` and text of one document, cut at sentence ends, at most sequence_length tokens.

A long text is first split into chunks at sentence ends: of some hundred characters, or of about a sentence in scripts
with a token for every character. A segment is a run of whole chunks:

    text       First sentences. Some more of them. And others. The end.
    chunks     |First sentences.| Some more of them.| And others.| The end.|
    tokens     |  3             |  5                |  3         |  3      |
    segments   [CLS]  3 + 5                        |[CLS]  3 + 3       eos|       at most 10 tokens

The ids are those of the whole text. Chunks are tokenised by themselves where the tokenizer says that this gives the
same ids: then the bytes of every segment are known without the token offsets, which would cost a sixth of its speed.
For other tokenizers a text is tokenised whole, with offsets. Most texts are short, and one chunk.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from glm_model.layout import ranges
from glm_model.tokenizer import MayCut, Tokenizer
from pipelines.document import segment_ids
from pipelines.ragged import Segments, offsets_of
from pipelines.sentence_marks import ASCII_SENTENCE_END, SENTENCE_END, SENTENCE_MARK

CHUNK_CHARACTERS = 250
# ASCII text has about four characters a token, other scripts down to one: it is cut half as often, which saves 4 % of
# the tokenizer's time.
ASCII_CHUNK_CHARACTERS = 500
# Ideographs, and other scripts of three bytes a character, have up to a token a character: a segment of 256 tokens is
# well filled only if it can end behind any sentence.
WIDE_CHUNK_CHARACTERS = 20
VERSION = 2
"""Part of the names of stores, for the ids and the places where texts are cut. Version 1 cut at any line break, and
encoded the chunks of some tokenizers unlike the whole text.
"""

_SEARCHED = 1000  # characters in which a place to cut is looked for
_USUAL = 300  # characters in which most prose has a sentence end that is sure
_LEAST_CUT = 100  # characters: shorter texts stay whole
_WIDE_BYTES = 2.2  # of a character, on average
# In hard-wrapped text a line break ends no sentence: sentence ends come first. Text that is all in lower case has none
# that are sure.
_OTHER_PLACES = (SENTENCE_MARK, SENTENCE_END, re.compile(r"(?=\n)"), re.compile(r"(?=\s\S)"))


class Chunks(NamedTuple):
    """Chunks of N documents: texts [C], offsets [N+1] into them, num_bytes [C] (UTF-8)."""

    texts: list[str]
    offsets: np.ndarray
    num_bytes: np.ndarray


@dataclass(frozen=True, slots=True)
class DocumentSegments(Segments):
    """The segments of some documents, one document after the other; document [N]: the number of each one's document."""

    document: np.ndarray


class EncodedDocuments(NamedTuple):
    """N documents as C chunks, with the ids of the whole texts: flat [T], token_offsets [C+1], unknown_bytes [N]."""

    chunks: Chunks
    flat: np.ndarray
    token_offsets: np.ndarray
    unknown_bytes: np.ndarray


def encode_documents(texts: list[str], tokenizer: Tokenizer) -> EncodedDocuments:
    """Split each text into chunks, with the ids that the whole text has.

    Where the tokenizer says at which places a text may be cut, chunks are encoded by themselves: they end at such
    places alone, so a text without any is one chunk. Otherwise a text is encoded whole, and cut where a token begins.
    """
    if tokenizer.may_cut:
        chunks = chunk_documents(texts, tokenizer.may_cut)
        flat, offsets = tokenizer.encode_batch(chunks.texts)
        unknown = np.cumsum(np.append(0, tokenizer.unknown_bytes(chunks.texts, flat, offsets)))
        return EncodedDocuments(chunks, flat, offsets, np.diff(unknown[chunks.offsets]))
    parts: list[str] = []
    counts, unknown = [0], []
    ids = [np.zeros(0, np.uint32)]
    for text in texts:
        whole = tokenizer.encode_whole(text)
        starts = np.maximum.accumulate(whole.starts)  # a normalizer may put marks in another order
        wanted = _chunks_of(text, _between_tokens(starts))
        begin = np.searchsorted(starts, np.cumsum([len(chunk) for chunk in wanted[:-1]]))
        places = [0, *np.append(starts, len(text))[begin].tolist(), len(text)]
        parts += [text[a:b] for a, b in pairwise(places)]
        counts.append(len(wanted))
        ids += np.split(whole.ids, begin)
        unknown.append(whole.unknown_bytes)
    token_offsets = np.cumsum([len(own) for own in ids])
    return EncodedDocuments(
        _chunks(parts, np.cumsum(counts)), np.concatenate(ids), token_offsets, np.array(unknown, np.int64)
    )


def chunk_documents(texts: list[str], may_cut: MayCut) -> Chunks:
    """Split each text into chunks; concatenated, a text's chunks are the text."""
    chunks: list[str] = []
    offsets = np.zeros(len(texts) + 1, np.int64)
    for i, text in enumerate(texts):
        chunks += _chunks_of(text, may_cut)
        offsets[i + 1] = len(chunks)
    return _chunks(chunks, offsets)


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


def _chunks(texts: list[str], offsets: np.ndarray) -> Chunks:
    return Chunks(texts, offsets, np.fromiter(map(len, map(str.encode, texts)), np.int64, len(texts)))


def _chunks_of(text: str, may_cut: MayCut) -> list[str]:
    """The chunks of one text: itself, where it is short."""
    if len(text) <= _LEAST_CUT:
        return [text]
    size = _chunk_characters(text)
    return [text] if len(text) <= 2 * size else _split(text, size, may_cut)


def _chunk_characters(text: str) -> int:
    if text.isascii():
        return ASCII_CHUNK_CHARACTERS
    is_wide = len(text.encode()) > _WIDE_BYTES * len(text)
    return WIDE_CHUNK_CHARACTERS if is_wide else CHUNK_CHARACTERS


def _split(text: str, size: int, may_cut: MayCut) -> list[str]:
    """Cut at the first sentence end behind every `size` characters at which the text may be cut; only the text behind
    that point is searched.
    """
    chunks, start, end = [], 0, len(text)
    while end - start > 2 * size:
        first = start + size
        # What ends a sentence in ASCII depends on no more than one character of another script: the one before a mark.
        sure = ASCII_SENTENCE_END if text[first - 1 : first + _USUAL].isascii() else SENTENCE_END
        stop = _first(sure, text, first, first + _USUAL, may_cut)
        if stop is None:
            stop = _other_place(text, first, may_cut)
        chunks.append(text[start:stop])
        start = stop
    if start < end:
        chunks.append(text[start:])
    return chunks


def _other_place(text: str, first: int, may_cut: MayCut) -> int:
    """Where to cut a text behind `first` that has no sure sentence end for long (tables, code, lists): at a line break,
    or at a space.
    """
    last = first + _SEARCHED
    stops = (_first(pattern, text, first, last, may_cut) for pattern in _OTHER_PLACES)
    anywhere = (at for at in range(last, len(text)) if may_cut(text, at))
    return next((stop for stop in stops if stop is not None), None) or next(anywhere, len(text))


def _first(pattern: re.Pattern[str], text: str, first: int, last: int, may_cut: MayCut) -> int | None:
    """The end of the first match in text[first:last] at which the text may be cut."""
    match = pattern.search(text, first, last)
    if match is None or (match.end() < len(text) and may_cut(text, match.end())):  # nearly always: half the time
        return match and match.end()
    ends = (match.end() for match in pattern.finditer(text, first, last))
    return next((end for end in ends if end < len(text) and may_cut(text, end)), None)


def _between_tokens(starts: np.ndarray) -> MayCut:
    """Where a token begins, or the white space before it, which may be nobody's. starts: of the tokens, ascending."""
    places = frozenset(starts.tolist())
    return lambda text, at: at in places or text[at].isspace()


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
