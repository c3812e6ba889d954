"""What flows through preparation: one document, or the reason why there is none; and how both are named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import keyed

# A file of another encoding shows far more undecodable characters than this; damage in transit shows fewer.
_MAX_REPLACED_SHARE = 0.01
_NO_BREAK_SPACE, _IDEOGRAPHIC_SPACE = "\u00a0".encode(), "\u3000".encode()
# Reasons that do not count as malformed records: what is left out on purpose, and what concerns a file as a whole.
_LEFT_OUT = {"redirect", "namespace", "no_documentation", "syntax_error", "no_text", "not_wikitext"}
_WHOLE_FILE = {"empty_file", "no_documents", "binary_file", "vanished", "unreadable", "truncated_archive"}
NOT_MALFORMED = frozenset(_LEFT_OUT | _WHOLE_FILE | {"compression_ratio"})
CUT_OFF = frozenset({"truncated_archive", "truncated_xml", "truncated_json"})
"""Reasons of files that end before their end mark: nobody knows how much of them is missing."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its reader found it. Readers may leave half a surrogate pair in it: cleaning repairs that."""

    text: str
    offset: int
    """Its first byte in the decompressed file."""
    meta: dict[str, Any] | None = None
    """Anything the reader knows. "repaired" names what it had to repair, if anything; "holes" counts what it left out
    of sentences, by names.
    """


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in a file that is not a document, and why."""

    offset: int
    """Where it stands: a byte of the decompressed file."""
    reason: str
    """A fixed word, which is counted."""
    detail: str = ""
    """Free text."""
    lost: int | None = 0
    """Bytes of the file, as stored, that give no document because of this. A reader that cannot go on gives None: all
    that follows `offset`.
    """


def document_id(source_name: str, path_below_root: str, offset: int) -> bytes:
    """16 bytes that name a document: the same wherever the source lies and whatever else is in it."""
    name = f"{source_name}\0{path_below_root}\0{offset}".encode(errors="surrogatepass")
    return hashlib.blake2b(name, digest_size=16).digest()


def content_key(text: str | bytes) -> int:
    """Unsigned 64-bit hash of a text, or of its UTF-8; texts that differ only in white space share it."""
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    data = data.translate(None, b" \t\n\r\v\f")
    if not data.isascii():
        data = data.replace(_NO_BREAK_SPACE, b"").replace(_IDEOGRAPHIC_SPACE, b"")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def decode_utf8(data: bytes) -> tuple[str, bool] | None:
    """(text, whether it was repaired) or None when `data` is not UTF-8.

    Removes a byte order mark and turns CRLF into LF.
    Invalid bytes become U+FFFD if at most 1 % of the characters are hit.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    repaired = False
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        if text.count("\ufffd") - data.count(b"\xef\xbf\xbd") > _MAX_REPLACED_SHARE * len(text):
            return None
        repaired = True
    return (text.replace("\r\n", "\n") if "\r" in text else text), repaired


def without_surrogates(text: str) -> str:
    """The text with UTF-16 surrogates, which UTF-8 cannot hold, joined to characters or turned into U+FFFD.

    Strings of JSON and of Python source may hold them ("\\ud83d"), and so may file names. A text without surrogates is
    returned as the same object.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_document(data: bytes, offset: int, meta: dict[str, Any] | None = None) -> Document | Rejected:
    """The document that these UTF-8 bytes are, or a Rejected if too many do not decode."""
    decoded = decode_utf8(data)
    if decoded is None:
        return Rejected(offset, "not_utf8", f"more than 1 % of the characters of {data[:40]!r}... do not decode")
    text, repaired = decoded
    return Document(text, offset, {**(meta or {}), "repaired": "utf8"} if repaired else meta)


def segment_ids(document_keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """64-bit identities of segments, the same in every store. numbers: of each segment in its document, from 0."""
    return keyed.fold(document_keys, numbers)


def document_keys(ids: list[bytes]) -> np.ndarray:
    """uint64 keys of 128-bit document ids: what segment ids are derived from."""
    halves = np.frombuffer(b"".join(ids), "<u8").reshape(-1, 2)
    return keyed.fold(halves[:, 0], halves[:, 1])
