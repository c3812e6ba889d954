"""The parts of preparation that need no Ray: refusals, names by content, stages that continue, estimates."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import small

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.config import Count
from infra.errors import DataError, InfrastructureError, UserError
from pipelines import config as data_config
from pipelines import names, prepare, stages
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import InputFile, Source
from pipelines.feed import stored_blanks
from pipelines.names import content_settings
from pipelines.store import format
from pipelines.store import tokenizer as corpus_tokenizer
from pipelines.store.tokenizer_training import TokenizerTraining


def config(**changes) -> DataConfig:
    return DataConfig(**{"sources": [Source("text", "/nowhere")], **changes})


@pytest.mark.parametrize(
    ("data", "blanks", "message"),
    [
        (DataConfig(), BlanksConfig(), r"data.sources is empty(.|\n)*--data.sources="),
        (config(sequence_length=7), BlanksConfig(), r"data.sequence_length=7 leaves no room(.|\n)*at least 8"),
        (config(sequence_length=512, row_width=513), BlanksConfig(), r"row_width=513 cannot hold(.|\n)*row_width=2048"),
        (config(validation_fraction=1.0), BlanksConfig(), r"data.validation_fraction=1.0 is outside \[0, 1\)"),
        (config(validation_fraction=-0.1), BlanksConfig(), r"validation_fraction=-0.1 is outside"),
        (config(root="/nowhere/runs"), BlanksConfig(), r"root=/nowhere/runs lies inside the source /nowhere"),
        (config(), BlanksConfig(mixture="gml"), "unknown mixture 'gml'"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(data, blanks, message):
    with pytest.raises(UserError, match=message):
        data_config.check(data, blanks)


def test_settings_that_work_pass():
    data_config.check(config(), BlanksConfig())
    data_config.check(DataConfig(store="/some/store"), BlanksConfig())
    data_config.check(config(sequence_length=512, row_width=514, validation_fraction=0.0), BlanksConfig())


def file(**changes) -> InputFile:
    values = {
        "source_index": 0, "source": "s", "reader": "text", "options": {}, "url": "/a/x.txt",
        "path": "x.txt", "size": 10, "version": "1",
    }  # fmt: skip
    return InputFile(**{**values, **changes})


def test_a_unit_is_named_by_source_reader_and_the_state_of_its_files():
    base = names.unit_key([file()], most=9)
    assert len(base) == 24
    assert names.unit_key([file(url="/elsewhere/x.txt", source_index=3)], most=9) == base, "not by where it lies"
    changed = [
        [file(source="t")],
        [file(reader="jsonl")],
        [file(options={"per": "line"})],
        [file(path="y.txt")],
        [file(size=11)],
        [file(version="2")],
        [file(start=5)],
        [file(stop=5)],
        [file(), file(path="y.txt")],
    ]
    assert len({base, *(names.unit_key(files, most=9) for files in changed)}) == 10
    assert names.unit_key([file()], most=10) != base


def test_what_decides_a_stores_content():
    base = content_settings(config(), BlanksConfig(), {})
    same = content_settings(
        config(unit_bytes=Count(1), plan_epochs=5, root="/elsewhere", sources=[]), BlanksConfig(seed=99), {}
    )
    assert same == base, "neither parallelism nor place nor the seed of the blanks"
    for changes in (
        {"sequence_length": 256},
        {"row_width": 4096},
        {"validation_fraction": 0.1},
        {"test_fraction": 0.1},
        {"validation_tokens": Count(1)},
        {"shard_bytes": Count(10)},
        {"seed": 2},
    ):
        assert content_settings(config(**changes), BlanksConfig(), {}) != base, changes
    assert content_settings(config(), BlanksConfig(mixture="glm"), {}) != base
    assert content_settings(config(), BlanksConfig(), {"duplicates": "near"}) != base
    assert json.loads(json.dumps(base)) == base, "it goes into the manifest"


def test_a_store_is_named_by_text_tokenizer_and_settings(tiny_tokenizer):
    units = [{"source": "a", "digest": "1"}, {"source": "b", "digest": "2"}]
    settings = content_settings(config(), BlanksConfig(), {})

    def name(data=None, the_units=units, tokenizer=tiny_tokenizer, the_settings=settings) -> str:
        url = names.store_url(data or config(root="/r"), the_units, tokenizer, the_settings)
        assert "/stores/" in url
        return storage.base_name(url)

    assert name(config(root="/elsewhere")) == name()
    changed = [
        name(the_units=units[:1]),
        name(the_units=[units[0], {"source": "b", "digest": "3"}]),
        name(the_settings={**settings, "seed": 0}),
    ]
    assert len({name(), *changed}) == 4


def test_cleaned_text_is_named_by_the_cleaning():
    assert names.text_url(config()) == names.text_url(config(seed=9, sequence_length=64))
    assert names.text_url(config(clean=CleanConfig(preset="off"))) != names.text_url(config())


def test_an_existing_store_is_found_and_opened_as_it_is(tiny_store, tmp_path):
    data = DataConfig(store=tiny_store.url)
    assert prepare.find_store(data, BlanksConfig()) == tiny_store.url
    assert prepare.prepare(data, BlanksConfig(), progress=lambda *_: []).digest == tiny_store.digest
    with pytest.raises(DataError, match="is not a finished token store"):
        prepare.prepare(DataConfig(store=str(tmp_path)), BlanksConfig(), progress=lambda *_: [])


def test_a_store_that_is_not_there_is_not_found(tmp_path):
    small.corpus(tmp_path / "raw", small.documents(3))
    data = config(sources=[Source("jsonl", str(tmp_path / "raw"))], root=str(tmp_path / "runs"))
    assert prepare.find_store(data, BlanksConfig()) is None
    assert not (tmp_path / "runs").exists(), "asking makes nothing"


@pytest.fixture
def one_by_one(monkeypatch):
    """Tasks run in this process, in order."""
    monkeypatch.setattr(stages, "run_tasks", lambda task, items: map(task, items))


def made(folder, vocabulary: Tokenizer, **changes) -> tuple[DataConfig, format.TokenStore]:
    small.corpus(folder / "raw", small.documents(80))
    data = config(
        sources=[Source("jsonl", str(folder / "raw"))],
        root=str(folder / "runs"),
        tokenizer=TokenizerConfig(url=vocabulary.save(str(folder / "tokenizer"))),
        **{"sequence_length": 32, "row_width": 160, "rows_per_group": 2, "validation_tokens": Count(200), **changes},
    )
    return data, again(data)


def again(data: DataConfig) -> format.TokenStore:
    return prepare.prepare(data, BlanksConfig(), progress=lambda stage, records, total: records)


def test_a_store_is_found_once_all_its_parts_are_there(tmp_path, tiny_tokenizer, one_by_one):
    data, opened = made(tmp_path, tiny_tokenizer)
    assert prepare.find_store(data, BlanksConfig()) == opened.url
    assert prepare.find_store(replace(data, sequence_length=64), BlanksConfig()) is None
    for part in (f"{opened.url}/manifest.json", f"{opened.url}/{opened.validation.shards[0].path}"):
        Path(part).unlink()
        assert prepare.find_store(data, BlanksConfig()) is None
        again(data)
        assert prepare.find_store(data, BlanksConfig()) == opened.url
    (record,) = Path(names.text_url(data)).glob("*.json")
    record.unlink()
    assert prepare.find_store(data, BlanksConfig()) is None


def test_the_remedy_for_a_damaged_shard_is_one(tmp_path, tiny_tokenizer, one_by_one):
    data, opened = made(tmp_path, tiny_tokenizer)
    path = Path(opened.url, opened.train.shards[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{path}(.|\n)*remove that file(.|\n)*run workflows/prepare.py again"):
        format.TokenStore.open(opened.url).train.read_group(0)
    path.unlink()
    rebuilt = again(data)
    assert path.read_bytes() == whole
    assert rebuilt.manifest == opened.manifest


def test_redrawn_rows_are_counted_over_interruptions(tmp_path, tiny_tokenizer, one_by_one, monkeypatch):
    draw = stored_blanks.draw_rows

    def redraw(mixture, rows, *args, **kwargs):
        drawn, redraws = draw(mixture, rows, *args, **kwargs)
        return drawn, np.ones_like(redraws)

    monkeypatch.setattr(stored_blanks, "draw_rows", redraw)
    data, opened = made(tmp_path, tiny_tokenizer, plan_epochs=3)
    (summary,) = Path(opened.url, "plans").glob("*/summary.json")
    rows = 3 * opened.train.rows + opened.validation.rows
    assert json.loads(summary.read_text())["redrawn_rows"] == rows
    next(summary.parent.rglob("*.parquet")).unlink()
    again(data)
    assert json.loads(summary.read_text())["redrawn_rows"] == rows, "of all plans, not of those of the last call"
    summary.unlink()
    again(data)
    assert json.loads(summary.read_text())["redrawn_rows"] == rows, "also where nothing was left to draw"


def test_the_sample_for_a_tokenizer_is_a_function_of_the_text(tmp_path):
    """Not of the size of shards, which has no part in the name of what is trained."""
    raw = [small.corpus(tmp_path / "raw", small.documents(40, seed=i), name=f"part{i}") for i in range(3)]
    data = config(root=str(tmp_path / "runs"))
    url = names.text_url(data)
    units = [
        small.clean_unit(files, CleanConfig(), storage.join(url, names.unit_key(files, most=names.unit_limit(data))))
        for files in raw
    ]
    sample = list(corpus_tokenizer._sample(data, units))
    assert (len(sample), len(set(sample))) == (120, 120)
    for changes in ({"shard_bytes": Count(500)}, {"shard_bytes": Count(4000)}):
        assert list(corpus_tokenizer._sample(replace(data, **changes), units)) == sample
    assert list(corpus_tokenizer._sample(replace(data, seed=5), units)) != sample


def test_a_trained_tokenizer_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    files = small.corpus(tmp_path / "raw", small.documents(200))
    training = TokenizerTraining(vocab_size=512)
    data = config(root=str(tmp_path / "runs"), tokenizer=TokenizerConfig(train=training))
    url = names.text_url(data)
    units = [
        small.clean_unit(files, CleanConfig(), storage.join(url, names.unit_key(files, most=names.unit_limit(data))))
    ]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(InfrastructureError, match="No space left"):
            corpus_tokenizer.prepare_tokenizer(data, units)
    assert list((tmp_path / "runs" / "tokenizers").rglob("*.json")) == []
    trained = corpus_tokenizer.prepare_tokenizer(data, units)
    assert corpus_tokenizer.prepare_tokenizer(data, units).to_json() == trained.to_json()


def test_a_missing_tokenizer_names_the_setting():
    with pytest.raises(UserError, match=r"data.tokenizer.url: (.|\n)*vocab"):
        corpus_tokenizer.prepare_tokenizer(config(tokenizer=TokenizerConfig(url="/no/such/vocab.txt")), [])


@pytest.mark.parametrize(
    "content", ['{"model": {"type": "WordPiece", "voc', '{"model": {"type": "WordPiece"}}', "[]", '{"model": {}}']
)
def test_a_tokenizer_that_is_cut_short_names_the_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    given = config(tokenizer=TokenizerConfig(url=str(tmp_path / "tokenizer.json")))
    with pytest.raises(
        UserError, match=f"data.tokenizer.url: {tmp_path}/tokenizer.json is damaged or holds no tokenizer"
    ):
        corpus_tokenizer.prepare_tokenizer(given, [])


@pytest.mark.parametrize(("unit_bytes", "told"), [(250, ""), (249, "large.txt holds about 2 kB of text. ")])
def test_a_file_of_many_units_is_told_before_it_is_read(tmp_path, capsys, one_by_one, unit_bytes, told):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "large.txt").write_text("abcdefghi " * 200)
    (tmp_path / "raw" / "small.txt").write_text("abcdefghi " * 199)
    data = config(
        sources=[Source("text", str(tmp_path / "raw"))], root=str(tmp_path / "runs"), unit_bytes=Count(unit_bytes)
    )
    prepare.prepare_text(data, progress=lambda stage, records, total: records)
    shown = capsys.readouterr().out
    assert told in shown
    assert bool(shown) == bool(told)
    prepare.prepare_text(data, progress=lambda stage, records, total: records)
    assert capsys.readouterr().out == "", "it was read"
