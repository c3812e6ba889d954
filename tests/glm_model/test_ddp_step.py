"""A step split over two processes by DDP has the gradients of one process (laws 6 and 8 at the model's level)."""

import pytest
import torch
from helpers.two_ranks import run_two_ranks

from glm_model.model import GLM
from glm_model.train import TrainStep, loss_scales

pytestmark = pytest.mark.integration
SHARES = torch.tensor([0.7, 0.3])
RANK = """
import sys, torch
import torch.distributed as dist
from glm_model.model import GLM, GLMConfig
from glm_model.train import TrainStep, loss_scales

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
scales = loss_scales(given["counts"], given["shares"]) * 2  # DDP averages over ranks, and the loss is a sum over them
for again in (False, True):
    model = GLM(GLMConfig.from_dict(given["config"]))
    model.load_state_dict(given["weights"])
    step = TrainStep(model, num_objectives=2, precision="fp32", checkpoint_activations=again)
    ddp = torch.nn.parallel.DistributedDataParallel(step, gradient_as_bucket_view=True)
    mine = given["micro_batches"][rank]
    for number, rows in enumerate(mine, start=1):
        ddp.require_backward_grad_sync = number == len(mine)
        sums, _ = ddp({name: value[rows] for name, value in given["batch"].items()})
        (sums * scales).sum().backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/gradients-{again}.pt")
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one_with_and_without_checkpointed_layers(packed, small, tmp_path):
    torch.manual_seed(0)
    model = GLM(small)
    batch = packed([[12, 9], [10, 8], [14], [20], []], width=40)
    counts = torch.bincount(batch["objective_ids"][batch["loss_mask"] == 1], minlength=2)
    sums, _ = TrainStep(model, num_objectives=2, precision="fp32")(batch)
    (sums * loss_scales(counts, SHARES)).sum().backward()
    given = {
        "config": small.to_dict(),
        "weights": model.state_dict(),
        "batch": batch,
        "counts": counts,
        "shares": SHARES,
        "micro_batches": [[[0, 1], [3]], [[2], [4]]],  # rows; the last is empty
    }
    torch.save(given, tmp_path / "given.pt")
    run_two_ranks(RANK, tmp_path)
    for again in (False, True):
        gradients = torch.load(tmp_path / f"gradients-{again}.pt", weights_only=True)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
