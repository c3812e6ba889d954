"""Plans from a sample: exact where the sample is everything, close where it is not."""

import gzip
import json

import pytest
import small

from infra.config import Count
from pipelines.clean import CleanConfig
from pipelines.data_config import DataConfig, TokenizerConfig
from pipelines.estimate import estimate
from pipelines.sources import Source


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
    told = estimate(config)
    assert (told.files, told.documents, told.measured) == (2, 51, True)
    assert told.stored_bytes == sum(file.stat().st_size for file in (tmp_path / "raw").iterdir())
    assert told.kept_share == pytest.approx(50 / 51)
    assert told.text_bytes == sum(len(text.encode()) for text in texts)
    assert told.tokens == sum(len(tiny_tokenizer.encode(text)) for text in texts)
    assert told.core_seconds > 0


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_large_corpus_is_sampled(tmp_path, suffix):
    """Three files of 6 MB: a sixth of each is read."""
    text = " ".join(f"word{i} of a text" for i in range(1000))  # about 18 kB
    for number in range(3):
        data = lines([f"{number}-{i} {text}" for i in range(340)])
        (tmp_path / f"{number}.jsonl{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    told = estimate(DataConfig([Source("jsonl", str(tmp_path))], clean=CleanConfig("off")))
    assert not told.measured
    assert told.documents == pytest.approx(1020, rel=0.1)
    assert told.text_bytes == pytest.approx(1020 * len(text), rel=0.1)
    assert told.tokens == pytest.approx(told.text_bytes / 4.1)
