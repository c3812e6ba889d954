"""What a preparation would meet and take, from a small sample that is read, cleaned, tokenised and timed.

Some files of each source are read up to a fixed amount of text, and what they show is extended by the sizes of all
files; where every file gives as many records, these are extended by the number of files. Compressed ones are probed for
how much text their bytes hold. Seconds, whatever the size of the corpus.
"""

import time
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import counted
from infra.errors import DataError
from pipelines import readers
from pipelines.config import DataConfig
from pipelines.corpus.clean import clean
from pipelines.corpus.decompress import codec_of, text_stream
from pipelines.corpus.marks import describe_mark, find_marks, is_sampled
from pipelines.corpus.reading import read_documents
from pipelines.corpus.remedies import remedy
from pipelines.corpus.sources import InputFile, estimated_bytes
from pipelines.document import NOT_MALFORMED, Document, without_surrogates
from pipelines.store.segments import encode_documents
from pipelines.store.tokenizer import load_tokenizer

_FILES, _MOST_FILES = 4, 40  # of a source: of large files, and of small ones
_TEXT_BYTES = 1_000_000  # of a file
_RECORDS = 20_000  # of a file, kept or not
_CHUNK = 1 << 20
_PROBE_BYTES = 1 << 23  # bzip2 gives a block of 900 kB at a time
_LOOKED_AT = 20  # records of a file, before Ray is started
# Reasons that speak of the settings of a source, and not of its records.
_OF_SETTINGS = frozenset({"missing_field", "not_text"})
_USUAL_TOKEN_BYTES = 4.1  # of English text and a vocabulary of 30,000, where there is no tokenizer yet
_USUAL_TOKENISER_BYTES_PER_S = 4e6
# Bytes of the store per token: uint16, which lz4 hardly shortens, with blanks and the table of documents beside it.
_STORE_TOKEN_BYTES = 2.3
_TASK_UNITS = 6  # units of text that a task holds at its peak: documents, columns, Parquet buffers
_TASK_BYTES = 150_000_000  # and what a worker process takes by itself


@dataclass(frozen=True)
class SourceEstimate:
    """What a sample says of one source."""

    name: str
    files: int
    documents: float
    """Read in all, kept or not."""
    is_counted: bool
    """Whether all of them were read."""
    sampled: int
    """Records of the sample."""
    kept: int
    """Those of them that cleaning keeps."""
    dropped: dict[str, int]
    """Reason -> records of the sample, the most frequent first."""
    malformed: dict[str, int]
    """Those of the reasons that speak against a file."""
    first_drops: dict[str, str]
    """Reason -> where the first one stands, and what is wrong with it."""
    text: str
    """The first text that is kept; "" where none is."""
    unknown_share: float
    """Share of its bytes that the tokenizer does not know."""
    mark: str
    """What shows that its documents are not what they are read as, in a sentence; "" where nothing does."""

    @property
    def kept_share(self) -> float:
        return self.kept / max(self.sampled, 1)


@dataclass(frozen=True)
class Estimate:
    """What there is, what it would become, and what that takes."""

    sources: tuple[SourceEstimate, ...]
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

    @property
    def is_counted(self) -> bool:
        """Whether all documents were read, so that nothing is extended."""
        return all(source.is_counted for source in self.sources)


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


class _Seen:
    """What the records of a source were, while they are read."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.first_drops: dict[str, str] = {}
        self.records = 0
        self.text = ""
        self.marks: Counter[str] = Counter()
        self.looked_at = 0

    def keep(self, file: InputFile, text: str) -> None:
        self.text = self.text or text
        self.looked_at += 1
        self.marks.update(find_marks(text, file.reader))

    def drop(self, file: InputFile, offset: int, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        place = f"{file.url} at byte {offset}"
        self.first_drops.setdefault(reason, f"{place}: {detail[:200]}" if detail else place)


def estimate(config: DataConfig, files: list[InputFile]) -> Estimate:
    """Read a sample of every source and extend it to all its files, which `list_inputs` lists. Raises as reading."""
    given = config.tokenizer
    tokenizer = load_tokenizer(given.url, lowercase=given.lowercase) if given.url else None
    total, sources = _NOTHING, list[SourceEstimate]()
    for name in dict.fromkeys(file.source for file in files):
        sample, source = _estimate_source([file for file in files if file.source == name], config, tokenizer)
        total = _add(total, sample)
        sources.append(source)
    return Estimate(
        sources=tuple(sources),
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
    )


def check_kept(sources: tuple[SourceEstimate, ...]) -> None:
    """Raises DataError for a source of whose sample nothing is kept, with the reasons and what to try."""
    for source in sources:
        if not source.kept:
            raise _nothing_kept(source)


def check_readable(config: DataConfig, files: list[InputFile]) -> None:
    """Look at the first records of the first and the last file of each source, where a wrong option would cost a whole
    preparation. Raises DataError where all of them lack the field that holds the text, and as reading raises.
    """
    for name in dict.fromkeys(file.source for file in files):
        own, seen, kept = [file for file in files if file.source == name], _Seen(), 0
        for file in {file.url: file for file in (own[0], own[-1])}.values():
            for number, item in enumerate(read_documents(file, max_window=int(config.max_window)), start=1):
                seen.records += 1
                if isinstance(item, Document):
                    kept += 1
                else:
                    seen.drop(file, item.offset, item.reason, item.detail)
                if number >= _LOOKED_AT:
                    break
        if not kept and seen.dropped and _OF_SETTINGS.issuperset(seen.dropped):
            raise _nothing_kept(_source_estimate(own, _NOTHING, seen, is_counted=False))


def _nothing_kept(source: SourceEstimate) -> DataError:
    most = next(iter(source.dropped), "no_documents")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in source.dropped.items())
    some = "" if source.is_counted else "the first "
    return DataError(
        f"the source {source.name!r} is empty: of {some}{counted(source.sampled, 'document')} none was kept",
        why=f"dropped: {reasons}\nthe first {most}: {source.first_drops.get(most, 'nothing was read')}",
        try_=remedy(most),
    )


def _estimate_source(
    files: list[InputFile], config: DataConfig, tokenizer: Tokenizer | None
) -> tuple[_Sample, SourceEstimate]:
    """What the files of one source come to."""
    chosen, seen, sample = _choose(files), _Seen(), _NOTHING
    counts: set[float] = set()
    whole = True
    for file in chosen:
        found, is_complete = _read_file(file, config, tokenizer, seen)
        sample, whole = _add(sample, found), whole and is_complete
        counts.add(found.read)
    ratio = sum(file.size for file in files) / max(sample.raw_bytes, 1)
    extended = _Sample(*(value * ratio for value in sample))
    if whole and len(counts) == 1:  # every file gives as many: one, or lines of a fixed number
        more = len(files) / len(chosen)
        extended = extended._replace(read=sample.read * more, kept=sample.kept * more)
    is_counted = whole and len(chosen) == len(files)
    return extended, _source_estimate(files, sample, seen, is_counted=is_counted, documents=extended.read)


def _source_estimate(
    files: list[InputFile], sample: _Sample, seen: _Seen, *, is_counted: bool, documents: float = 0.0
) -> SourceEstimate:
    return SourceEstimate(
        name=files[0].source,
        files=len(files),
        documents=documents,
        is_counted=is_counted,
        sampled=seen.records,
        kept=int(sample.kept),
        dropped=dict(seen.dropped.most_common()),
        malformed=dict((+seen.malformed).most_common()),
        first_drops=seen.first_drops,
        text=seen.text,
        unknown_share=sample.unknown_bytes / max(sample.text_bytes, 1),
        mark=describe_mark(files[0].source, files[0].reader, seen.marks, seen.looked_at),
    )


def _choose(files: list[InputFile]) -> list[InputFile]:
    """Files spread over the list: more of small ones, so that about as much text is read of any source."""
    mean = sum(map(estimated_bytes, files)) / len(files)
    count = min(len(files), max(_FILES, min(_MOST_FILES, int(_FILES * _TEXT_BYTES / max(mean, 1)))))
    return [files[number * len(files) // count] for number in range(count)]


def _add(one: _Sample, other: _Sample) -> _Sample:
    return _Sample(*(a + b for a, b in zip(one, other, strict=True)))


def _read_file(file: InputFile, config: DataConfig, tokenizer: Tokenizer | None, seen: _Seen) -> tuple[_Sample, bool]:
    """What was read of a file, and whether that is all of it."""
    clean("The first text loads what cleaning needs, once per process.", config.clean)
    started = time.process_time()
    texts: list[str] = []
    read, size, end, complete = 0, 0, 0, True
    for item in read_documents(file, max_window=int(config.max_window)):
        read += 1
        end = item.offset
        if isinstance(item, Document):
            result = clean(without_surrogates(item.text), config.clean)
            if isinstance(result, str):
                seen.drop(file, item.offset, result, "")
            else:
                if is_sampled(len(texts)):
                    seen.keep(file, result[0])
                texts.append(result[0])
                size += len(result[0].encode())
            end += len(item.text.encode(errors="replace"))
        else:
            seen.drop(file, item.offset, item.reason, item.detail)
            seen.malformed[item.reason] += item.reason not in NOT_MALFORMED
        if size >= _TEXT_BYTES or read >= _RECORDS:
            complete = False
            break
    seen.records += read
    tokens, unknown = size / _USUAL_TOKEN_BYTES, 0.0
    if tokenizer and texts:
        encoded = encode_documents(texts, tokenizer)
        tokens, unknown = float(len(encoded.flat)), float(encoded.unknown_bytes.sum())
    seconds = time.process_time() - started + (0 if tokenizer else size / _USUAL_TOKENISER_BYTES_PER_S)
    raw = file.size if complete else min(_raw_bytes(file, read, end, int(config.max_window)), file.size)
    return _Sample(raw, read, len(texts), size, unknown, tokens, seconds), complete


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
