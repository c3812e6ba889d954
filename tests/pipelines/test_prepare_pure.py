"""The parts of preparation that need no Ray: refusals, names by content, what is held out, estimates."""

import json
from dataclasses import replace

import numpy as np
import pytest
import small

from infra import storage
from infra.config import Count
from infra.errors import DataError, UserError
from pipelines import data_config, prepare, store
from pipelines.blanks import BlanksConfig
from pipelines.clean import CleanConfig
from pipelines.data_config import DataConfig, TokenizerConfig, content_settings
from pipelines.prepare import validation_limits
from pipelines.sources import InputFile, Source
from pipelines.text import clean_unit


def config(**changes) -> DataConfig:
    return DataConfig(**{"sources": [Source("text", "/nowhere")], **changes})


def unit(source: str, keys: list[int], *, num_bytes: int = 1000, kept: int | None = None) -> dict:
    """The record of a unit whose smallest documents have these keys."""
    count = len(keys) if kept is None else kept
    return {
        "source": source,
        "kept": count,
        "num_bytes": count * num_bytes,
        "smallest": [[k, num_bytes] for k in sorted(keys)],
    }


def held(units: list[dict], limits: dict[str, int]) -> dict[str, int]:
    """Documents below the limit, per source."""
    counts = {source: 0 for source in limits}
    for u in units:
        counts[u["source"]] += sum(key < limits[u["source"]] for key, _ in u["smallest"])
    return counts


KEYS = [int(k) for k in np.random.default_rng(0).integers(0, 1 << 64, 200, dtype=np.uint64)]


def test_a_fraction_of_the_keys_is_held_out():
    units = [unit("a", KEYS[:100]), unit("a", KEYS[100:])]
    limits = validation_limits(units, fraction=0.1, min_bytes=0)
    assert limits == {"a": int(0.1 * 2**64)}
    assert held(units, limits)["a"] == sum(k < 0.1 * 2**64 for k in KEYS)


def test_at_least_min_bytes_are_held_out_by_share_of_the_source():
    units = [unit("a", KEYS[:100]), unit("b", KEYS[100:], num_bytes=3000)]
    limits = validation_limits(units, fraction=0.0001, min_bytes=40_000)  # a: a quarter of 40,000 bytes, b: the rest
    assert held(units, limits) == {"a": 10, "b": 10}
    for source, keys in (("a", KEYS[:100]), ("b", KEYS[100:])):
        assert limits[source] == sorted(keys)[9] + 1, "the limit is exact: the tenth document is below it"


def test_at_most_half_of_a_sources_documents_make_up_for_min_bytes():
    for n, expected in ((2, 1), (3, 1), (4, 2), (9, 4)):
        units = [unit("a", KEYS[:n])]
        assert held(units, validation_limits(units, fraction=1e-9, min_bytes=10**9)) == {"a": expected}


def test_a_source_of_one_document_is_trained_on():
    units = [unit("a", KEYS[:1]), unit("b", KEYS[1:40])]
    limits = validation_limits(units, fraction=0.999, min_bytes=0)
    assert limits["a"] == 0
    assert limits["b"] > 0


def test_one_document_at_least_is_held_out_where_there_are_two():
    units = [unit("a", [1 << 63, 3 << 62])]
    assert held(units, validation_limits(units, fraction=1e-9, min_bytes=0)) == {"a": 1}


def test_a_fraction_of_zero_holds_nothing_out():
    assert validation_limits([unit("a", KEYS)], fraction=0, min_bytes=10**9) == {}


def test_limits_do_not_depend_on_how_a_source_is_cut_into_units():
    whole = [unit("a", KEYS)]
    parts = [unit("a", KEYS[i::7]) for i in range(7)]
    for min_bytes in (0, 30_000):
        assert validation_limits(whole, fraction=0.01, min_bytes=min_bytes) == validation_limits(
            parts, fraction=0.01, min_bytes=min_bytes
        )


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
    base = data_config.unit_key([file()])
    assert len(base) == 24
    assert data_config.unit_key([file(url="/elsewhere/x.txt", source_index=3)]) == base, "not by where it lies"
    changed = [
        [file(source="t")],
        [file(reader="jsonl")],
        [file(options={"per": "line"})],
        [file(path="y.txt")],
        [file(size=11)],
        [file(version="2")],
        [file(), file(path="y.txt")],
    ]
    assert len({base, *map(data_config.unit_key, changed)}) == 8


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
        {"validation_tokens": Count(1)},
        {"shard_bytes": Count(10)},
        {"seed": 2},
    ):
        assert content_settings(config(**changes), BlanksConfig()) != base, changes
    assert content_settings(config(), BlanksConfig(mixture="glm")) != base
    assert json.loads(json.dumps(base)) == base, "it goes into the manifest"


def test_a_store_is_named_by_text_tokenizer_and_settings(tiny_tokenizer):
    units = [{"source": "a", "digest": "1"}, {"source": "b", "digest": "2"}]
    settings = content_settings(config(), BlanksConfig())

    def name(data=None, the_units=units, tokenizer=tiny_tokenizer, the_settings=settings) -> str:
        url = data_config.store_url(data or config(root="/r"), the_units, tokenizer, the_settings)
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
    assert data_config.text_url(config()) == data_config.text_url(config(seed=9, sequence_length=64))
    assert data_config.text_url(config(clean=CleanConfig(preset="off"))) != data_config.text_url(config())


def test_an_estimate_from_file_sizes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 4100)
    (tmp_path / "b.txt.gz").write_bytes(b"x" * 1000)
    told = prepare.estimate(config(sources=[Source("text", str(tmp_path))]))
    assert (told.files, told.stored_bytes) == (2, 5100)
    assert told.tokens == pytest.approx(7100 / 4.1)
    assert told.core_seconds == pytest.approx(7100 / 3e6)


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


def test_a_store_is_found_once_all_its_parts_are_there(tmp_path, tiny_tokenizer):
    files = small.corpus(tmp_path / "raw", small.documents(30))
    vocabulary = tiny_tokenizer.save(str(tmp_path / "tokenizer"))
    data = config(
        sources=[Source("jsonl", files[0].url, name="corpus")],
        root=str(tmp_path / "runs"),
        tokenizer=TokenizerConfig(url=vocabulary),
    )
    record = clean_unit(files, CleanConfig(), storage.join(data_config.text_url(data), data_config.unit_key(files)))
    assert prepare.find_store(data, BlanksConfig()) is None
    settings = content_settings(data, BlanksConfig())
    url = data_config.store_url(data, [record], tiny_tokenizer, settings)
    manifest = {"tokenizer_digest": "t", "dtype": "<u2", "vocab_size": 1, "settings": settings}
    store.publish(url, manifest, {"train": [], "validation": []})
    assert prepare.find_store(data, BlanksConfig()) == url
    assert prepare.find_store(replace(data, sequence_length=64), BlanksConfig()) is None


def test_a_missing_tokenizer_names_the_setting():
    with pytest.raises(UserError, match=r"data.tokenizer.url: (.|\n)*vocab"):
        prepare.prepare_tokenizer(config(tokenizer=TokenizerConfig(url="/no/such/vocab.txt")), [])


def test_validation_pieces_are_those_that_hold_documents_below_the_limit():
    pieces = [{"unit": "00" * 12, "source": "a", "piece": p, "group": p, "num_bytes": 1000} for p in range(16)]
    limits = {"a": (2 << 60) + (1 << 59)}  # two pieces and a half
    (shard,) = prepare._assign(pieces, limits, "validation", config())
    assert {p["piece"]: p["num_bytes"] for p in shard} == {0: 1000, 1: 1000, 2: 500}
    (train,) = prepare._assign(pieces, limits, "train", config())
    assert sorted(p["piece"] for p in train) == list(range(16))
    assert prepare._assign(pieces, {}, "validation", config()) == []


def test_a_corpus_of_which_nothing_is_kept_says_why():
    records = [{"read": 3, "dropped": {"too_short": 2, "empty_file": 1}}, {"read": 1, "dropped": {"too_short": 1}}]
    told = str(prepare._nothing_kept(records))
    assert "of 4 documents none was kept" in told
    assert "too_short 3, empty_file 1" in told
    assert "data.clean.preset=off" in told
