"""What a preparation would take, from a small sample: its documents are read, cleaned and tokenised, and timed.

A few files of each source are read up to a fixed amount of text, and what they show is extended by the sizes of all
files. Compressed ones are probed for how much text their bytes hold. Seconds, whatever the size of the corpus.
"""

import time
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines import readers
from pipelines.config import DataConfig
from pipelines.corpus.clean import clean
from pipelines.corpus.decompress import codec_of, text_stream
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import InputFile
from pipelines.document import Document, without_surrogates
from pipelines.store.segments import encode_documents
from pipelines.store.tokenizer import load_tokenizer

_FILES = 4  # of a source
_TEXT_BYTES = 1_000_000  # of a file
_RECORDS = 20_000  # of a file, kept or not
_CHUNK = 1 << 20
_PROBE_BYTES = 1 << 23  # bzip2 gives a block of 900 kB at a time
_USUAL_TOKEN_BYTES = 4.1  # of English text and a vocabulary of 30,000, where there is no tokenizer yet
_USUAL_TOKENISER_BYTES_PER_S = 4e6
# Bytes of the store per token: uint16, which lz4 hardly shortens, with blanks and the table of documents beside it.
_STORE_TOKEN_BYTES = 2.3
_TASK_UNITS = 6  # units of text that a task holds at its peak: documents, columns, Parquet buffers
_TASK_BYTES = 150_000_000  # and what a worker process takes by itself


@dataclass(frozen=True)
class Estimate:
    """What there is, what it would become, and what that takes."""

    files: int
    stored_bytes: int
    documents: float
    """Read, kept or not."""
    kept_share: float
    """Share of the documents that cleaning keeps."""
    text_bytes: float
    tokens: float
    core_seconds: float
    """CPU seconds of one core, as measured here."""
    disk_bytes: float
    task_bytes: float
    """Memory of a task."""
    measured: bool
    """Whether tokens were counted by the tokenizer itself."""
    unknown_shares: dict[str, float]
    """Source -> share of its bytes that the tokenizer does not know."""


class _Sample(NamedTuple):
    """What was read of some files: raw bytes behind it, documents read and kept, bytes kept, those of them that
    the tokenizer does not know, tokens, CPU seconds.
    """

    raw_bytes: float
    read: float
    kept: float
    text_bytes: float
    unknown_bytes: float
    tokens: float
    seconds: float


_NOTHING = _Sample(0, 0, 0, 0, 0, 0, 0)


def estimate(config: DataConfig, files: list[InputFile]) -> Estimate:
    """Read a sample of every source and extend it to all its files, which `list_inputs` lists. Raises as reading."""
    given = config.tokenizer
    tokenizer = load_tokenizer(given.url, lowercase=given.lowercase) if given.url else None
    total, unknown = _NOTHING, dict[str, float]()
    for source in dict.fromkeys(file.source for file in files):
        own = [file for file in files if file.source == source]
        sample = _read_some(own, config, tokenizer)
        unknown[source] = sample.unknown_bytes / max(sample.text_bytes, 1)
        ratio = sum(file.size for file in own) / max(sample.raw_bytes, 1)
        total = _add(total, _Sample(*(value * ratio for value in sample)))
    return Estimate(
        files=len(files),
        stored_bytes=sum(file.size for file in files),
        documents=total.read,
        kept_share=total.kept / max(total.read, 1),
        text_bytes=total.text_bytes,
        tokens=total.tokens,
        core_seconds=total.seconds,
        disk_bytes=0.6 * total.text_bytes + _STORE_TOKEN_BYTES * total.tokens,  # cleaned text under lz4, and the store
        task_bytes=_TASK_BYTES + _TASK_UNITS * float(config.unit_bytes),
        measured=tokenizer is not None,
        unknown_shares=unknown,
    )


def _read_some(files: list[InputFile], config: DataConfig, tokenizer: Tokenizer | None) -> _Sample:
    """A sample of the files of one source."""
    count = min(_FILES, len(files))
    total = _NOTHING
    for number in range(count):
        total = _add(total, _read_file(files[number * len(files) // count], config, tokenizer))
    return total


def _add(one: _Sample, other: _Sample) -> _Sample:
    return _Sample(*(a + b for a, b in zip(one, other, strict=True)))


def _read_file(file: InputFile, config: DataConfig, tokenizer: Tokenizer | None) -> _Sample:
    clean("The first text loads what cleaning needs, once per process.", config.clean)
    started = time.process_time()
    texts: list[str] = []
    read, size, end, complete = 0, 0, 0, True
    for item in read_documents(file, max_window=int(config.max_window)):
        read += 1
        end = item.offset
        if isinstance(item, Document):
            result = clean(without_surrogates(item.text), config.clean)
            if not isinstance(result, str):
                texts.append(result[0])
                size += len(result[0].encode())
            end += len(item.text.encode(errors="replace"))
        if size >= _TEXT_BYTES or read >= _RECORDS:
            complete = False
            break
    tokens, unknown = size / _USUAL_TOKEN_BYTES, 0.0
    if tokenizer and texts:
        encoded = encode_documents(texts, tokenizer)
        tokens, unknown = float(len(encoded.flat)), float(encoded.unknown_bytes.sum())
    seconds = time.process_time() - started + (0 if tokenizer else size / _USUAL_TOKENISER_BYTES_PER_S)
    raw = file.size if complete else min(_raw_bytes(file, read, end, int(config.max_window)), file.size)
    return _Sample(raw, read, len(texts), size, unknown, tokens, seconds)


def _raw_bytes(file: InputFile, read: int, end: int, max_window: int) -> float:
    """Stored bytes behind the first `read` records, which end at decompressed byte `end`, or are rows of a table."""
    count = getattr(readers.find(file.reader), "count", None)
    with storage.open_file(file.url) as raw:
        return (
            file.size * read / max(count(raw), 1) if count else end / _expansion(raw, codec_of(file.path), max_window)
        )


def _expansion(raw: BinaryIO, codec: str | None, max_window: int) -> float:
    """Decompressed bytes per stored byte at the beginning of a file."""
    if codec is None:
        return 1.0
    size, stream = 0, text_stream(raw, codec, max_window=max_window)  # ends where a damaged file breaks off
    while size < _PROBE_BYTES and (chunk := stream.read(_CHUNK)):
        size += len(chunk)
    return size / max(raw.tell(), 1) or 1.0
