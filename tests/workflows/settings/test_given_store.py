"""On a finished store its manifest says what it was made with: given settings that contradict it are refused."""

from dataclasses import asdict
from pathlib import Path

import pytest

from glm_model.tokenizer import Tokenizer
from infra.config import parse
from infra.errors import UserError
from pipelines.config import made_with
from pipelines.corpus.ledger import DocumentCounts
from pipelines.names import content_settings
from pipelines.selection import select
from pipelines.store.format import publish
from pipelines.store.manifest import Manifest
from workflows.settings.given_store import settle
from workflows.settings.identity import identity, identity_settings, recorded
from workflows.settings.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[3] / "workflows" / "recipes"
SOURCES = "--data.sources=[{reader: jsonl, url: /a/news}, {reader: text, url: /a/b, name: books}]"
LENGTHS = ("--data.sequence_length=64", "--data.row_width=256")


def read(*argv: str) -> Recipe:
    return parse(Recipe, description="", argv=list(argv), settle=settle).config


def store(
    folder: Path, tokenizer: Tokenizer, *argv: str, says_all: bool = True, lengths: tuple[str, ...] = LENGTHS
) -> str:
    """The manifest, without rows, of a store that a recipe makes. says_all: not as in earlier versions."""
    data = read(*([SOURCES, *lengths] if lengths else []), *argv)
    chosen = select.resolve(data.data.select, preset=data.data.clean.preset)
    manifest = Manifest(
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        dtype="<u2",
        settings=asdict(content_settings(data.data, data.blanks, chosen)),
        documents=DocumentCounts(0, 0, 0),
        data=made_with(data.data) if says_all else {},
    )
    publish(str(folder), manifest, {"train": [], "validation": [], "test": []})
    tokenizer.save(str(folder))
    return str(folder)


def refusal(*argv: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read(*argv)
    assert caught.value.exit_code == 2
    return caught.value


CONTRADICTIONS = {
    "data.sequence_length=512": "64",
    "data.row_width=8192": "256",
    "data.rows_per_group=8": "64",
    "data.validation_fraction=0.1": "0.005",
    "data.seed=7": "1234",
    "data.select.exclude=[a.txt]": "[]",
}
OF_MAKING = {
    "data.clean.preset=strict": "light",
    "data.clean.min_characters=3": "20",
    "data.clean.languages=[en]": "[]",
    "data.select.duplicates=near": "exact",
    "data.tokenizer.train.vocab_size=600": "8192",
    "data.sources=[{reader: text, url: /x}]": '[{"reader": "jsonl", "name": "news", "options": {}}, '
    '{"reader": "text", "name": "books", "options": {}}]',
}


@pytest.mark.parametrize("given", [*CONTRADICTIONS, *OF_MAKING])
def test_a_setting_that_contradicts_the_store_is_refused(tmp_path, tiny_tokenizer, given):
    url = store(tmp_path / "s", tiny_tokenizer)
    made = (CONTRADICTIONS | OF_MAKING)[given]
    error = refusal(f"--data.store={url}", f"--{given}")
    key = given.partition("=")[0]
    assert error.message.startswith(f"{key}=")
    assert error.message.endswith(f" on the command line is not what the store was made with: {made}")
    assert f"data.store={url} is finished" in str(error.why)


def test_a_recipe_file_counts_as_given_and_is_named(tmp_path, tiny_tokenizer):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {sequence_length: 128, row_width: 512}")
    error = refusal(f"--config={path}", f"--data.store={store(tmp_path / 's', tiny_tokenizer)}")
    assert error.message == f"data.sequence_length=128 in {path} is not what the store was made with: 64"
    assert f"data.row_width=512 in {path}: the store has 256" in str(error.why)


@pytest.mark.parametrize("given", CONTRADICTIONS)
def test_stores_of_earlier_versions_say_less_and_what_they_say_holds(tmp_path, tiny_tokenizer, given):
    url = store(tmp_path / "s", tiny_tokenizer, says_all=False)
    assert "is not what the store was made with" in refusal(f"--data.store={url}", f"--{given}").message


@pytest.mark.parametrize("given", [*CONTRADICTIONS, *OF_MAKING])
@pytest.mark.parametrize("kind", ["data.store", "data.mix"])
def test_equal_values_are_fine_and_defaults_say_nothing(tmp_path, tiny_tokenizer, given, kind):
    url = store(tmp_path / "s", tiny_tokenizer, f"--{given}")
    place = f"--data.store={url}" if kind == "data.store" else f"--data.mix=[{{store: {url}, weight: 2}}]"
    read(place)
    read(place, f"--{given}")


def test_each_store_of_a_mix_is_asked(tmp_path, tiny_tokenizer):
    one = store(tmp_path / "one", tiny_tokenizer)
    two = store(tmp_path / "two", tiny_tokenizer, "--data.seed=7")
    mix = f"--data.mix=[{{store: {one}, weight: 3}}, {{store: {two}}}]"
    error = refusal(mix, "--data.seed=1234")
    assert f"data.mix[1].store={two} is finished" in str(error.why)
    recipe = read(mix, "--data.validation_fraction=0.005")
    assert (recipe.data.sequence_length, recipe.data.row_width) == (64, 256)
    settings = identity_settings(recipe)
    assert {key: value for key, value in settings.items() if key.startswith("data.mix")} == {
        "data.mix.0.store": one,
        "data.mix.0.weight": "0.75",
        "data.mix.1.store": two,
        "data.mix.1.weight": "0.25",
    }
    assert "data.seed" not in settings, "they differ"


def test_what_is_recorded_is_what_the_store_was_made_with(tmp_path, tiny_tokenizer):
    from_text = read(SOURCES, *LENGTHS, "--data.clean.preset=strict", "--data.seed=7")
    url = store(tmp_path / "s", tiny_tokenizer, "--data.clean.preset=strict", "--data.seed=7")
    on_store = read(f"--data.store={url}", "--data.unit_bytes=1M", "--data.plan_epochs=3")
    values = recorded(on_store)["data"]
    assert (values["sequence_length"], values["seed"], values["clean"]["preset"]) == (64, 7, "strict")
    assert values["select"]["duplicates"] == "near"
    assert not {"unit_bytes", "plan_epochs", "max_malformed", "root", "cache_bytes"} & set(values)
    assert identity(on_store) == identity(from_text), "a run may go on with the store that its text became"
    early = store(tmp_path / "e", tiny_tokenizer, "--data.clean.preset=strict", "--data.seed=7", says_all=False)
    values = recorded(read(f"--data.store={early}"))["data"]
    assert (values["sequence_length"], values["seed"]) == (64, 7)
    assert not {"sources", "clean", "select"} & set(values), "not known"


def test_what_has_no_effect_is_not_recorded():
    values = recorded(read(SOURCES, "--train.steps=5", "--train.tokens=1M", "--model.init_from=/runs/a/model"))
    assert "tokens" not in values["train"]
    assert "size" not in values["model"]
    assert not {"similarity", "contaminated"} & set(values["data"]["select"])
    assert "cache_bytes" not in values["data"]
    values = recorded(read(SOURCES, "--train.tokens=1M", "--data.clean.preset=strict", "--data.cache=/c"))
    assert (values["train"]["tokens"], values["model"]["size"]) == (1_000_000, "tiny")
    assert (values["data"]["select"]["similarity"], values["data"]["cache_bytes"]) == (0.8, 100_000_000_000)


def test_a_tokenizer_is_compared_by_what_it_is(tmp_path, tiny_tokenizer):
    place = tiny_tokenizer.save(str(tmp_path / "tokenizer"))
    url = store(tmp_path / "s", tiny_tokenizer, f"--data.tokenizer.url={place}")
    copy = tiny_tokenizer.save(str(tmp_path / "copy"))
    for given in (place, copy):
        recipe = read(f"--data.store={url}", f"--data.tokenizer.url={given}")
        assert "train" not in recorded(recipe)["data"]["tokenizer"]
    error = refusal(f"--data.store={url}", "--data.tokenizer.train.vocab_size=600")
    assert error.message.endswith("is not what the store was made with: a tokenizer that was loaded")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_a_recipe_runs_on_the_store_that_it_makes(tmp_path, tiny_tokenizer, name):
    path = f"--config={RECIPES / name}.yaml"
    argv = [path] if read(path).data.sources else [path, SOURCES]
    url = store(tmp_path / "s", tiny_tokenizer, *argv, lengths=())
    assert identity(read(path, f"--data.store={url}")) == identity(read(*argv))
