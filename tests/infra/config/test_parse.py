"""Recipes and overrides: what is accepted, what is refused and how the refusal reads."""

import subprocess
import sys
from dataclasses import replace

import pytest
from helpers.sections import Data, Optim, Root, Source, read

from infra.config import Count, from_yaml, parse
from infra.errors import UserError

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


def refusal(*argv: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read(*argv)
    assert caught.value.exit_code == 2
    return caught.value


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
        ("--name=#1 'a' # b", "name", "#1 'a' # b"),
        ('--name="a\\nb"', "name", '"a\\nb"'),
        ("--name=", "name", ""),
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


def test_import_is_light():
    code = "import sys, infra.config; print([m for m in ('jsonargparse', 'yaml', 'numpy', 'ray') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
