"""The parts of preparation that need no Ray: refusals, names by content, stages that continue, estimates."""

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import small
from helpers.runners import one_by_one

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.config import Count
from infra.errors import DataError, InfrastructureError, UserError
from pipelines import names
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig, check
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import InputFile, Source, list_sources
from pipelines.feed import stored_blanks
from pipelines.prepare import find_store, preparation_of, prepare, prepare_text, prepare_tokenizer
from pipelines.selection import select
from pipelines.selection.config import EvaluationSet, SelectConfig
from pipelines.selection.exclusion import Exclusions
from pipelines.store.format import TokenStore
from pipelines.store.tokenizer import sample
from pipelines.store.tokenizer_training import TokenizerTraining


def config(**changes) -> DataConfig:
    return DataConfig(**{"sources": [Source("text", "/nowhere")], **changes})


@pytest.mark.parametrize(
    ("data", "blanks", "message"),
    [
        (DataConfig(), BlanksConfig(), "data.sources is empty\n  try: --data.sources="),
        (
            config(sequence_length=7),
            BlanksConfig(),
            "data.sequence_length must be at least 8, got 7\n"
            "  why: a shorter segment leaves no room for text\n"
            "  try: --data.sequence_length=512, as in the paper",
        ),
        (
            config(sequence_length=512, row_width=513),
            BlanksConfig(),
            "data.row_width=513 cannot hold a segment of data.sequence_length=512\n  try: --data.row_width=2048",
        ),
        (config(validation_fraction=0.5, test_fraction=0.5), BlanksConfig(), "leave nothing to train on\n"),
        (config(root="/nowhere/runs"), BlanksConfig(), "data.root=/nowhere/runs lies inside the source /nowhere\n"),
        (config(cache="s3://b/c"), BlanksConfig(), "data.cache=s3://b/c is on another machine\n"),
        (config(), BlanksConfig(mixture="gml"), "unknown mixture 'gml'"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(data, blanks, message):
    with pytest.raises(UserError) as refused:
        check(data, blanks)
    assert message in str(refused.value)


def test_settings_that_work_pass():
    check(config(), BlanksConfig())
    check(DataConfig(store="/some/store"), BlanksConfig())
    check(config(sequence_length=512, row_width=514, validation_fraction=0.0), BlanksConfig())


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


def content_settings(config: DataConfig, blanks: BlanksConfig, **selection) -> names.StoreSettings:
    chosen = select.resolve(SelectConfig(**selection), preset=config.clean.preset)
    return names.content_settings(config, blanks, chosen)


def test_what_decides_a_stores_content():
    base = content_settings(config(), BlanksConfig())
    same = content_settings(
        config(unit_bytes=Count(1), plan_epochs=5, root="/elsewhere", sources=[]), BlanksConfig(seed=99)
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
        assert content_settings(config(**changes), BlanksConfig()) != base, changes
    assert content_settings(config(), BlanksConfig(mixture="glm")) != base
    assert content_settings(config(), BlanksConfig(), duplicates="near") != base
    assert json.loads(json.dumps(asdict(base))) == asdict(base), "it goes into the manifest"


def test_a_store_is_named_by_text_tokenizer_and_settings(tiny_tokenizer):
    units = [small.unit("a", digest="1"), small.unit("b", digest="2")]
    settings = content_settings(config(), BlanksConfig())

    def name(data=None, the_units=units, tokenizer=tiny_tokenizer, the_settings=settings) -> str:
        url = names.store_url(data or config(root="/r"), the_units, tokenizer, the_settings)
        assert "/stores/" in url
        return storage.base_name(url)

    assert name(config(root="/elsewhere")) == name()
    changed = [
        name(the_units=units[:1]),
        name(the_units=[units[0], small.unit("b", digest="3")]),
        name(the_settings=replace(settings, seed=0)),
    ]
    assert len({name(), *changed}) == 4


def test_names_are_those_of_earlier_versions(tiny_tokenizer):
    """What was prepared before is found again, but for stores whose texts were cut at other places."""
    data = config(root="/r", sequence_length=64)
    settings, units = content_settings(data, BlanksConfig()), [small.unit("a", path="u", digest="1")]
    chosen = select.resolve(SelectConfig(duplicates="near"), preset="light", exclude=Exclusions(("x",)))
    urls = [
        names.text_url(data),
        names.selection_url(data, units, chosen),
        names.trained_url(data, units),
        names.store_url(data, units, tiny_tokenizer, settings),
    ]
    assert [url.removeprefix("/r/") for url in urls] == [
        "text/31b04713643504b8638882f4",
        "selections/48bddfe1abe823d43e5f1fbd",
        "tokenizers/502129b0026473c1ecb60787",
        "stores/e5880b2234f9e6883cb27eba",
    ]
    assert names.unit_key([file()], most=9) == "387fa32c5ba903ad70fa9c7b"


def test_cleaned_text_is_named_by_the_cleaning():
    assert names.text_url(config()) == names.text_url(config(seed=9, sequence_length=64))
    assert names.text_url(config(clean=CleanConfig(preset="off"))) != names.text_url(config())


def found(data: DataConfig) -> str | None:
    return find_store(preparation_of(data, BlanksConfig()))


def made(data: DataConfig) -> TokenStore:
    return prepare(preparation_of(data, BlanksConfig()), one_by_one())


def test_an_existing_store_is_found_and_opened_as_it_is(tiny_store, tmp_path):
    data = DataConfig(store=tiny_store.url)
    assert found(data) == tiny_store.url
    assert made(data).digest == tiny_store.digest
    gone = SelectConfig(decontaminate=[EvaluationSet("jsonl", "/nowhere")])
    assert made(replace(data, select=gone)).digest == tiny_store.digest, "what made the store is not read again"
    with pytest.raises(DataError, match="is not a finished token store"):
        made(DataConfig(store=str(tmp_path)))


def test_a_store_says_what_it_was_made_with_but_not_where_its_text_lay(tmp_path, tiny_tokenizer):
    data = small_data(tmp_path, tiny_tokenizer, select=SelectConfig(exclude=["corpus.jsonl"], duplicates="off"))
    small.corpus(tmp_path / "raw", small.documents(90)[80:], name="more")
    said = made(data).manifest.data
    assert said["sources"] == [{"reader": "jsonl", "name": "raw", "options": {}}]
    assert said["select"] == {"duplicates": "off", "exclude": ["corpus.jsonl"], "decontaminate": []}
    assert said["tokenizer"] == {"url": data.tokenizer.url, "lowercase": None}
    assert (said["sequence_length"], said["clean"]["preset"]) == (32, data.clean.preset)
    assert not {"root", "store", "mix", "unit_bytes"} & set(said)


def test_a_store_that_is_not_there_is_not_found(tmp_path):
    small.corpus(tmp_path / "raw", small.documents(3))
    data = config(sources=[Source("jsonl", str(tmp_path / "raw"))], root=str(tmp_path / "runs"))
    assert found(data) is None
    assert not (tmp_path / "runs").exists(), "asking makes nothing"


def small_data(folder: Path, vocabulary: Tokenizer, **changes) -> DataConfig:
    small.corpus(folder / "raw", small.documents(80))
    return config(
        sources=[Source("jsonl", str(folder / "raw"))],
        root=str(folder / "runs"),
        tokenizer=TokenizerConfig(url=vocabulary.save(str(folder / "tokenizer"))),
        **{"sequence_length": 32, "row_width": 160, "rows_per_group": 2, "validation_tokens": Count(200), **changes},
    )


def test_a_store_is_found_once_all_its_parts_are_there(tmp_path, tiny_tokenizer):
    data = small_data(tmp_path, tiny_tokenizer)
    store = made(data)
    assert found(data) == store.url
    assert found(replace(data, sequence_length=64)) is None
    for part in (f"{store.url}/manifest.json", f"{store.url}/{store.validation.shards[0].path}"):
        Path(part).unlink()
        assert found(data) is None
        made(data)
        assert found(data) == store.url
    (record,) = Path(names.text_url(data)).glob("*.json")
    record.unlink()
    assert found(data) is None


def test_the_remedy_for_a_damaged_shard_is_one(tmp_path, tiny_tokenizer):
    data = small_data(tmp_path, tiny_tokenizer)
    store = made(data)
    path = Path(store.url, store.train.shards[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{path}(.|\n)*remove that file(.|\n)*run workflows/prepare.py again"):
        TokenStore.open(store.url).train.read_group(0)
    path.unlink()
    rebuilt = made(data)
    assert path.read_bytes() == whole
    assert rebuilt.manifest == store.manifest


def test_redrawn_rows_are_counted_over_interruptions(tmp_path, tiny_tokenizer, monkeypatch):
    draw = stored_blanks.draw_rows

    def redraw(mixture, rows, *args, **kwargs):
        drawn, redraws = draw(mixture, rows, *args, **kwargs)
        return drawn, np.ones_like(redraws)

    monkeypatch.setattr(stored_blanks, "draw_rows", redraw)
    data = small_data(tmp_path, tiny_tokenizer, plan_epochs=3)
    store = made(data)
    (summary,) = Path(store.url, "plans").glob("*/summary.json")
    rows = 3 * store.train.rows + store.validation.rows
    assert json.loads(summary.read_text())["redrawn_rows"] == rows
    next(summary.parent.rglob("*.parquet")).unlink()
    made(data)
    assert json.loads(summary.read_text())["redrawn_rows"] == rows, "of all plans, not of those of the last call"
    summary.unlink()
    made(data)
    assert json.loads(summary.read_text())["redrawn_rows"] == rows, "also where nothing was left to draw"


def test_the_sample_for_a_tokenizer_is_a_function_of_the_text_and_the_seed(tmp_path):
    raw = [small.corpus(tmp_path / "raw", small.documents(40, seed=i), name=f"part{i}") for i in range(3)]
    units = [small.clean_unit(files, CleanConfig(), f"{tmp_path}/text/{i}") for i, files in enumerate(raw)]
    texts = list(sample(units, f"{tmp_path}/text", most_bytes=10**6, seed=1))
    assert (len(texts), len(set(texts))) == (120, 120)
    assert list(sample(units[::-1], f"{tmp_path}/text", most_bytes=10**6, seed=1)) == texts
    assert list(sample(units, f"{tmp_path}/text", most_bytes=10**6, seed=5)) != texts
    few = list(sample(units, f"{tmp_path}/text", most_bytes=1000, seed=1))
    assert few == texts[: len(few)]
    assert sum(map(len, few[:-1])) < 1000 <= sum(map(len, few))


def test_a_trained_tokenizer_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    files = small.corpus(tmp_path / "raw", small.documents(200))
    training = TokenizerTraining(vocab_size=512)
    data = config(root=str(tmp_path / "runs"), tokenizer=TokenizerConfig(train=training))
    key = names.unit_key(files, most=names.unit_limit(data))
    units = [small.clean_unit(files, CleanConfig(), storage.join(names.text_url(data), key))]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(InfrastructureError, match="No space left"):
            prepare_tokenizer(data, units)
    assert list((tmp_path / "runs" / "tokenizers").rglob("*.json")) == []
    trained = prepare_tokenizer(data, units)
    assert prepare_tokenizer(data, units).to_json() == trained.to_json()


def test_a_missing_tokenizer_names_the_setting():
    with pytest.raises(UserError, match=r"data.tokenizer.url: (.|\n)*vocab"):
        prepare_tokenizer(config(tokenizer=TokenizerConfig(url="/no/such/vocab.txt")), [])


def test_lowercase_without_a_vocabulary_to_read_is_refused():
    given = config(sources=[Source("text", "/texts")], tokenizer=TokenizerConfig(lowercase=True))
    with pytest.raises(UserError, match=r"data\.tokenizer\.lowercase is given without data\.tokenizer\.url"):
        check(given, BlanksConfig())


@pytest.mark.parametrize(
    "content", ['{"model": {"type": "WordPiece", "voc', '{"model": {"type": "WordPiece"}}', "[]", '{"model": {}}']
)
def test_a_tokenizer_that_is_cut_short_names_the_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    given = config(tokenizer=TokenizerConfig(url=str(tmp_path / "tokenizer.json")))
    with pytest.raises(
        UserError, match=f"data.tokenizer.url: {tmp_path}/tokenizer.json is damaged or holds no tokenizer"
    ):
        prepare_tokenizer(given, [])


@pytest.mark.parametrize(("unit_bytes", "warning"), [(250, ""), (249, "large.txt holds about 2 kB of text. ")])
def test_a_user_is_warned_of_a_file_of_many_units_before_it_is_read(tmp_path, capsys, unit_bytes, warning):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "large.txt").write_text("abcdefghi " * 200)
    (tmp_path / "raw" / "small.txt").write_text("abcdefghi " * 199)
    data = config(
        sources=[Source("text", str(tmp_path / "raw"))], root=str(tmp_path / "runs"), unit_bytes=Count(unit_bytes)
    )
    prepare_text(data, list_sources(data.sources), one_by_one())
    printed = capsys.readouterr().out
    assert warning in printed
    assert bool(printed) == bool(warning)
    prepare_text(data, list_sources(data.sources), one_by_one())
    assert capsys.readouterr().out == "", "it was read"
