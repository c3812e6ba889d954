"""Attention on a GPU: law 5 for the kernels there, dropout, bad input, and the whole step. Skipped without one."""

import pytest
import torch

from glm_model.attention import Use, attention, compare_with_dense, make_mask
from glm_model.config import GLMConfig
from glm_model.model import GLM
from glm_model.train import TrainStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


def on_gpu(batch):
    return {name: value.cuda() for name, value in batch.items()}


@pytest.mark.parametrize("head_width", [64, 128])
@pytest.mark.parametrize(
    ("backend", "dtype", "limit"),
    [
        ("varlen", torch.bfloat16, 3e-2),
        ("varlen", torch.float16, 1e-2),
        ("flex", torch.bfloat16, 3e-2),
        ("flex", torch.float32, 3e-3),
    ],
)
@pytest.mark.timeout(300)
def test_law_5_backends_agree_forward_and_backward(backend, dtype, limit, head_width):
    assert compare_with_dense(backend, "cuda", dtype, head_width) < limit


def test_a_gpu_takes_varlen_in_bf16_with_and_without_dropout():
    zeros = torch.zeros(1, 64, dtype=torch.int64, device="cuda")
    for p in (0.0, 0.1):
        assert make_mask(zeros, zeros + 40, (1, 64), "cuda", use=Use(torch.bfloat16, 64, p)).backend == "varlen"


def test_varlen_dropout_follows_the_seed_and_keeps_the_mean():
    zeros = torch.zeros(1, 256, dtype=torch.int64, device="cuda")
    mask = make_mask(zeros, zeros + 200, (1, 256), "cuda", use=Use(torch.bfloat16, 64, 0.3))
    q, k, v = torch.randn(3, 1, 256, 1, 64, device="cuda", dtype=torch.bfloat16)
    many = [x.expand(-1, -1, 2048, -1).contiguous() for x in (q, k, v)]

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return attention(*many, mask, dropout_p=0.3)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    exact = attention(q, k, v, mask)[:, :, 0].float()
    torch.testing.assert_close(run(1).float().mean(2), exact, rtol=0.05, atol=0.02)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [{}, {"compiled": True}, {"checkpoint_activations": True}, {"backend": "flex"}])
def test_a_step_on_the_gpu_gives_the_sums_and_gradients_of_the_cpu(packed, options):
    config = GLMConfig(layers=2, width=128, heads=2, vocab_size=64, positions=48, dropout=0.0, attention_dropout=0.0)
    torch.manual_seed(0)
    model = GLM(config)
    batch = packed([[12, 9, 14], [30]], width=64)
    expected, _ = TrainStep(model, num_objectives=2, precision="fp32")(batch)
    expected.sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.cuda()
    sums, counts = TrainStep(model, num_objectives=2, precision="bf16", **options)(on_gpu(batch))
    sums.sum().backward()
    assert counts.sum() == batch["loss_mask"].sum()
    torch.testing.assert_close(sums.cpu(), expected, rtol=1e-2, atol=0)
    for parameter, want in zip(model.parameters(), wanted, strict=True):
        error = (parameter.grad.cpu() - want).norm() / want.norm().clamp_min(1e-3)
        assert error < 0.05


def test_checkpointed_layers_draw_the_same_dropout_again(packed):
    config = GLMConfig(layers=2, width=128, heads=2, vocab_size=64, positions=48, dropout=0.2, attention_dropout=0.2)
    torch.manual_seed(0)
    model = GLM(config).cuda()
    batch = on_gpu(packed([[12, 9, 14], [30]], width=64))
    found = []
    for again in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        sums, _ = TrainStep(model, num_objectives=2, precision="bf16", checkpoint_activations=again)(batch)
        sums.sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for first, second in zip(*found, strict=True):
        # Flash attention adds up gradients of queries in no fixed order.
        torch.testing.assert_close(first, second, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("tokens", 64, "tokens holds 64"), ("context_end", 60, "lies outside"), ("targets", 64, "targets holds 64")],
)
def test_bad_input_is_named_and_leaves_the_gpu_usable(packed, small, name, value, message):
    step = TrainStep(GLM(small).cuda(), num_objectives=2)
    batch = on_gpu(packed([[12, 9], [14]], width=64))
    with pytest.raises(ValueError, match=message):
        step({**batch, name: torch.where(batch["segment_ids"] == 1, value, batch[name])})
    assert torch.isfinite(step(batch)[0]).all()
