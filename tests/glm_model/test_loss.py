"""Loss: sums and counts per objective, chunks, options, empty batches; gradients equal those of the plain formula."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from glm_model import loss
from glm_model.config import GLMConfig
from glm_model.loss import LossOptions, _CrossEntropy, blank_loss, find_blanks
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


def loss_of(model, x_BLD, targets, loss_mask, objective_ids=None, num_objectives=1, **settings):
    """`blank_loss` of the blanks among hidden states of all positions."""
    blanks = find_blanks(
        targets,
        loss_mask,
        objective_ids,
        vocab_size=model.config.vocab_size,
        num_objectives=num_objectives,
    )
    return blank_loss(model, x_BLD.flatten(0, 1).index_select(0, blanks.at_M), blanks, **settings)


def reference(model, x_BLD, targets, loss_mask, objective_ids):
    """The same by one-hot sums over all positions, in float64."""
    logits = x_BLD.double() @ model.token_embedding.weight.double().T
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    where = [(loss_mask == 1) & (objective_ids == o) for o in range(4)]
    return torch.stack([nll[w].sum() for w in where]), torch.stack([w.sum() for w in where])


class Split(NamedTuple):
    """How many blanks a chunk and a group of chunks may have, by what a CPU takes together (None: as it is), and by
    max_logits. For a vocabulary of 40.
    """

    chunk: int | None
    group: int | None
    blanks: int = 1_000_000

    @property
    def keeps(self) -> bool:
        """Whether forward keeps something for all blanks."""
        return self.blanks == 1_000_000

    def blank_loss(self, monkeypatch, *given, element_size: int, **settings):
        if self.chunk and self.group:
            monkeypatch.setattr(loss, "_CPU_CHUNK", 40 * self.chunk)
            monkeypatch.setattr(loss, "_CPU_TOGETHER", 40 * self.group * element_size)
        return loss_of(*given, max_logits=40 * self.blanks, **settings)


class Seen(TorchDispatchMode):
    """The operations within the block, with the shapes of what they give."""

    def __init__(self):
        super().__init__()
        self.operations: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, torch.Tensor):
                self.operations.append((func.overloadpacket.__name__, tuple(part.shape)))
        return result

    def groups(self) -> list[list[int]]:
        """The blanks of each group's chunks, in a backward over a vocabulary of 40 and a width of 16. Where forward has
        made all gradients of logits, those of the group.
        """
        found: list[list[int]] = [[]]
        for name, shape in self.operations:
            if name in ("scatter_add_", "scatter_"):  # the gradient of a chunk's logits
                found[-1].append(shape[0])
            elif name in ("addmm_", "mm") and shape == (40, 16):  # a group's share in that of the embedding
                found.append([])
            elif name == "mm" and shape[1] == 16 and not found[-1]:  # in that of the states
                found[-1].append(shape[0])
        return found[:-1]


SPLITS = {  # 16 blanks
    "one chunk": (Split(None, None), [[16]]),
    "one group": (Split(2, 16), [[2] * 8]),
    "groups of kept logits": (Split(2, 6), [[2, 2, 2], [2, 2, 2], [2, 2]]),
    "groups of logits computed again": (Split(3, 6, 15), [[3, 3], [3, 3], [3, 1]]),
    "groups that max_logits cuts": (Split(2, 16, 7), [[2, 2, 2], [2, 2, 2], [2, 2]]),
    "groups of a chunk": (Split(None, None, 5), [[5], [5], [5], [1]]),
    "groups of a blank": (Split(None, None, 0), [[1]] * 16),
}


@pytest.mark.parametrize(("split", "groups"), SPLITS.values(), ids=SPLITS)
def test_sums_counts_and_gradients_equal_the_plain_formula_in_any_groups_of_chunks(model, split, groups, monkeypatch):
    x, *rest = batch()
    x.requires_grad_()
    weights = torch.tensor([0.5, 2.0, -1.0, 3.0])
    expected_sums, expected_counts = reference(model, x, *rest)
    wanted = torch.autograd.grad((expected_sums * weights).sum(), [x, model.token_embedding.weight])
    sums, counts = split.blank_loss(monkeypatch, model, x, *rest, num_objectives=4, element_size=4)
    assert sums.dtype == torch.float32
    assert counts.tolist() == expected_counts.tolist()
    assert counts[3] == 0
    torch.testing.assert_close(sums, expected_sums.float(), rtol=1e-5, atol=1e-5)
    with Seen() as seen:
        given = torch.autograd.grad((sums * weights).sum(), [x, model.token_embedding.weight])
    assert seen.groups() == ([[sum(group)] for group in groups] if split.keeps else groups)
    for mine, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=1e-5)


OPTIONS = [LossOptions(), LossOptions(0.1), LossOptions(z_loss=0.01), LossOptions(0.2, 0.05)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("max_logits", [1 << 26, 40 * 4])
def test_smoothing_and_z_loss_equal_the_plain_formulas_in_float64(options, max_logits):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(9, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(40, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    targets, way = torch.randint(0, 40, (9,), generator=generator), torch.randn(9, generator=generator).double()
    logits = x @ weight.T
    expected = F.cross_entropy(logits, targets, reduction="none", label_smoothing=options.label_smoothing)
    expected = expected + options.z_loss * torch.logsumexp(logits, -1) ** 2
    given = _CrossEntropy.apply(x, weight, targets, options, max_logits, False, True)
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad((expected * way).sum(), [x, weight])
    for mine, theirs in zip(torch.autograd.grad((given * way).sum(), [x, weight]), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "value"), [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("z_loss", -1.0)])
def test_impossible_options_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"train\.{name}={value} must"):
        LossOptions(**{name: value})


def test_law_sums_of_parts_are_the_sum_of_the_whole(model):
    x, *rest = batch(rows=4)
    whole = loss_of(model, x, *rest, num_objectives=3)
    parts = [loss_of(model, *(t[r : r + 1] for t in (x, *rest)), num_objectives=3) for r in range(4)]
    torch.testing.assert_close(sum(p[0] for p in parts), whole[0], rtol=1e-6, atol=1e-5)
    assert torch.equal(sum(p[1] for p in parts), whole[1])


def test_without_objectives_there_is_one_total(model):
    x, targets, loss_mask, objective_ids = batch()
    sums, counts = loss_of(model, x, targets, loss_mask)
    total, count = loss_of(model, x, targets, loss_mask, objective_ids, 3)
    assert sums.shape == counts.shape == (1,)
    torch.testing.assert_close(sums[0], total.sum())
    assert counts[0] == count.sum() == loss_mask.sum()


def test_no_blanks_give_zero_loss_and_zero_gradients_for_every_parameter(model):
    zeros = torch.zeros(2, 8, dtype=torch.int64)
    x_BLD = model.hidden(zeros, zeros, zeros, zeros - 1, zeros)
    sums, counts = loss_of(model, x_BLD, zeros, zeros)
    sums.sum().backward()
    assert (sums.tolist(), counts.tolist()) == ([0.0], [0])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


SPLITS_IN_BF16 = {  # 4096 blanks
    "one group": (Split(8, 4096), [[8] * 512]),
    "groups": (Split(8, 512, 512), [[8] * 64] * 8),
    "groups of a chunk": (Split(None, None, 8), [[8]] * 512),
}


@pytest.mark.parametrize(("split", "groups"), SPLITS_IN_BF16.values(), ids=SPLITS_IN_BF16)
@pytest.mark.parametrize("options", [LossOptions(), LossOptions(0.1, 1e-3)], ids=["plain", "options"])
def test_under_bf16_losses_and_gradients_are_summed_in_fp32(model, options, split, groups, monkeypatch):
    """512 chunks of 8 blanks: sums in bf16 would stop growing at 256 times an addend, and here stay within 1 %."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 4096, 16, generator=generator, requires_grad=True)
    targets, ones = torch.randint(0, 8, (1, 4096), generator=generator), torch.ones(1, 4096, dtype=torch.int64)
    weight = model.token_embedding.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, _ = split.blank_loss(monkeypatch, model, x, targets, ones, options=options, element_size=2)
    with Seen() as seen:
        sums.sum().backward()
    makes_all = split.keeps and options == LossOptions()
    assert seen.groups() == ([[sum(group)] for group in groups] if makes_all else groups)
    assert sums.dtype == x.grad.dtype == weight.grad.dtype == torch.float32
    rounded = [t.detach().bfloat16().double().requires_grad_() for t in (x, weight)]
    logits = rounded[0][0] @ rounded[1].T
    expected = F.cross_entropy(logits, targets[0], reduction="sum", label_smoothing=options.label_smoothing)
    expected = expected + options.z_loss * (torch.logsumexp(logits, -1) ** 2).sum()
    expected.backward()
    assert sums.item() == pytest.approx(expected.item(), rel=1e-3)
    for mine, theirs in zip((x.grad, weight.grad), (r.grad for r in rounded), strict=True):
        assert (mine - theirs).norm() / theirs.norm() < 0.01


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", [LossOptions(), LossOptions(0.1, 1e-3)], ids=["plain", "options"])
@pytest.mark.parametrize("blanks", [10, 3000])
def test_no_tensor_of_logits_or_their_gradients_is_larger_than_max_logits(precision, options, blanks):
    """This holds for all that forward and backward compute. Embedding and gradient, 999 times 4, are smaller anyway."""
    model = GLM(GLMConfig(layers=1, width=4, heads=1, vocab_size=999))
    x = torch.randn(1, blanks, 4, requires_grad=True)
    targets, ones = torch.randint(0, 999, (1, blanks)), torch.ones(1, blanks, dtype=torch.int64)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        with Seen() as forward:
            sums, _ = loss_of(model, x, targets, ones, options=options, max_logits=9990)
        with Seen() as backward:
            sums.sum().backward()
    for seen in (forward, backward):
        assert max(math.prod(shape) for _, shape in seen.operations if 999 in shape) == 9990


def test_targets_and_objectives_out_of_range_are_named(model):
    x, targets, loss_mask, objective_ids = batch()
    with pytest.raises(ValueError, match=r"targets holds 40: expected 0 to 39. Use the tokenizer"):
        loss_of(model, x, targets * 0 + 40, loss_mask)
    with pytest.raises(ValueError, match=r"objective_ids holds 2: expected 0 to 1. Set num_objectives"):
        loss_of(model, x, targets, loss_mask, objective_ids, 2)


def test_states_of_other_positions_than_the_blanks_are_refused(model):
    x, targets, loss_mask, _ = batch()
    blanks = find_blanks(targets, loss_mask, vocab_size=40)
    for wrong in (x, x.flatten(0, 1)[: len(blanks.at_M) - 1]):
        with pytest.raises(ValueError, match=rf"x_MD has shape .*: expected \[{len(blanks.at_M)} or more, width\]"):
            blank_loss(model, wrong, blanks)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_a_target_without_any_probability_has_its_loss_and_gradient(precision):
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    weight = torch.tensor([[0.0, 0.0], [128.0, 2.0], [-128.0, 0.0]], requires_grad=True)
    targets, options = torch.tensor([2, 0]), LossOptions()
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        loss_M = _CrossEntropy.apply(x, weight, targets, options, 1 << 20, False, True)
    loss_M.sum().backward()
    expected_M = F.cross_entropy((x.double() @ weight.double().T), targets, reduction="none")
    torch.testing.assert_close(loss_M, expected_M.float())
    dx, dweight = torch.autograd.grad(expected_M.sum(), [x, weight])
    torch.testing.assert_close(x.grad, dx, rtol=0.01, atol=0.01)
    torch.testing.assert_close(weight.grad, dweight, rtol=0.01, atol=0.01)


def test_validation_keeps_no_logits(small, packed, monkeypatch):
    """Outside of gradients there is no backward that would need them."""
    kept = []
    monkeypatch.setattr(
        torch.autograd.function.FunctionCtx, "save_for_backward", lambda ctx, *all: kept.append(len(all))
    )
    model, batch = GLM(small), packed([[8]], width=20)
    x = torch.randn(1, 20, small.width)
    with torch.no_grad():
        loss_of(model, x, batch["targets"], batch["loss_mask"])
    loss_of(model, x, batch["targets"], batch["loss_mask"])
    assert kept == [4, 5]
