"""More positions, more tokens: what was there stays, what is new is as told."""

import pytest
import torch

from glm_model import from_pretrained, save_pretrained
from glm_model.model import GLM
from glm_model.resize import copy_row, extend_positions, grow_vocabulary


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    return GLM(small).eval()


def logits(model: GLM, length: int = 20) -> torch.Tensor:
    tokens = torch.arange(length)[None] % 50 + 3
    with torch.no_grad():
        return model(tokens, torch.arange(length)[None], torch.zeros(1, length, dtype=torch.int64))


def test_old_positions_give_the_same_logits_and_new_ones_work(model):
    before, old = logits(model), model.position_embedding.weight.detach().clone()
    told = extend_positions(model, 1000, seed=1)
    assert told.startswith("both position tables extended from 48 to 1,000: 952 new rows drawn from N(0, 0.02)")
    assert torch.equal(logits(model), before)
    assert logits(model, 1001).isfinite().all()
    assert model.config.positions == model.layers[0].config.positions == 1000
    for table in (model.position_embedding, model.block_position_embedding):
        new = table.weight[49:]
        assert new.shape == (952, 32)
        assert new.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(model.position_embedding.weight[:49], old)
    assert not torch.equal(model.position_embedding.weight[49:], model.block_position_embedding.weight[49:])


def test_new_positions_follow_from_the_seed(small):
    tables = []
    for seed in (1, 1, 2):
        model = GLM(small)
        extend_positions(model, 60, seed=seed)
        tables.append(model.position_embedding.weight[49:])
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_new_tokens_take_at_most_their_share_of_the_probability(model):
    with torch.no_grad():
        model.token_embedding.weight[10:] *= 30  # a model that is sure of itself
    before = logits(model)
    told = grow_vocabulary(model, 128)
    assert told.startswith("the embedding grew from 64 to 128 rows: 64 new ones, each the mean of the old")
    after = logits(model)
    assert torch.equal(after[..., :64], before)
    probabilities = after.double().softmax(-1)
    assert probabilities[..., 64:].max() <= 1 / 65
    assert probabilities[..., 64:].sum(-1).max() <= 64 / 128
    assert model.config.vocab_size == 128
    assert torch.allclose(model.token_embedding.weight[64:], model.token_embedding.weight[:64].mean(0), atol=1e-6)


def test_a_grown_model_trains_and_is_saved(model, tmp_path):
    extend_positions(model, 60)
    grow_vocabulary(model, 70)
    tokens = torch.full((1, 4), 69)
    model(tokens, torch.full((1, 4), 60), torch.zeros(1, 4, dtype=torch.int64)).logsumexp(-1).sum().backward()
    assert model.token_embedding.weight.grad[69].abs().sum() > 0
    assert model.position_embedding.weight.grad[60].abs().sum() > 0
    save_pretrained(model, str(tmp_path))
    assert from_pretrained(str(tmp_path)).config == model.config


def test_as_many_change_nothing_and_fewer_are_refused(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert extend_positions(model, 48) == "the position tables already reach to 48"
    assert grow_vocabulary(model, 64) == "the embedding already has 64 rows"
    with pytest.raises(ValueError, match="positions=47 is less than the model's 48"):
        extend_positions(model, 47)
    with pytest.raises(ValueError, match="vocab_size=63 is less than the model's 64"):
        grow_vocabulary(model, 63)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sizes_that_are_no_whole_numbers_are_refused_before_anything_is_done(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for size in (60.0, "60", None):
        with pytest.raises(ValueError, match=rf"^positions: expected a whole number, got {size!r}"):
            extend_positions(model, size)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"^vocab_size: expected a whole number, got {size!r}"):
            grow_vocabulary(model, size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^vocab_size: expected a whole number, got 80\.0"):
        grow_vocabulary(model, 80.0)  # type: ignore[arg-type]
    assert (model.config.positions, model.config.vocab_size) == (48, 64)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_position_table_is_extended_alone(small):
    model = GLM(type(small)(**{**small.to_dict(), "block_positions": False}))
    assert extend_positions(model, 50).startswith("the position table extended from 48 to 50: 2 new rows")
    assert model.block_position_embedding is None


def test_a_row_is_copied_once(model):
    before = model.token_embedding.weight.detach().clone()
    assert copy_row(model, 7, 9) == "row 9 of the embedding is now a copy of row 7"
    assert copy_row(model, 7, 9) == "row 9 of the embedding is already a copy of row 7"
    before[9] = before[7]
    assert torch.equal(model.token_embedding.weight, before)


@pytest.mark.parametrize("rows", [(-1, 2), (2, -1), (2, 64), (64, 2)])
def test_a_row_that_is_not_there_is_not_copied(small, rows):
    with pytest.raises(ValueError, match=f"no row {next(row for row in rows if not 0 <= row < 64)}"):
        copy_row(GLM(small), *rows)
