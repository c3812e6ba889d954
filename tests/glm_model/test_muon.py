"""Muon: what it makes of matrices, that all else is moved by torch's AdamW, and that its state is all of it."""

import copy
import json

import pytest
import torch
from torch import Tensor

from glm_model.config import OptimConfig
from glm_model.model import GLM
from glm_model.muon import Muon, orthogonal
from glm_model.train import make_optimizer, set_learning_rates

CONFIG = OptimConfig(name="muon", lr=1e-3, matrix_lr=0.05, weight_decay=0.2, warmup_steps=0, schedule="constant")


def gradients(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def stepped(model: GLM, optimizer: torch.optim.Optimizer, seeds: range) -> dict[str, Tensor]:
    for seed in seeds:
        gradients(model, seed)
        set_learning_rates(optimizer, seed, 100, CONFIG)
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    return GLM(small)


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 64)])
def test_a_matrix_keeps_its_singular_vectors_and_gets_singular_values_near_1(shape):
    M_NRC = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    U, _, Vt = torch.linalg.svd(M_NRC.double(), full_matrices=False)
    S = U.mT @ orthogonal(M_NRC).double() @ Vt.mT
    values = torch.diagonal(S, dim1=-2, dim2=-1)
    assert 0.65 < values.min() < values.max() < 1.25
    assert (S - torch.diag_embed(values)).abs().max() < 1e-3


def test_the_iterations_are_those_of_the_publication():
    """Written out in float64; here in float32, by their product."""
    M = torch.randn(24, 40, generator=torch.Generator().manual_seed(2)) @ torch.diag(torch.logspace(0, -6, 40))
    X = M.double() / M.double().norm()
    for _ in range(5):
        S = X @ X.T
        X = 3.4445 * X + (-4.7750 * S + 2.0315 * S @ S) @ X
    torch.testing.assert_close(orthogonal(M[None])[0].double(), X, rtol=0, atol=1e-3)
    assert orthogonal(torch.zeros(1, 4, 4)).abs().max() == 0


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_a_matrix_is_moved_as_by_torchs_muon(shape):
    """Which multiplies in bfloat16; its momentum, rates and decay are the same."""
    torch.manual_seed(0)
    mine = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(mine.detach().clone())
    ours = Muon([{"params": [mine], "lr": 0.1, "momentum": 0.9, "weight_decay": 0.3, "parts": 1}])
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.3)
    for _ in range(4):
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
        assert torch.equal(ours.state[mine]["momentum_buffer"], reference.state[theirs]["momentum_buffer"])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0.02)


def test_matrices_are_those_of_the_layers_and_a_projection_to_qkv_is_three(model):
    by_name = {id(p): name.removesuffix(".weight") for name, p in model.named_parameters()}
    groups = make_optimizer(model, CONFIG).param_groups
    of_layers = {g["parts"]: {by_name[id(p)].split(".")[-1] for p in g["params"]} for g in groups if "momentum" in g}
    assert of_layers == {1: {"attention_out", "mlp_in", "mlp_out"}, 3: {"qkv"}}
    assert sum(len(g["params"]) for g in groups) == len(by_name)
    before, qkv = model.layers[0].qkv.weight.detach().clone(), model.layers[0].qkv.weight
    optimizer = make_optimizer(model, CONFIG)
    gradients(model, 0)
    grad = qkv.grad.clone()
    optimizer.step()
    d = qkv.shape[1]
    expected = torch.cat(list(orthogonal(grad.view(3, d, d))))
    torch.testing.assert_close(before * (1 - 0.05 * 0.2) - qkv, 0.05 * expected, rtol=0, atol=1e-5)


def test_all_else_is_moved_as_by_torchs_adamw_to_the_bit(model, small):
    other = GLM(small)
    other.load_state_dict(model.state_dict())
    ours = stepped(model, make_optimizer(model, CONFIG), range(3))
    adamw = OptimConfig(**{**vars(CONFIG), "name": "adamw"})
    theirs = stepped(other, make_optimizer(other, adamw), range(3))
    matrices = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == matrices


def test_it_goes_on_from_its_state_to_the_bit(model, small):
    """As a checkpoint keeps it: tensors, and JSON."""
    optimizer = make_optimizer(model, CONFIG)
    stepped(model, optimizer, range(3))
    other = GLM(small)
    other.load_state_dict(model.state_dict())
    again, state = make_optimizer(other, CONFIG), copy.deepcopy(optimizer.state_dict())
    again.load_state_dict(state | {"param_groups": json.loads(json.dumps(state["param_groups"]))})
    whole, resumed = stepped(model, optimizer, range(3, 6)), stepped(other, again, range(3, 6))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_has_no_gradient_stays(model):
    optimizer = make_optimizer(model, CONFIG)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients(model, 0)
    for p in (model.layers[0].qkv.weight, model.token_embedding.weight):
        p.grad = None
    optimizer.step()
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert same == {"layers.0.qkv.weight", "token_embedding.weight"}
