"""Settings as values (law 15): counts, through YAML and back, flat, as a digest, out of mappings."""

import pickle
from dataclasses import dataclass

import pytest
from helpers.sections import Data, Optim, Root, Source
from hypothesis import given
from hypothesis import strategies as st

from infra.config import Count, dataclass_from, flatten, from_yaml, to_yaml
from infra.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20B", 20_000_000_000),
        ("512k", 512_000),
        ("512K", 512_000),
        ("1.5M", 1_500_000),
        ("1e9", 10**9),
        ("2T", 2 * 10**12),
        ("100_000", 100_000),
        (7, 7),
        (1e3, 1000),
        ("1.1B", 1_100_000_000),
        ("0.1k", 100),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_count_reads_units(text, value):
    assert Count(text) == value
    assert isinstance(Count(text), int)


@pytest.mark.parametrize(
    "text",
    [
        "1.5",
        "1.0005k",
        f"1.{'0' * 40}1k",
        "many",
        "",
        "k",
        "-5",
        "nan",
        "inf",
        "010",
        "1e400",
        "1e999999999999999999",
        "٣",
        "9223373T",
        0.5,
        True,
        None,
        1e19,
        2**63,
    ],
)
def test_count_refuses_what_is_not_whole(text):
    with pytest.raises(ValueError, match=r"count|whole number"):
        Count(text)


def test_count_survives_pickling():
    assert pickle.loads(pickle.dumps(Count("5k"))) == 5000


@given(
    name=st.one_of(
        st.none(),
        st.sampled_from(["null", "0", "no", "1e5", "{a: 1}", "", " x "]),
        st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    ),
    lr=st.floats(0, 1),
    tokens=st.integers(0, 10**15),
    options=st.dictionaries(
        st.sampled_from("abc"), st.one_of(st.integers(), st.text("019eE+-.:_noxX", max_size=6), st.booleans())
    ),
)
def test_yaml_round_trip(name, lr, tokens, options):
    config = Root(Data([Source("r", options=options)], tokens=Count(tokens)), Optim(lr=lr), name)
    assert from_yaml(Root, to_yaml(config)) == config


@pytest.mark.parametrize("text", ["0:", "a: b", "[1", "{", "1: 2", "- x", "&a", "!!int 3", "'"])
def test_text_that_looks_like_yaml_stays_text(text):
    config = Root(Data([Source("r", options={"a": text})]), Optim(), text)
    assert from_yaml(Root, to_yaml(config)) == config


def test_flatten():
    config = Root(Data([Source("text", options={"a": 1})], settings={}, tokens=Count(5)), Optim(), None)
    assert flatten(config) == {
        "data.sources.0.reader": "text",
        "data.sources.0.url": "",
        "data.sources.0.name": "null",
        "data.sources.0.options.a": "1",
        "data.mixture": "glm",
        "data.settings": "{}",
        "data.tokens": "5",
        "optim.lr": "0.0001",
        "optim.betas": "[0.9, 0.98]",
        "optim.steps": "null",
        "optim.fused": "false",
        "optim.schedule": "cosine",
        "name": "null",
    }


def test_dataclass_from_is_strict():
    assert dataclass_from(Source, {"reader": "a", "options": {"x": 1}}, where="in source 1") == Source(
        "a", options={"x": 1}
    )
    for mapping, message in [
        ({"reader": "a", "ulr": 1}, "unknown key 'ulr' in source 1; did you mean 'url'?"),
        ({}, "reader is required in source 1"),
        ({"reader": ["a"]}, "reader in source 1: expected text, got ['a']"),
    ]:
        with pytest.raises(UserError) as caught:
            dataclass_from(Source, mapping, where="in source 1")
        assert str(caught.value).startswith(message)


def test_a_dataclass_without_settings_is_made_from_nothing_and_refuses_all_else():
    @dataclass(frozen=True)
    class Nothing:
        pass

    assert dataclass_from(Nothing, {}, where="in objective x") == Nothing()
    with pytest.raises(UserError, match="unknown key 'ratio' in objective x"):
        dataclass_from(Nothing, {"ratio": 1}, where="in objective x")
