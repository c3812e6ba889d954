"""Workers that share out a computation get what one of them would."""

from pathlib import Path

import pytest
import torch
from helpers.two_ranks import run_two_ranks

from glm_model.config import GLMConfig, OptimConfig
from glm_model.model import GLM
from glm_model.train import make_optimizer, set_learning_rates
from workflows.training.ranks import Ranks

SHAPE = GLMConfig(layers=2, width=32, heads=2, vocab_size=64, positions=48)
CONFIG = OptimConfig(name="muon", lr=1e-3, matrix_lr=0.05, warmup_steps=0, schedule="constant")
RANK = """
import sys, torch
import torch.distributed as dist
from test_ranks import stepped
from workflows.training.ranks import Ranks

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
ranks, given = Ranks(rank, 2, torch.device("cpu")), []
items = torch.arange(5.0)[:, None]
shared = ranks.share_out(lambda part: given.append(len(part)) or part.bfloat16() + 1, items)
weights = stepped(ranks, torch.load(f"{folder}/model.pt", weights_only=True))
torch.save({"shared": shared, "given": given, "weights": weights}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def stepped(ranks: Ranks, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights after two steps of Muon with gradients that all workers have."""
    model = GLM(SHAPE)
    model.load_state_dict(weights)
    optimizer = make_optimizer(model, CONFIG, share=ranks.share_out)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        set_learning_rates(optimizer, seed, 100, CONFIG)
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.integration
def test_workers_share_out_matrices_and_have_the_weights_of_one_to_the_bit(tmp_path):
    torch.manual_seed(0)
    weights = GLM(SHAPE).state_dict()
    torch.save(weights, tmp_path / "model.pt")
    run_two_ranks(RANK, tmp_path, Path(__file__).parent, Path(__file__).parents[2])
    expected = stepped(Ranks(0, 1, torch.device("cpu")), weights)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["given"] == [3]  # of five; the last of the second worker is padding
        assert torch.equal(found["shared"], torch.arange(1, 6, dtype=torch.bfloat16)[:, None])
        assert all(torch.equal(found["weights"][name], expected[name]) for name in expected)
