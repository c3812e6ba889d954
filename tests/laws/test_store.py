"""Law 10: a store follows from the text and the settings alone, whatever happens while it is made.

Not from how many tasks run at once or in which order, from interruptions, from the place and the times of the files.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import small
from helpers.runners import one_by_one

from infra import storage
from infra.config import Count
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.prepare import preparation_of, prepare
from pipelines.selection.config import EvaluationSet, SelectConfig
from pipelines.stages import Runner
from pipelines.store.format import TokenStore
from pipelines.store.tokenizer_training import TokenizerTraining

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two sources in seven files of unequal sizes, with documents that are malformed, short, repeated, similar to
    another, or in an evaluation set.
    """
    folder = tmp_path_factory.mktemp("corpus")
    texts = small.documents(300)
    for number, part in enumerate(np.split(np.arange(200), [20, 90, 100, 160])):
        lines = [json.dumps({"text": texts[i]}) for i in part]
        small_file = folder / "news" / f"{number}.jsonl"
        small_file.parent.mkdir(exist_ok=True)
        small_file.write_text("\n".join([*lines, '{"text": "short"}', "{broken"]))
    (folder / "books").mkdir()
    for number in range(2):
        again = [texts[7 * number], texts[205], texts[30 + number] + " More."]
        (folder / "books" / f"{number}.txt").write_text("\n".join([*texts[200 + 50 * number :][:50], *again]))
    (folder / "exam.jsonl").write_text(json.dumps({"text": "Question: " + texts[77][10:]}))
    return folder


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory) -> dict[str, bytes]:
    """The files of the store that tasks make one after another."""
    return files_of(make(corpus, tmp_path_factory.mktemp("expected"), one_by_one()))


def make(corpus: Path, root: Path, runner: Runner) -> TokenStore:
    config = DataConfig(
        sources=[
            Source("jsonl", str(corpus / "news")),
            Source("text", str(corpus / "books"), options={"per": "line"}),
        ],
        root=str(root),
        tokenizer=TokenizerConfig(train=TokenizerTraining(vocab_size=512, sample_bytes=Count(10_000))),
        sequence_length=32,
        row_width=160,
        rows_per_group=4,
        validation_tokens=Count(500),
        test_fraction=0.05,
        max_malformed=0.1,
        select=SelectConfig(duplicates="near", decontaminate=[EvaluationSet("jsonl", str(corpus / "exam.jsonl"))]),
        unit_bytes=Count(10_000),
        shard_bytes=Count(16_000),
    )
    return prepare(preparation_of(config, BlanksConfig()), runner)


def files_of(store: TokenStore) -> dict[str, bytes]:
    """Path below the store -> content, of all but the ledger, which names the places of the raw files."""
    files = sorted(path for path in Path(store.url).rglob("*") if path.is_file())
    return {str(f.relative_to(store.url)): f.read_bytes() for f in files if f.name != "ledger.parquet"}


def test_the_store_of_this_law_has_several_of_everything(expected):
    manifest = json.loads(expected["manifest.json"])
    assert [source["name"] for source in manifest["sources"]] == ["news", "books"]
    assert manifest["documents"] == {"read": 316, "kept": 299, "dropped": 17}
    assert [source["dropped"] for source in manifest["sources"]] == [
        {"contaminated": 1, "malformed_json": 5, "too_short": 5},
        {"duplicate": 4, "near_duplicate": 2},
    ]
    assert manifest["contamination"] == [
        {"name": "exam.jsonl", "entries": 1, "too_short": 0, "found": 1, "documents": 1},
    ]
    assert len(manifest["text_digests"]) >= 5
    assert len(manifest["splits"]["train"]) >= 3
    assert sum(shard["tokens"] for shard in manifest["splits"]["validation"]) >= 500
    assert sum(shard["segments"] for shard in manifest["splits"]["test"]) > 1
    assert sum(name.startswith("plans/") for name in expected) > len(manifest["splits"]["train"])


@pytest.mark.ray
def test_parallelism_is_invisible(corpus, expected, tmp_path, local_ray):
    """Ray runs up to four tasks at once; `expected` is from one at a time."""
    assert files_of(make(corpus, tmp_path, Runner())) == expected


def test_the_order_of_the_tasks_is_invisible(corpus, expected, tmp_path):
    assert files_of(make(corpus, tmp_path, one_by_one(lambda items: items[::-1]))) == expected


class Killed(BaseException):
    """Nothing that a task could survive."""


@pytest.mark.parametrize("writes", [pytest.param(5, marks=pytest.mark.slow), 7])
def test_interruptions_are_invisible(writes, corpus, expected, tmp_path, monkeypatch):
    """Killed after every few writes, wherever that is, and started again until it is through."""
    write, left = storage.write_bytes, 0

    def write_and_die(url, data):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(url, data)

    monkeypatch.setattr(storage, "write_bytes", write_and_die)
    store, kills = None, 0
    while store is None:
        left = writes
        try:
            store = make(corpus, tmp_path, one_by_one())
        except Killed:
            kills += 1
            assert kills < 60, "each attempt gets further"
    assert kills > 4
    assert files_of(store) == expected


def test_place_and_times_of_the_files_are_invisible(corpus, expected, tmp_path):
    shutil.copytree(corpus, tmp_path / "elsewhere")
    for number, file in enumerate(sorted((tmp_path / "elsewhere").rglob("*.*"))):
        os.utime(file, (number, 10**9 - 7919 * number))
    assert files_of(make(tmp_path / "elsewhere", tmp_path / "root", one_by_one())) == expected


def test_lost_files_are_made_again_as_they_were(corpus, expected, tmp_path):
    store = make(corpus, tmp_path, one_by_one())
    for split in store.splits:
        Path(store.url, split.shards[-1].path).unlink()
        assert files_of(make(corpus, tmp_path, one_by_one())) == expected
