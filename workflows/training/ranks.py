"""This process among the workers of a run: its place, sums over all of them, and what sums their gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from glm_model.train import Precision, resolve_precision
from pipelines.keyed import MASK64


@dataclass(frozen=True)
class Ranks:
    """rank of `world` workers, which computes on `device`."""

    rank: int
    world: int
    device: torch.device

    @staticmethod
    def of_ray_train(use_gpu: bool) -> "Ranks":
        """The place that Ray Train gave this worker."""
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        device = ray.train.torch.get_device() if use_gpu else torch.device("cpu")
        return Ranks(context.get_world_rank(), context.get_world_size(), device)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all workers, on the CPU. All of them call it, in the same order."""
        if self.world == 1:
            return tensor.cpu()
        placed = tensor.to(self.device)
        dist.all_reduce(placed)
        return placed.cpu()

    def all_have(self, value: int) -> bool:
        """Whether all workers call this with the same number, of 64 bits with a sign."""
        if self.world == 1:
            return True
        both = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(both, dist.ReduceOp.MAX)
        return both[0].item() == -both[1].item()

    def share_out(self, compute: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor) -> torch.Tensor:
        """`compute(items)`, which treats each of the N items by itself: every worker computes a part, and gets those of
        the others. All of them call it, in the same order and with equal items.
        """
        if self.world == 1:
            return compute(items)
        size = -(-len(items) // self.world)
        mine = items[self.rank * size : (self.rank + 1) * size]
        made = compute(torch.cat((mine, items.new_zeros(size - len(mine), *items.shape[1:])))).contiguous()
        found = made.new_empty(self.world * size, *made.shape[1:])
        dist.all_gather(list(found.split(size)), made)
        return found[: len(items)]

    def precision(self, wanted: Precision) -> Precision:
        """What all workers compute in: `auto` is bf16 where each of their devices multiplies it, else fp32. All of them
        call it.
        """
        mine = resolve_precision(wanted, self.device)
        return "bf16" if int(self.sum(torch.tensor(int(mine == "bf16")))) == self.world else "fp32"

    def distribute(self, module: nn.Module, *, exact: bool = False) -> nn.Module:
        """The module under DDP, with gradients that are sums over the workers.

        Sums, as the loss is one. And DDP's own means are not quite a function of the gradients: it multiplies by 1/W at
        the first step of a process and divides by W from then on, which differs for three workers.

        exact: keep the layout of the gradient buckets. DDP lays them out again after the first backward of a process,
        so that after a restart the sums of three workers and more are taken in another order once, and differ in their
        last bits. (Not static_graph: with gradients accumulated before the first exchange it fails, docs/lab.md.)
        """
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        ddp = nn.parallel.DistributedDataParallel(
            module,
            device_ids=ids,
            gradient_as_bucket_view=True,
            find_unused_parameters=exact,  # DDP then leaves the buckets as they are
        )
        ddp.register_comm_hook(None, _sum_bucket)
        return ddp


def _sum_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def as_signed(value: int) -> int:
    """A sum of 64-bit hashes as int64: a sum over workers wraps around, as the hash's own sum does."""
    value &= MASK64
    return value - (1 << 64) if value >> 63 else value
