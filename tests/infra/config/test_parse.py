"""Recipes and overrides: what is accepted, what is refused and how the refusal reads."""

import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import pytest
from annotated_types import Ge, Lt
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
        ("--name=1e5", "name", "1e5"),
        ("--name=5", "name", "5"),
        ("--name={x}", "name", "{x}"),
        ("--optim.betas=[0.5, 1]", "optim.betas", (0.5, 1.0)),
        ("--optim.steps=7", "optim.steps", 7),
        ("--optim.fused", "optim.fused", True),
        ("--optim.lr=1", "optim.lr", 1.0),
        ("--optim.lr=-.inf", "optim.lr", float("-inf")),
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
        ("optim: {lr: fast}", "optim.lr in {}: expected a number, got 'fast'"),
        ("optim: {lr: '1'}", "optim.lr in {}: expected a number, got '1'"),
        ("optim: {steps: 1.5}", "optim.steps in {}: expected a whole number or null, got 1.5"),
        ("optim: {steps: 1:30}", "optim.steps in {}: expected a whole number or null, got '1:30'"),
        ("optim: {steps: true}", "optim.steps in {}: expected a whole number or null, got True"),
        ("optim: {lr: null}", "optim.lr in {}: expected a number, got None"),
        ("optim: {betas: [1]}", "optim.betas in {}: expected a list of 2 numbers, got [1]"),
        ("optim: {betas: [1, x]}", "optim.betas.1 in {}: expected a number, got 'x'"),
        (
            "optim: {schedule: cosin}",
            "optim.schedule in {}: expected one of its values, got 'cosin'; did you mean 'cosine'? "
            "(have: cosine, linear)",
        ),
        ("data: {tokens: 1.5}", "data.tokens in {}: expected a count such as 20B, 512k or 100_000, got 1.5"),
        (
            "data: {sources: {reader: a}}",
            "data.sources in {}: expected a list of sections with the keys reader, url, name, options, got "
            "{{'reader': 'a'}}\n  try: --data.sources='[{{reader: ..., url: ...}}]'",
        ),
        (
            "data: {sources: [{reader: a, field: body}]}",
            "unknown key 'data.sources.0.field' in {} (have: name, options, reader, url)\n"
            "  try: options: {{field: ...}}",
        ),
        ("data: {sources: [a]}", "data.sources.0 in {}: expected a section with the keys reader, url, name, options"),
        ("data: {sources: [{reader: a, url: [b]}]}", "data.sources.0.url in {}: expected text, got ['b']"),
        ("data: {sources: [{reder: a, url: b}]}", "unknown key 'data.sources.0.reder' in {}; did you mean 'reader'?"),
        ("data: {sources: [{url: b}]}", "data.sources.0.reader is required in {}\n  why: expected text"),
        ("data: {mixture: {token: x}}", "data.mixture.token in {}: expected a number, got 'x'"),
        (
            "data: {mixture: 5}",
            "data.mixture in {}: expected a mapping of text to numbers or text, got 5\n  try: quote",
        ),
        ("optim: 5", "optim in {}: expected a section with the keys lr, betas, steps, fused, schedule, got 5"),
        ("- 1", "expected keys and values in {}, got [1]"),
        ("name: 5", "name in {}: expected text or null, got 5\n  try: quote it, or YAML reads a whole number: name: '"),
        ("data: {settings: &a {x: *a}}", "a setting is not valid text, or a list that holds itself"),
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
        (["--optim.lr=fast"], "optim.lr on the command line: expected a number, got 'fast'"),
        (["--optim.steps=0x10"], "optim.steps on the command line: expected a whole number or null, got '0x10'"),
        (["--optim.lr"], "--optim.lr needs a value"),
        (["--data.sources.0.url=x"], "cannot set data.sources.0.url on the command line: data.sources is a list"),
        (["--data.sources+={reader: a, x: 1}"], "unknown key 'data.sources.0.x' on the command line"),
        (["--optim.lr+=1"], "--optim.lr+= appends to a list"),
        (["--data.tokens=1.5"], "data.tokens on the command line: expected a count such as 20B"),
        (["stray"], "unexpected 'stray' on the command line"),
        (["--config=missing.yaml"], "cannot read --config missing.yaml"),
        (["--optim.lr=5"], "optim.lr=5.0 is above 1"),
        (["--optim.steps=0"], "optim.steps is 0"),
    ],
)
def test_a_wrong_command_line_is_named(words, message, capfd):
    assert str(refusal(*words)).startswith(message)
    assert capfd.readouterr() == ("", "")


def test_a_recipe_of_a_name_like_the_given_one_is_named(write):
    path = write("optim: {lr: 0.1}", "quickstart.yaml")
    assert refusal("--config", path.replace(".yaml", ".yml")).try_ == f"--config {path}"
    assert refusal("--config", path.replace("quickstart", "large")).try_ == "give a path to a YAML recipe"


@dataclass
class Feed:
    settings: str = ""
    share: Annotated[float, Ge(0), Lt(1)] = 0.5
    rows: Annotated[int, Ge(1)] | None = None


@dataclass
class Renamed:
    RENAMED: ClassVar[dict[str, str]] = {"feed.recipe": "feed.settings", "food": "feed"}
    feed: Feed = field(default_factory=Feed)
    feeds: list[Feed] = field(default_factory=list)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--feed.recipe=x"], "unknown key 'feed.recipe' on the command line: it is now 'feed.settings'"),
        (["--food.settings=x"], "unknown key 'food' on the command line: it is now 'feed'"),
        (["--feed.recipes=x"], "unknown key 'feed.recipes' on the command line (have: rows, settings, share)"),
    ],
)
def test_a_renamed_key_is_refused_with_its_new_name(argv, message):
    with pytest.raises(UserError) as caught:
        parse(Renamed, description="", argv=argv)
    assert caught.value.message == message


def test_a_renamed_key_of_a_recipe_is_refused_with_its_new_name(write):
    path = write("feed: {recipe: x}")
    with pytest.raises(UserError) as caught:
        parse(Renamed, description="", argv=["--config", path])
    assert str(caught.value) == (
        f"unknown key 'feed.recipe' in {path}: it is now 'feed.settings'\n  try: use 'feed.settings' instead"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--feed.rows=0"], "feed.rows must be at least 1, got 0 on the command line"),
        (
            ["--feed.share=1"],
            "feed.share must be below 1, got 1 on the command line\n  try: --feed.share=0.5 (the default)",
        ),
        (
            ["--feeds=[{share: .nan}]"],
            "feeds.0.share must be below 1, got nan on the command line\n  try: use 0.5 (the default)",
        ),
    ],
)
def test_a_number_outside_its_range_is_refused(argv, message):
    with pytest.raises(UserError) as caught:
        parse(Renamed, description="", argv=argv)
    assert str(caught.value) == message
    assert parse(Renamed, description="", argv=["--feed.rows=1", "--feed.share=0"])[0].feed == Feed("", 0.0, 1)


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
    parsed = parse(Root, description="", argv=["--plan", "--name", "x"], flags=flags)
    assert parsed == (Root(name="x"), {"plan": True, "force": False}, "")


def test_the_last_recipe_gives_its_name(write):
    first, last = write("", "first.yaml"), write("", "last.one.yaml")
    assert parse(Root, description="", argv=["--config", first, f"--config={last}"]).recipe_name == "last.one"


@dataclass
class Pair:
    """Two things that may stand alone on a command line, and a field called as Python has no field."""

    both: list[str] = field(default_factory=list)
    from_: str = ""
    sure: bool | None = None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "b"], Pair(["a", "b"])),
        (["--from", "x", "a", "--sure", "--both+=b"], Pair(["a", "b"], "x", True)),
        (["12", "[a]", "k: v", "null"], Pair(["12", "[a]", "k: v", "null"])),
        (["--from=a=b", "--sure=false"], Pair([], "a=b", False)),
        (["--both", "a", "b@*", "--sure"], Pair(["a", "b@*"], sure=True)),
        (["--both", "[a, b]", "c"], Pair(["a", "b", "c"])),
    ],
)
def test_words_that_stand_alone_and_fields_called_as_keywords(words, expected):
    assert parse(Pair, description="", argv=words, positional="both").config == expected


def test_words_that_stand_alone_are_no_settings():
    with pytest.raises(UserError, match=r"^unexpected '-x' on the command line"):
        parse(Pair, description="", argv=["a", "-x"], positional="both")


def test_help_spells_fields_as_they_are_given(capsys):
    with pytest.raises(SystemExit):
        parse(Pair, description="", argv=["--help"])
    assert re.findall(r"--from\w*", capsys.readouterr().out) == ["--from"]


def test_a_setting_of_another_command_is_refused_with_that_command():
    with pytest.raises(UserError) as refused:
        parse(Root, description="", argv=["--optim=x"], moved={"optim": "python optimize.py --optim ..."})
    assert str(refused.value) == "--optim belongs to another command\n  try: python optimize.py --optim ..."
    assert parse(Root, description="", argv=["--optim.lr=0.5"], moved={"optim": ""}).config.optim.lr == 0.5


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
    heavy = ("pydantic", "argparse", "yaml", "numpy", "ray")
    code = f"import sys, infra.config; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@dataclass
class Wanted:
    run: str
    """The run: its folder or URL."""


def test_what_a_required_setting_is_for_is_told():
    with pytest.raises(UserError) as refused:
        parse(Wanted, description="", argv=[])
    assert str(refused.value) == "run is required\n  why: expected text. The run: its folder or URL."
