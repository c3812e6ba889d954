"""Recipes (law 15): every one parses, says only what exists, and survives the way through YAML to a run's config."""

import functools
import itertools
import re
from pathlib import Path

import pytest

from infra.config import flatten, from_yaml, parse, to_yaml
from infra.errors import UserError
from pipelines.blanks.mixture import resolve
from pipelines.config import check
from pipelines.names import StoreSettings, content_settings
from pipelines.selection import select
from workflows.settings.identity import identity, identity_settings, recorded, run_name
from workflows.settings.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[3] / "workflows" / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PAPER = {
    "glm_base": ("base", {"token": 1.0}),
    "glm_large": ("large", {"token": 1.0}),
    "glm_doc": ("large", {"token": 0.5, "document": 0.5}),
    "glm_sent": ("large", {"token": 0.5, "sentence": 0.5}),
    "glm_410m": ("410m", {"token": 0.5, "document": 0.5}),
    "glm_515m": ("515m", {"token": 0.5, "document": 0.5}),
    "glm_roberta": ("large", {"token": 1.0}),
}
ABLATIONS = {
    "no_shuffle": {"blanks.order": "left_to_right"},
    "sentinel": {"blanks.mask_tokens": "sentinel"},
    "bert": {"blanks.mixture.masked_lm": "1.0"},
    "no_2d": {"model.block_positions": "false"},
    "gpt": {"blanks.mixture": "gpt"},
}


@functools.cache
def read(*names: str, overrides: tuple[str, ...] = ()) -> Recipe:
    argv = [word for name in names for word in ("--config", str(FOLDER / f"{name}.yaml"))]
    return parse(Recipe, description="", argv=[*argv, *overrides]).config


def test_the_recipes_that_the_documents_name_exist():
    assert set(RECIPES) == {"quickstart", "wiki_mini", "wiki_books", *PAPER, *ABLATIONS}


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_has_its_model_and_mixture_and_says_where_each_line_is_from(name):
    recipe = read(name)
    mixture = resolve(recipe.blanks)
    assert (recipe.model.size, dict(zip(mixture.names, mixture.shares, strict=True))) == PAPER[name]
    assert recipe.blanks.mask_tokens == "one"
    assert without_source((FOLDER / f"{name}.yaml").read_text()) == []


def without_source(text: str) -> list[str]:
    """Settings that say how sure they are neither in their own line nor in a comment of its own right above."""
    sure = re.compile(r"# (verified|script|memory|assumed)\b")
    lines = text.splitlines()
    return [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r" +\w+: ", line)
        and not sure.search(line)
        and not (before.lstrip().startswith("#") and sure.search(before))
    ]


def test_the_tag_of_one_setting_does_not_count_for_the_next():
    text = """
train:
  seed: 1  # script
  clip: 1.0
  # the script has 3
  lr: 2
  # memory: as in the paper
  steps: 4
"""
    assert without_source(text) == ["  clip: 1.0", "  lr: 2"]


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("base", ["glm_large", "glm_doc"])
def test_an_ablation_changes_one_thing(base, name):
    plain, ablated = flatten(read(base)), flatten(read(base, name))
    assert {key: value for key, value in ablated.items() if plain.get(key) != value} == ABLATIONS[name]
    written = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if not line.startswith("#")]
    assert len(written) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_round_trips_through_yaml(name):
    recipe = read(name)
    again = from_yaml(Recipe, to_yaml(recipe))
    assert again == recipe
    assert identity(again) == identity(recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_length_of_a_run_in_tokens(name):
    """So that --train.tokens shortens any of them. Data alone and ablations, which go behind another, give none."""
    train = read(name).train
    assert train.steps is None
    assert (train.tokens is None) == (name == "wiki_books" or name in ABLATIONS)


@pytest.mark.parametrize("name", ["quickstart", "glm_base"])
@pytest.mark.parametrize(
    "key", ["tokenz", "train.stepz", "data.tokenizer.train.size", "data.clean.presets", "optim.learning_rate"]
)
def test_an_unknown_key_is_refused_at_every_depth(name, key):
    with pytest.raises(UserError, match=rf"unknown key '{key}' on the command line"):
        read(name, overrides=(f"--{key}=1",))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {stepz: 1}", "train.stepz"),
        ("data: {sources: [{reader: text, uri: /x}]}", "uri"),
        ("data: {tokenizer: {train: {vocabulary: 1}}}", "data.tokenizer.train.vocabulary"),
    ],
)
def test_an_unknown_key_of_a_recipe_is_refused_with_its_file(tmp_path, text, key):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        parse(Recipe, description="", argv=["--config", str(path)])
    assert key in str(caught.value)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.window", "0", "train.window must be at least 1, got 0 on the command line"),
        ("train.log_every", "-5", "train.log_every must be at least 1, got -5 on the command line"),
        ("train.seed", str(2**64), f"train.seed must fit into 64 bits, got {2**64}"),
        ("train.resources_per_worker", "{CPU: -1}", "train.resources_per_worker.CPU must be at least 0, got -1"),
        ("model.positions", "0", "model.positions must be at least 1, got 0 on the command line"),
        ("model.dropout", "1", "model.dropout must be below 1, got 1 on the command line"),
        ("cluster.local_cpus", "0", "cluster.local_cpus must be at least 1, got 0 on the command line"),
        ("cluster.wait_s", "-1", "cluster.wait_s must be at least 0, got -1 on the command line"),
        ("cluster.wait_s", ".nan", "cluster.wait_s must be at least 0, got nan on the command line"),
        ("console.interval_s", ".nan", "console.interval_s must be at least 0, got nan on the command line"),
        ("train.z_loss", ".inf", "train.z_loss must be below inf, got inf on the command line"),
        ("train.hours", "1:30", "train.hours on the command line: expected a number or null, got '1:30'"),
        ("optim.lr", ".nan", "optim.lr=nan must be above 0 and finite"),
        ("optim.eps", ".inf", "optim.eps=inf must be above 0 and finite"),
        ("optim.weight_decay", ".nan", "optim.weight_decay=nan must be finite and not negative"),
        ("optim.clip", ".nan", "optim.clip=nan must be finite and not negative"),
        ("data.unit_bytes", "0", "data.unit_bytes must be at least 1, got '0' on the command line"),
        ("data.shard_bytes", "0", "data.shard_bytes must be at least 1, got '0' on the command line"),
        ("data.rows_per_group", "0", "data.rows_per_group must be at least 1, got 0 on the command line"),
        ("data.plan_epochs", "-1", "data.plan_epochs must be at least 0, got -1 on the command line"),
        ("data.max_malformed", "1.1", "data.max_malformed must be at most 1, got 1.1 on the command line"),
        ("data.validation_fraction", "1", "data.validation_fraction must be below 1, got 1 on the command line"),
        ("data.test_fraction", "-0.1", "data.test_fraction must be at least 0, got -0.1 on the command line"),
        (
            "data.tokenizer.train.sample_bytes",
            "0",
            "data.tokenizer.train.sample_bytes must be at least 1, got '0' on the command line",
        ),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_key(key, value, told):
    with pytest.raises(UserError) as caught:
        read("quickstart", overrides=(f"--{key}={value}",))
    assert caught.value.message == told


def test_a_mixture_without_a_sum_is_refused_before_anything_is_read():
    recipe = read("quickstart", overrides=("--blanks.mixture={token: .nan, document: 0.5}",))
    with pytest.raises(UserError, match="sums to nan, not to 1"):
        check(recipe.data, recipe.blanks)


def test_sources_given_on_the_command_line_replace_the_recipes():
    recipe = read(
        "wiki_mini", overrides=("--data.sources=[{reader: wikiextractor, url: /w}, {reader: text, url: /n, name: n}]",)
    )
    assert [(s.reader, s.url, s.name) for s in recipe.data.sources] == [
        ("wikiextractor", "/w", None),
        ("text", "/n", "n"),
    ]


def test_wiki_mini_is_what_its_heading_says():
    recipe = read("wiki_mini")
    assert recipe.data.sources == []
    assert recipe.data.tokenizer.url is None
    assert (recipe.data.tokenizer.train.algorithm, recipe.data.tokenizer.train.vocab_size) == ("wordpiece", 16_384)
    assert (recipe.data.sequence_length, recipe.data.row_width) == (512, 8192)
    assert (recipe.model.size, recipe.train.num_workers, recipe.train.tokens) == ("mini", 2, 10_000_000)


def settings_of(recipe: Recipe) -> StoreSettings:
    selection = select.resolve(recipe.data.select, preset=recipe.data.clean.preset)
    return content_settings(recipe.data, recipe.blanks, selection)


def test_glm_base_trains_on_the_store_that_wiki_books_prepares():
    prepared, trained = read("wiki_books"), read("wiki_books", "glm_base")
    assert settings_of(trained) == settings_of(prepared)
    assert trained.data == prepared.data


def test_adamw_has_the_identity_that_it_had_before_there_was_a_choice():
    adamw = read("glm_base")
    later = {"optim.name", "optim.matrix_lr", "optim.momentum"}
    assert not later & identity_settings(adamw).keys()
    assert recorded(adamw)["optim"]["name"] == "adamw"
    muon = identity_settings(read("glm_base", overrides=("--optim.name=muon", "--optim.matrix_lr=0.03")))
    assert {key: muon[key] for key in later & muon.keys()} == {"optim.name": "muon", "optim.matrix_lr": "0.03"}


def test_a_run_is_named_after_its_recipe_and_settings():
    recipe = read("quickstart")
    assert run_name(recipe, "quickstart") == f"quickstart-{identity(recipe)[:8]}"
    assert run_name(read("quickstart", overrides=("--train.num_workers=1",)), "quickstart") == run_name(
        recipe, "quickstart"
    )
    assert run_name(read("quickstart", overrides=("--optim.lr=1e-3",)), "quickstart") != run_name(recipe, "quickstart")
