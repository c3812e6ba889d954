"""Products of a few positions: they are those of torch, and equal positions get equal bits."""

import pytest
import torch
import torch.nn.functional as F

from glm_model.products import linear, wide_linear

COUNTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 64, 300]


@pytest.fixture(params=[1, 2])
def threads(request):
    """That many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("outputs", [64, 192, 100])
@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (4,), (1, 1), (1, 2), (3, 5)])
@torch.no_grad()
def test_products_are_those_of_torch(shape, outputs):
    x_I, weight_OI, bias_O = draw(*shape, 96), draw(outputs, 96), draw(outputs)
    torch.testing.assert_close(linear(x_I, weight_OI, bias_O), F.linear(x_I, weight_OI, bias_O), rtol=1e-5, atol=1e-4)
    for product in (linear, wide_linear):
        torch.testing.assert_close(product(x_I, weight_OI), F.linear(x_I, weight_OI), rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", COUNTS)
@torch.no_grad()
def test_equal_positions_get_equal_bits_wherever_they_stand(count):
    one_I, weight_OI = draw(1, 384), draw(8192, 384)
    y_MO = wide_linear(one_I.repeat(count, 1), weight_OI)
    assert all(torch.equal(y_O, y_MO[0]) for y_O in y_MO)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [2, 3])
@torch.no_grad()
def test_the_bits_of_up_to_three_positions_do_not_depend_on_the_others(count):
    x_MI, weight_OI, bias_O = draw(count, 768), draw(2304, 768), draw(2304)
    alone = torch.cat([linear(x_I[None], weight_OI, bias_O) for x_I in x_MI])
    assert torch.equal(linear(x_MI, weight_OI, bias_O), alone)


@pytest.mark.parametrize("count", [1, 5])
def test_gradients_are_those_of_torch(count):
    inputs = (draw(count, 96).requires_grad_(), draw(128, 96).requires_grad_())
    expected = torch.autograd.grad(F.linear(*inputs).square().sum(), inputs)
    for product in (linear, wide_linear):
        torch.testing.assert_close(torch.autograd.grad(product(*inputs).square().sum(), inputs), expected)
