"""Plans from a sample: exact where the sample is everything, close where it is not."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import small

from infra.config import Count
from infra.errors import DataError
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import Source, list_inputs
from pipelines.estimate import Estimate, check_readable, estimate


def estimated(config: DataConfig) -> Estimate:
    return estimate(config, list_inputs(config.sources))


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def test_a_small_corpus_is_read_whole(tmp_path, tiny_tokenizer):
    texts = small.documents(50)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_bytes(lines(texts[:20]))
    (tmp_path / "raw" / "b.jsonl.gz").write_bytes(gzip.compress(lines([*texts[20:], "short"])))
    tiny_tokenizer.save(str(tmp_path / "vocabulary"))
    url = str(tmp_path / "vocabulary" / "tokenizer.json")
    config = DataConfig([Source("jsonl", str(tmp_path / "raw"))], tokenizer=TokenizerConfig(url), unit_bytes=Count(10))
    found = estimated(config)
    assert (found.files, found.documents, found.measured) == (2, 51, True)
    assert found.stored_bytes == sum(file.stat().st_size for file in (tmp_path / "raw").iterdir())
    assert found.kept_share == pytest.approx(50 / 51)
    assert found.text_bytes == sum(len(text.encode()) for text in texts)
    assert found.tokens == sum(len(tiny_tokenizer.encode(text)) for text in texts)
    assert found.core_seconds > 0


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
WORDS = np.random.default_rng(0).integers(0, 1 << 40, 1000)  # so that text shrinks about as much as prose does
TEXT = " ".join(f"word{i:x} of a text" for i in WORDS)  # 26 kB


def check_large(found, count: int) -> None:
    assert not found.measured
    assert found.documents == pytest.approx(count, rel=0.1)
    assert found.text_bytes == pytest.approx(count * len(TEXT), rel=0.1)
    assert found.tokens == pytest.approx(found.text_bytes / 4.1)


@pytest.mark.parametrize("suffix", PACK)
def test_a_large_corpus_is_sampled(tmp_path, suffix):
    """Files of 9 MB, one or two: a ninth of each is read."""
    files = 1 if suffix else 2
    for number in range(files):
        texts = [f"{number}-{i} {TEXT[7 * i :]}{TEXT[: 7 * i]}" for i in range(340)]
        (tmp_path / f"{number}.jsonl{suffix}").write_bytes(PACK[suffix](lines(texts)))
    check_large(estimated(DataConfig([Source("jsonl", str(tmp_path))], clean=CleanConfig("off"))), 340 * files)


def test_a_file_that_is_damaged_behind_its_sample_is_no_matter(tmp_path):
    data = bytearray(gzip.compress(lines([f"{i} {TEXT[7 * i :]}{TEXT[: 7 * i]}" for i in range(340)])))
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    found = estimated(DataConfig([Source("jsonl", str(tmp_path / "a.jsonl.gz"))], clean=CleanConfig("off")))
    assert 34 < found.documents < 1000, "roughly: what it holds cannot be known"


def test_a_large_table_is_sampled_by_its_rows(tmp_path):
    pq.write_table(pa.table({"text": [f"{i} {TEXT}" for i in range(300)]}), tmp_path / "a.parquet", row_group_size=20)
    check_large(estimated(DataConfig([Source("parquet", str(tmp_path))], clean=CleanConfig("off"))), 300)


def test_records_that_are_no_documents_end_the_sample_too(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.estimate._RECORDS", 50)
    (tmp_path / "a.jsonl").write_bytes(b'{"body": "x"}\n' * 1000)
    found = estimated(DataConfig([Source("jsonl", str(tmp_path / "a.jsonl"))]))
    assert found.documents == pytest.approx(1000, rel=0.05)
    assert found.kept_share == 0


def test_files_of_a_text_each_are_counted_whatever_their_sizes(tmp_path):
    """Not by their sizes: 300 files were taken for 407 documents."""
    (tmp_path / "raw").mkdir()
    for number in range(300):
        (tmp_path / "raw" / f"{number:03}.txt").write_text(TEXT[: 200 + 40 * (number % 97)])
    found = estimated(DataConfig([Source("text", str(tmp_path / "raw"))]))
    assert found.documents == 300
    assert (found.is_counted, found.kept_share) == (False, 1.0)
    assert found.text_bytes == pytest.approx(sum(file.stat().st_size for file in (tmp_path / "raw").iterdir()))


def test_a_source_says_what_is_dropped_why_and_shows_a_text(tmp_path):
    rows = [{"text": "short"}, {"text": small.documents(1)[0]}, {"body": "x"}, {"text": "short"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken")
    (source,) = estimated(DataConfig([Source("jsonl", str(tmp_path / "a.jsonl"))])).sources
    assert (source.documents, source.sampled, source.kept, source.is_counted) == (5, 5, 1, True)
    assert source.dropped == {"too_short": 2, "missing_field": 1, "malformed_json": 1}
    assert source.malformed == {"missing_field": 1, "malformed_json": 1}
    assert source.first_drops["too_short"] == f"{tmp_path}/a.jsonl at byte 0"
    assert "no 'text', but body" in source.first_drops["missing_field"]
    assert source.text == small.documents(1)[0]


def test_a_file_of_another_form_is_told_before_it_is_prepared(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in small.documents(9)))
    (as_text,) = estimated(DataConfig([Source("text", str(tmp_path / "a.jsonl"))])).sources
    assert as_text.mark == (
        "100% of 1 sampled document of 'a.jsonl' look like the format of another reader: reader: jsonl reads them"
    )
    (as_lines,) = estimated(DataConfig([Source("jsonl", str(tmp_path / "a.jsonl"))])).sources
    assert as_lines.mark == ""


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        ([{"body": "A text that is long enough."}] * 30, {}, "no 'text', but body"),
        ([{"text": ["A", "list"]}] * 30, {}, "expected a string, got list"),
        ([{"text": "A text that is long enough."}] * 30, {"field": "doc.text"}, "no 'doc.text', but text"),
    ],
)
def test_a_wrong_field_is_refused_by_a_look_at_the_first_records(tmp_path, rows, options, told):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig([Source("jsonl", str(tmp_path / "a.jsonl"), options=options)])
    with pytest.raises(DataError, match="is empty: of the first 20 documents none was kept") as refused:
        check_readable(config, list_inputs(config.sources))
    assert told in refused.value.why
    assert "options: {field: ...}" in refused.value.try_


@pytest.mark.parametrize("lines", ["", "broken\n" * 30, '{"body": "x"}\n{"text": "a text"}\n', '{"text": "short"}\n'])
def test_what_only_the_whole_text_tells_is_not_refused_by_a_look(tmp_path, lines):
    (tmp_path / "a.jsonl").write_text(lines)
    config = DataConfig([Source("jsonl", str(tmp_path / "a.jsonl"))])
    check_readable(config, list_inputs(config.sources))
