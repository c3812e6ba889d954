"""Recipes and overrides: what is accepted, what is refused and how the refusal reads."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import Count, config_digest, dataclass_from, flatten, from_yaml, parse, to_yaml
from infra.errors import UserError


@dataclass
class Source:
    reader: str
    url: str = ""
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optim:
    """Optimizer."""

    lr: float = 1e-4
    """Peak learning rate, per step."""
    betas: tuple[float, float] = (0.9, 0.98)
    steps: int | None = None
    fused: bool = False
    schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.lr > 1:
            raise UserError(f"optim.lr={self.lr} is above 1", try_="lower it")
        if self.steps == 0:
            raise ValueError("optim.steps is 0")


@dataclass
class Data:
    sources: list[Source] = field(default_factory=list)
    """What to read."""
    mixture: dict[str, float] | str = "glm"
    settings: dict[str, dict[str, Any]] = field(default_factory=lambda: {"token": {"ratio": 0.15}})
    tokens: Count = Count("1M")


@dataclass
class Root:
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=lambda: Optim(lr=3e-4))
    name: str | None = None


RECIPE = """
data:
  sources:
    - {reader: text, url: s3://bucket/a b}
    - reader: jsonl
      options: {field: body}
  mixture: {token: 0.5, document: 0.5}
  tokens: 20B
optim:
  lr: 2e-4
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "recipe.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def read(*argv: str) -> Root:
    return parse(Root, description="Train.", argv=list(argv))[0]


def refusal(*argv: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read(*argv)
    assert caught.value.exit_code == 2
    return caught.value


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


@pytest.mark.parametrize("text", ["1.5", "1.0005k", "many", "", "k", "-5", "nan", "inf", 0.5, True, None])
def test_count_refuses_what_is_not_whole(text):
    with pytest.raises(ValueError, match=r"count|whole number"):
        Count(text)


def test_count_survives_pickling():
    assert pickle.loads(pickle.dumps(Count("5k"))) == 5000


def test_recipe_becomes_nested_dataclasses(write):
    sources = [Source("text", "s3://bucket/a b"), Source("jsonl", options={"field": "body"})]
    expected = Root(Data(sources, {"token": 0.5, "document": 0.5}, tokens=Count(20_000_000_000)), Optim(lr=2e-4))
    assert read("--config", write(RECIPE)) == expected


def test_default_factories_of_the_root_are_kept():
    assert read().optim.lr == 3e-4
    assert read("--optim.fused=true").optim == Optim(lr=3e-4, fused=True)


def test_later_recipe_wins_key_by_key_and_replaces_lists(write):
    second = write("data:\n  sources: [{reader: pydocs}]\noptim:\n  steps: 5\nname: x\n", "second.yaml")
    config = read(f"--config={write(RECIPE)}", f"--config={second}")
    assert config.data.sources == [Source("pydocs")]
    assert (config.data.tokens, config.optim, config.name) == (20_000_000_000, Optim(lr=2e-4, steps=5), "x")


def test_overrides_win_wherever_the_recipe_stands(write):
    assert read("--optim.lr", "0.5", "--config", write(RECIPE)).optim.lr == 0.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.sources=[{reader: text, url: x}]"], [Source("text", "x")]),
        (["--data.sources", "[{reader: text}]"], [Source("text")]),
        (["--data.sources+={reader: a}", "--data.sources+=[{reader: b}, {reader: c}]"], [*"abc"]),
    ],
)
def test_lists_are_replaced_or_appended_to(write, words, expected):
    before = [Source("text", "s3://bucket/a b"), Source("jsonl", options={"field": "body"})] if "+" in words[0] else []
    expected = before + [Source(e) if isinstance(e, str) else e for e in expected]
    assert read("--config", write(RECIPE), *words).data.sources == expected


def test_entries_of_dicts_are_set_one_by_one(write):
    path = write("data: {settings: {token: {ratio: 0.2}, document: {low: 1}}}")
    words = ["--data.settings.token.poisson=3", "--data.settings.token.name=a b", "--data.mixture.token=1"]
    config = read("--config", path, *words)
    assert config.data.settings == {"token": {"ratio": 0.2, "poisson": 3, "name": "a b"}, "document": {"low": 1}}
    assert config.data.mixture == {"token": 1.0}
    assert read("--data.settings.token.poisson=3").data.settings == {"token": {"ratio": 0.15, "poisson": 3}}
    assert Root().data.settings == {"token": {"ratio": 0.15}}


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("--name=null", "name", None),
        ("--name=1e5", "name", "1e5"),
        ("--name=5", "name", "5"),
        ("--name={x}", "name", "{x}"),
        ("--optim.betas=[0.5, 1]", "optim.betas", (0.5, 1.0)),
        ("--optim.steps=7", "optim.steps", 7),
        ("--optim.fused", "optim.fused", True),
        ("--optim.lr=1", "optim.lr", 1.0),
        ("--data.mixture=glm_doc", "data.mixture", "glm_doc"),
        ("--data.mixture={token: 1}", "data.mixture", {"token": 1.0}),
        ("--data.tokens=512k", "data.tokens", 512_000),
    ],
)
def test_words_take_the_type_of_their_key(word, key, value):
    found = read(word)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value) or isinstance(found, Count)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dta: {}", "unknown key 'dta' in {}; did you mean 'data'? (have: data, name, optim)"),
        (
            "optim: {lrr: 1}",
            "unknown key 'optim.lrr' in {}; did you mean 'lr'? (have: betas, fused, lr, schedule, steps)",
        ),
        (
            "data: {sources: [{reader: a}, {reader: a, ulr: b}]}",
            "unknown key 'data.sources.1.ulr' in {}; did you mean 'url'?",
        ),
        ("optim: {lr: fast}", "optim.lr='fast' in {}: expected a number"),
        ("optim: {steps: 1.5}", "optim.steps=1.5 in {}: expected a whole number or null"),
        ("optim: {schedule: cosin}", "optim.schedule='cosin' in {} is not one of its values; did you mean 'cosine'?"),
        ("data: {tokens: 1.5}", "data.tokens=1.5 in {}: expected a count such as 20B"),
        ("data: {sources: {reader: a}}", "data.sources={{'reader': 'a'}} in {}: expected a list of Source"),
        ("data: {sources: [{reader: a, url: [b]}]}", "data.sources.0.url=['b'] in {}: expected text"),
        ("data: {sources: [{url: b}]}", "data.sources.0.reader is required in {}"),
        ("data: {mixture: {token: x}}", "data.mixture.token='x' in {}: expected a number"),
        ("optim: 5", "optim=5 in {}: expected a section"),
        ("- 1", "expected keys and values in {}, got [1]"),
        ("name: 5", "name=5 in {}: expected text or null\n  try: quote it"),
        ("name: a\nname: b", "invalid YAML in {}"),
        ("name: [", "invalid YAML in {}"),
    ],
)
def test_a_wrong_recipe_is_named(write, text, message):
    path = write(text)
    assert str(refusal("--config", path)).startswith(message.format(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lrr=1"], "unknown key 'optim.lrr' on the command line; did you mean 'lr'?"),
        (["--lr=1"], "unknown key 'lr' on the command line; did you mean 'optim.lr'?"),
        (["--optim.l=1"], "unknown key 'optim.l' on the command line"),
        (["--optim.lr.x=1"], "unknown key 'optim.lr.x' on the command line: optim.lr is a number"),
        (["--optim.lr=fast"], "optim.lr='fast' on the command line: expected a number"),
        (["--optim.lr"], "--optim.lr needs a value"),
        (["--data.sources.0.url=x"], "data.sources.0.url on the command line: data.sources is a list"),
        (["--data.sources+={reader: a, x: 1}"], "unknown key 'data.sources.0.x' on the command line"),
        (["--optim.lr+=1"], "--optim.lr+= appends to a list"),
        (["--data.tokens=1.5"], "data.tokens='1.5' on the command line: expected a count"),
        (["stray"], "unexpected 'stray' on the command line"),
        (["--config=missing.yaml"], "cannot read --config missing.yaml"),
        (["--optim.lr=5"], "optim.lr=5.0 is above 1"),
        (["--optim.steps=0"], "optim.steps is 0"),
    ],
)
def test_a_wrong_command_line_is_named(words, message, capfd):
    assert str(refusal(*words)).startswith(message)
    assert capfd.readouterr() == ("", "")


def test_the_place_is_the_one_that_set_the_value_last(write):
    first, second = write("optim: {lr: a}", "first.yaml"), write("optim: {lr: b}", "second.yaml")
    assert f"in {second}" in str(refusal("--config", first, "--config", second))
    assert "on the command line" in str(refusal("--optim.lr=c", "--config", first))
    assert read("--config", first, "--optim.lr=0.5").optim.lr == 0.5


def test_an_empty_section_or_recipe_states_nothing(write):
    first = write("optim: {lr: 0.5}")
    assert read("--config", first, "--config", write("optim:\n", "b"), "--config", write("", "c")).optim.lr == 0.5


def test_switches_are_returned():
    flags = {"plan": "Show the cost and exit.", "force": "Do it."}
    assert parse(Root, description="", argv=["--plan", "--name", "x"], flags=flags) == (
        Root(name="x"),
        {"plan": True, "force": False},
    )


def test_help_shows_sections_types_and_field_docs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stopped:
        parse(Root, description="Train a GLM.", argv=["--help"], flags={"plan": "Show the cost."})
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    for part in [
        "Train a GLM.",
        "--plan ",
        "Show the cost.",
        "Optimizer:",
        "Peak learning rate, per step. (type: float",
    ]:
        assert part in text
    assert "data.sources: each has reader, url, name, options" in text
    assert "Root(" not in text


def test_print_config_prints_what_can_be_read_back(write, capsys):
    with pytest.raises(SystemExit) as stopped:
        read("--config", write(RECIPE), "--print_config", "--name=x")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert from_yaml(Root, text) == replace(read("--config", write(RECIPE)), name="x")
    assert read("--config", write(text, "printed.yaml")).name == "x"


def test_recipes_read_as_people_mean_them(write):
    text = "{a: no, b: 1e-4, c: 2026-11-23, d: 1:30, e: 010, f: 1_000, g: true, h: ~, i: -.inf, j: '0', k: 0x10}"
    config = read("--config", write(f"data: {{settings: {{x: {text}}}}}"))
    expected = {"a": "no", "b": 1e-4, "c": "2026-11-23", "d": "1:30", "e": "010", "f": 1000, "g": True, "h": None}
    assert config.data.settings["x"] == expected | {"i": float("-inf"), "j": "0", "k": "0x10"}


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


def test_digest_depends_on_all_that_is_not_excluded():
    digest = config_digest(Root(), exclude=("name", "optim.steps"))
    assert digest == config_digest(Root(name="x", optim=Optim(lr=3e-4, steps=3)), exclude=("name", "optim.steps"))
    assert digest != config_digest(Root(optim=Optim(lr=1e-4)), exclude=("name", "optim.steps"))
    assert len(digest) == 64
    with pytest.raises(KeyError):
        config_digest(Root(), exclude=("optim.stepss",))


def test_digest_is_of_values_not_of_spellings(write):
    assert config_digest(read("--optim.lr=1", "--data.tokens=1k")) == config_digest(
        read("--config", write("optim: {lr: 1.0}\ndata: {tokens: 1000}"))
    )


def test_dataclass_from_is_strict():
    assert dataclass_from(Source, {"reader": "a", "options": {"x": 1}}, where="in source 1") == Source(
        "a", options={"x": 1}
    )
    for mapping, message in [
        ({"reader": "a", "ulr": 1}, "unknown key 'ulr' in source 1; did you mean 'url'?"),
        ({}, "reader is required in source 1"),
        ({"reader": ["a"]}, "reader=['a'] in source 1: expected text"),
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


def test_import_is_light():
    code = "import sys, infra.config; print([m for m in ('jsonargparse', 'yaml', 'numpy', 'ray') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
