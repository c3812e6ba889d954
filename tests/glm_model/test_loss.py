"""Loss: sums and counts per objective, chunks, empty batches; gradients equal those of the plain formula."""

import pytest
import torch
import torch.nn.functional as F

from glm_model.config import GLMConfig
from glm_model.loss import blank_loss
from glm_model.model import GLM

CONFIG = GLMConfig(layers=1, width=16, heads=2, vocab_size=40, positions=16, dropout=0.0, attention_dropout=0.0)


@pytest.fixture
def model() -> GLM:
    torch.manual_seed(0)
    return GLM(CONFIG)


def batch(rows: int = 3, length: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x_BLD = torch.randn(rows, length, 16, generator=generator)
    targets = torch.randint(0, 40, (rows, length), generator=generator)
    loss_mask = torch.randint(0, 2, (rows, length), generator=generator)
    objective_ids = torch.randint(0, 3, (rows, length), generator=generator)
    return x_BLD, targets, loss_mask, objective_ids


def reference(model, x_BLD, targets, loss_mask, objective_ids):
    """The same by one-hot sums over all positions, in float64."""
    logits = x_BLD.double() @ model.token_embedding.weight.double().T
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    where = [(loss_mask == 1) & (objective_ids == o) for o in range(4)]
    return torch.stack([nll[w].sum() for w in where]), torch.stack([w.sum() for w in where])


@pytest.mark.parametrize("max_logits", [1 << 26, 40 * 5, 1])
def test_sums_counts_and_gradients_equal_the_plain_formula_in_any_number_of_chunks(model, max_logits):
    x, *rest = batch()
    x.requires_grad_()
    weights = torch.tensor([0.5, 2.0, -1.0, 3.0])
    expected_sums, expected_counts = reference(model, x, *rest)
    wanted = torch.autograd.grad((expected_sums * weights).sum(), [x, model.token_embedding.weight])
    sums, counts = blank_loss(model, x, *rest, num_objectives=4, max_logits=max_logits)
    assert sums.dtype == torch.float32
    assert counts.tolist() == expected_counts.tolist()
    assert counts[3] == 0
    torch.testing.assert_close(sums, expected_sums.float(), rtol=1e-5, atol=1e-5)
    given = torch.autograd.grad((sums * weights).sum(), [x, model.token_embedding.weight])
    for mine, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=1e-5)


def test_law_sums_of_parts_are_the_sum_of_the_whole(model):
    x, *rest = batch(rows=4)
    whole = blank_loss(model, x, *rest, num_objectives=3)
    parts = [blank_loss(model, *(t[r : r + 1] for t in (x, *rest)), num_objectives=3) for r in range(4)]
    torch.testing.assert_close(sum(p[0] for p in parts), whole[0], rtol=1e-6, atol=1e-5)
    assert torch.equal(sum(p[1] for p in parts), whole[1])


def test_without_objectives_there_is_one_total(model):
    x, targets, loss_mask, objective_ids = batch()
    sums, counts = blank_loss(model, x, targets, loss_mask)
    total, count = blank_loss(model, x, targets, loss_mask, objective_ids, 3)
    assert sums.shape == counts.shape == (1,)
    torch.testing.assert_close(sums[0], total.sum())
    assert counts[0] == count.sum() == loss_mask.sum()


def test_no_blanks_give_zero_loss_and_zero_gradients_for_every_parameter(model):
    zeros = torch.zeros(2, 8, dtype=torch.int64)
    x_BLD = model.hidden(zeros, zeros, zeros, zeros - 1, zeros)
    sums, counts = blank_loss(model, x_BLD, zeros, zeros)
    sums.sum().backward()
    assert (sums.tolist(), counts.tolist()) == ([0.0], [0])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


def test_bf16_autocast_accumulates_in_fp32(model):
    x, *rest = batch()
    exact, _ = blank_loss(model, x, *rest, num_objectives=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = blank_loss(model, x.requires_grad_(), *rest, num_objectives=3)
    rounded.sum().backward()
    assert rounded.dtype == torch.float32
    assert x.grad.dtype == torch.float32
    assert model.token_embedding.weight.grad.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0.05)


def test_targets_and_objectives_out_of_range_are_named(model):
    x, targets, loss_mask, objective_ids = batch()
    with pytest.raises(ValueError, match="targets holds 40; this model and mixture take 0 to 39"):
        blank_loss(model, x, targets * 0 + 40, loss_mask)
    with pytest.raises(ValueError, match="objective_ids holds 2"):
        blank_loss(model, x, targets, loss_mask, objective_ids, 2)
