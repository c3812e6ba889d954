"""Beginning with another model's weights: the same function of old texts, tables grown, and what cannot be."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from glm_model import GLM, save_pretrained
from glm_model.config import GLMConfig
from glm_model.tokenizer import Tokenizer
from infra.config import Count, parse
from infra.errors import DataError, UserError
from workflows.runs.run import Run, check_init_from, has_begun
from workflows.settings.budget import check_recipe
from workflows.settings.given_store import settle
from workflows.settings.places import resolve_paths
from workflows.settings.recipe import ModelConfig, Recipe, TrainConfig
from workflows.settings.shape import describe_growth, model_config
from workflows.training.initial_weights import initial_model


@pytest.fixture(scope="module")
def before(tmp_path_factory, tiny_tokenizer) -> tuple[str, GLM]:
    """A model that has fewer positions and tokens than the tiny store needs."""
    torch.manual_seed(3)
    shape = GLMConfig(layers=2, width=32, heads=2, vocab_size=128, positions=16, dropout=0.1)
    model, url = GLM(shape), str(tmp_path_factory.mktemp("before"))
    save_pretrained(model, url, tokenizer=tiny_tokenizer)
    return url, model.eval()


def recipe(url: str, **model) -> Recipe:
    made = Recipe(
        model=ModelConfig(init_from=url, dropout=0.2, **model), train=TrainConfig(steps=3, batch_tokens=Count(500))
    )
    made.tracking.enabled = False
    return made


def inputs(length: int) -> list[torch.Tensor]:
    place = torch.arange(length)[None]
    return [torch.arange(length)[None] + 4, place, torch.zeros_like(place)]


def test_the_model_computes_what_it_did_and_has_room_for_more(before, tiny_store, tiny_tokenizer):
    url, old = before
    shape = model_config(recipe(url, size="mini"), tiny_store, tiny_tokenizer)
    assert (shape.layers, shape.width, shape.positions, shape.dropout) == (2, 32, 32, 0.2)
    assert shape.vocab_size == old.config.vocab_size
    model = initial_model(shape, seed=1, init_from=url)
    assert model.training
    assert model.config == shape
    torch.testing.assert_close(model.eval()(*inputs(12)), old(*inputs(12)), rtol=0, atol=0)
    assert model(*inputs(32)).shape == (1, 32, 128)
    again = initial_model(shape, seed=1, init_from=url)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert describe_growth(url, shape) == f"{url}, positions 16 -> 32"


def test_a_run_is_a_model_and_brings_its_tokenizer(before, tiny_tokenizer, tmp_path):
    url, old = before
    for name in ("runs/a/model", "runs/b/model"):
        shutil.copytree(url, tmp_path / name)
    os.utime(tmp_path / "runs/a", (1e9, 1e9))
    source = "--data.sources=[{reader: text, url: /x}]"
    for given, meant in (("runs/a", "a"), ("runs/*", "b"), ("runs/a/model", "a")):
        read = parse_settled("--train.steps=3", f"--model.init_from={tmp_path}/{given}", source)
        assert read.model.init_from == read.data.tokenizer.url == f"{tmp_path}/runs/{meant}/model"
        check_recipe(read)
    run = f"{tmp_path}/runs/a"
    assert torch.equal(GLM.from_pretrained(run).token_embedding.weight, old.token_embedding.weight)
    assert Tokenizer.load(run).digest == tiny_tokenizer.digest
    other = f"--data.tokenizer.url={other_tokenizer(tmp_path).save(str(tmp_path / 'other'))}"
    with pytest.raises(UserError, match=r"the tokenizer of the data is not that of model\.init_from"):
        check_recipe(parse_settled("--train.steps=3", f"--model.init_from={run}", source, other))
    same = f"--data.tokenizer.url={tiny_tokenizer.save(str(tmp_path / 'same'))}"
    check_recipe(parse_settled("--train.steps=3", f"--model.init_from={run}", source, same))


def parse_settled(*argv: str) -> Recipe:
    return parse(
        Recipe,
        description="",
        argv=list(argv),
        settle=lambda recipe, places: settle(resolve_paths(recipe, in_job=False), places),
    ).config


def other_tokenizer(folder: Path) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "other"]))
    return Tokenizer.load(str(folder / "vocab.txt"))


def test_sentinels_grow_the_vocabulary(before, tiny_store, tiny_tokenizer):
    url, old = before
    made = recipe(url)
    made.blanks.mask_tokens = "sentinel"
    shape = model_config(made, tiny_store, tiny_tokenizer)
    assert shape.vocab_size > old.config.vocab_size
    weight = initial_model(shape, seed=1, init_from=url).token_embedding.weight
    assert torch.equal(weight[:128], old.token_embedding.weight)


def test_a_run_that_has_begun_keeps_its_shape_and_refuses_another_model_in_the_place(
    before, tiny_store, tiny_tokenizer, tmp_path
):
    place = str(tmp_path / "model")
    shutil.copytree(before[0], place)
    made = recipe(place)
    made.run.storage_path = str(tmp_path)
    run = check_init_from(Run.of(made, "r"), made.model.init_from).with_record(
        model=model_config(made, tiny_store, tiny_tokenizer)
    )
    assert run.record.init_digest is not None
    assert check_init_from(run, made.model.init_from) == run
    torch.manual_seed(4)
    save_pretrained(GLM(before[1].config), place, tokenizer=tiny_tokenizer)
    with pytest.raises(DataError, match="is not the model that the run 'r' began with"):
        check_init_from(run, made.model.init_from)
    shutil.rmtree(place)
    assert check_init_from(run, made.model.init_from) == run, "it is not needed any longer"
    run.write()
    assert has_begun(made, "r")
    check_recipe(made, begun=True)
    made.run.fresh = True
    assert not has_begun(made, "r")
    assert not has_begun(recipe(place), "none")
    with pytest.raises(DataError, match="not a model folder"):
        check_recipe(made)
    with pytest.raises(DataError, match="not a model folder"):
        check_init_from(Run.of(made, "s"), made.model.init_from)


def test_weights_that_are_missing_or_damaged_are_told_as_data(before, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(before[0], place)
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="is damaged"):
        initial_model(before[1].config, seed=1, init_from=str(place))
    weights.unlink()
    with pytest.raises(DataError, match="not a model folder"):
        check_recipe(recipe(str(place)))


def test_what_cannot_be(before, tiny_store, tiny_tokenizer, tmp_path):
    url, _ = before
    with pytest.raises(DataError, match="not a model folder with a tokenizer"):
        check_recipe(recipe(str(tmp_path)))
    with pytest.raises(UserError, match="has a second position"):
        model_config(recipe(url, block_positions=False), tiny_store, tiny_tokenizer)
    with pytest.raises(UserError, match="segments of 32 tokens are beyond"):
        model_config(recipe(url, positions=20), tiny_store, tiny_tokenizer)
    spec = tiny_tokenizer.to_json().replace('"dog"', '"cow"')
    save_pretrained(GLM(GLMConfig(layers=1, width=32, heads=2, vocab_size=128, positions=64)), str(tmp_path))
    Tokenizer(spec).save(str(tmp_path))
    with pytest.raises(UserError, match=r"is not that of model\.init_from"):
        model_config(recipe(str(tmp_path)), tiny_store, tiny_tokenizer)
    Tokenizer(tiny_tokenizer.to_json()).save(str(tmp_path))
    with pytest.raises(UserError, match="less than the 64"):
        model_config(recipe(str(tmp_path), positions=40), tiny_store, tiny_tokenizer)
