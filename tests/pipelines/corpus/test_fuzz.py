"""Whatever a file holds and whichever reader it is given to: it is read, each record counted (law 11), twice the same.

A failure names its seed: `hostile_file(seed)` is the file, and the seed modulo the number of ways to read, its reader.
"""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.hostile import hostile_file
from helpers.small import clean_unit

from infra import storage
from pipelines import plugins, readers
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import InputFile, group_inputs
from pipelines.document import Document, Rejected

NAMES = plugins.names(readers)
WAYS = [
    *((name, {}) for name in NAMES),
    *(("text", {"per": per}) for per in ("line", "paragraph")),
    ("csv", {"delimiter": ";"}),
]
MEGABYTES = 20


def without_losses(record: Document | Rejected) -> Document | Rejected:
    """Blank lines behind a malformed one may belong to the next range."""
    return replace(record, lost=0) if isinstance(record, Rejected) else record


def check(seed: int, folder: Path) -> None:
    name, data = hostile_file(seed)
    (folder / name).write_bytes(data)
    reader, options = WAYS[seed % len(WAYS)]
    file = InputFile(0, "fuzz", reader, options, str(folder / name), name, len(data), "1")
    out = f"memory://fuzz-{uuid.uuid4().hex}"
    try:
        records = list(read_documents(file))
        assert records
        assert all(isinstance(record, Document | Rejected) and record.offset >= 0 for record in records)
        assert list(read_documents(file)) == records
        assert 0 <= sum(record.lost for record in records if isinstance(record, Rejected)) <= len(data)
        unit = clean_unit([file], CleanConfig(), f"{out}/unit")
        assert unit.read == len(records)
        assert unit.read == unit.kept + sum(unit.dropped.values())
        parts = [part for (part,) in group_inputs([file], 3000)]
        if len(parts) > 1:
            ranged = [without_losses(record) for part in parts for record in read_documents(part)]
            whole = [without_losses(record) for record in records]
            assert [r for r in ranged if r != whole[0]] == [r for r in whole if r != whole[0]]
    except BaseException as error:
        error.add_note(f"seed {seed}: {name}, {len(data):,} bytes, read as {reader} {options}")
        raise
    finally:
        storage.remove_tree(out)
        (folder / name).unlink()


def test_no_file_ends_the_reading(tmp_path):
    for seed in range(300):
        check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_none_of_ten_thousand_files_ends_the_reading(tmp_path):
    for seed in range(300, 10_300):
        check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_a_line_of_20_megabytes_is_read(name, tmp_path):
    """A line of words that begins a record in the format of the reader, and does not end it."""
    begin = {
        "jsonl": b'{"text": "',
        "csv": b'text\n"',
        "wikipedia": b"<mediawiki><page><title>T</title><ns>0</ns><id>1</id><revision><text>",
        "wikiextractor": b'<doc id="1" url="" title="T">\n',
        "gutenberg": b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n",
        "pydocs": b'"""',
        "parquet": b"PAR1",
    }.get(name, b"")
    (tmp_path / "f").write_bytes(begin + b"word " * (MEGABYTES * 1_000_000 // 5))
    file = InputFile(0, "s", name, {}, str(tmp_path / "f"), "f", 0, "1")
    assert list(read_documents(file))
