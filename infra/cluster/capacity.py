"""Whether the nodes of a Ray cluster can hold a run's workers, and whether they share what a run writes."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Mapping

from infra import storage
from infra.errors import InfrastructureError


def check_capacity(num_workers: int, resources_per_worker: dict[str, float] | None, use_gpu: bool) -> None:
    """Raise InfrastructureError if the cluster, with all its nodes idle, could not hold the workers and cannot grow.

    A worker takes what Ray Train gives it: `resources_per_worker`, or else one CPU, or one GPU with `use_gpu`.
    """
    share = _share(resources_per_worker, use_gpu)
    if sum(_workers_by_node(share).values()) < num_workers and not _can_grow():
        raise _too_small(num_workers, share, "no autoscaler adds more")


def room_for_workers(resources_per_worker: dict[str, float] | None, use_gpu: bool) -> int:
    """Workers that the connected cluster, with all its nodes idle, could hold now."""
    return sum(_workers_by_node(_share(resources_per_worker, use_gpu)).values())


def wait_for_capacity(
    num_workers: int,
    resources_per_worker: dict[str, float] | None,
    use_gpu: bool,
    *,
    wait_s: float,
    say: Callable[[str], None],
) -> None:
    """Return once the cluster, with all its nodes idle, could hold the workers: at once, or after an autoscaler has
    added nodes. (Ray Train would wait forever, without a message.)

    Raises InfrastructureError after `wait_s` seconds, and where `check_capacity` does.
    """
    check_capacity(num_workers, resources_per_worker, use_gpu)
    share = _share(resources_per_worker, use_gpu)
    room = sum(_workers_by_node(share).values())
    if room >= num_workers:
        return
    from ray.util import placement_group, remove_placement_group

    say(f"the cluster has room for {room} of {num_workers} workers; waiting up to {wait_s:g} s for it to grow")
    until = time.monotonic() + wait_s
    # The autoscaler sees it. `request_resources` would outlive this process, and keep nodes that nobody uses.
    demand = placement_group([share] * num_workers)
    try:
        while sum(_workers_by_node(share).values()) < num_workers:
            if time.monotonic() >= until:
                raise _too_small(num_workers, share, f"none was added in {wait_s:g} s")
            time.sleep(min(1.0, wait_s))
    finally:
        remove_placement_group(demand)


def check_memory(num_workers: int, bytes_per_worker: float) -> None:
    """Raise InfrastructureError if the memory of the cluster's nodes, all idle, is below the minimum of the workers."""
    room = sum(_workers_by_node({"memory": bytes_per_worker}).values())
    if room < num_workers and not _can_grow():
        largest = max((node.get("memory", 0.0) for node in _nodes().values()), default=0.0)
        raise InfrastructureError(
            f"the cluster has memory for {room} of {num_workers} workers",
            why=f"{_needed(bytes_per_worker)}, and Ray has {largest / 1e9:.1f} GB on the largest of {len(_nodes())} "
            "node(s)",
            try_=_less_memory(room),
        )


def check_machine(
    num_workers: int,
    resources_per_worker: dict[str, float] | None,
    use_gpu: bool,
    *,
    cpus: float,
    bytes_per_worker: float,
) -> None:
    """`check_capacity` and `check_memory` for a Ray on this machine with this number of CPUs, without starting one.

    GPUs are counted, their memory is not checked; resources that only Ray knows are assumed to be there.
    """
    import psutil
    import torch

    machine = {"CPU": cpus, "GPU": float(torch.cuda.device_count()), "memory": float(psutil.virtual_memory().total)}
    share = {key: value for key, value in _share(resources_per_worker, use_gpu).items() if key in machine}
    elsewhere = "; or plan on the cluster that will train: RAY_ADDRESS=<its address>"
    if (room := _num_workers(machine, share)) < num_workers:
        totals = {key: machine[key] for key in {"CPU": 0, "GPU": 0, **share}}
        raise InfrastructureError(
            f"this machine has room for {room} of {num_workers} workers",
            why=f"each takes {_words(share)}; it has {_words(totals)}, on {os.cpu_count() or 1} cores",
            try_=_smaller_share(room, share, totals) + elsewhere,
        )
    if not use_gpu and (room := _num_workers(machine, {"memory": bytes_per_worker})) < num_workers:
        raise InfrastructureError(
            f"this machine has memory for {room} of {num_workers} workers",
            why=f"{_needed(bytes_per_worker)}, and it has {machine['memory'] / 1e9:.1f} GB",
            try_=_less_memory(room) + elsewhere,
        )


def room_here(resources_per_worker: dict[str, float] | None, use_gpu: bool, *, cpus: float) -> int:
    """Workers that a Ray on this machine with this number of CPUs could hold, without starting one."""
    import torch

    machine = {"CPU": cpus, "GPU": float(torch.cuda.device_count())}
    return _num_workers(
        machine, {key: value for key, value in _share(resources_per_worker, use_gpu).items() if key in machine}
    )


def lacking_gpus(num_workers: int, resources_per_worker: dict[str, float] | None, use_gpu: bool) -> str | None:
    """What this machine lacks of the GPUs that the workers take, in words; None where it has them."""
    import torch

    each, there = _share(resources_per_worker, use_gpu).get("GPU", 0.0), torch.cuda.device_count()
    if _num_workers({"GPU": there}, {"GPU": each} if each else {}) >= num_workers:
        return None
    workers = "1 worker takes" if num_workers == 1 else f"{num_workers} workers take"
    needed = each * num_workers
    return f"{workers} {needed:g} GPU{'s' if needed > 1 else ''}, and this machine has {there}"


def several_nodes(resources_per_worker: dict[str, float] | None, use_gpu: bool) -> bool:
    """Whether workers may run on another node than this process, so that local disks are not shared."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return _can_grow() or bool({*_workers_by_node(_share(resources_per_worker, use_gpu))} - {here})


def nodes_not_sharing(folder: str, *, only: Mapping[str, float] | None = None) -> list[str]:
    """Addresses of the nodes that do not see what this process writes to a local folder.

    only: look at the nodes alone that could take a task with these resources.
    """
    probe = os.path.join(storage.absolute(folder), f".probe-{uuid.uuid4().hex}")
    storage.write_bytes(probe, b"")
    try:
        return nodes_missing(probe, only=only)
    finally:
        storage.remove_tree(probe)


def nodes_missing(path: str, *, only: Mapping[str, float] | None = None) -> list[str]:
    """Addresses of the nodes on which there is no file or folder at this local path; only: as `nodes_not_sharing`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    suitable = _workers_by_node(only or {})
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in suitable}
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    look = ray.remote(num_cpus=0)(os.path.exists)
    exists = ray.get([look.options(scheduling_strategy=place).remote(storage.absolute(path)) for place in places])
    return [address for address, there in zip(nodes.values(), exists, strict=True) if not there]


def _share(resources_per_worker: dict[str, float] | None, use_gpu: bool) -> dict[str, float]:
    """The resources that one worker takes."""
    share: dict[str, float] = {key: value for key, value in (resources_per_worker or {}).items() if value}
    if resources_per_worker is None and not use_gpu:
        share = {"CPU": 1.0}
    if use_gpu:
        share.setdefault("GPU", 1.0)
    return share


def _nodes() -> dict[str, Mapping[str, float]]:
    """Node id -> resources, for the nodes that are alive."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _workers_by_node(share: Mapping[str, float]) -> dict[str, int]:
    """Node id -> number of workers that it could hold, for the nodes that could hold one."""
    numbers = {node: _num_workers(resources, share) for node, resources in _nodes().items()}
    return {node: number for node, number in numbers.items() if number}


def _num_workers(resources: Mapping[str, float], share: Mapping[str, float]) -> int:
    """Workers that a node with these resources could hold. The margin is for fractions, such as three shares of 1/3."""
    return min((math.floor(resources.get(key, 0.0) / value + 1e-6) for key, value in share.items()), default=10**9)


def _can_grow() -> bool:
    """Whether an autoscaler may add nodes: its nodes belong to a group (`ray up`, KubeRay), or the platform tells Ray
    what it could add.
    """
    import ray
    from ray._private.state import state

    if any("ray.io/node-group" in node["Labels"] for node in ray.nodes()):
        return True
    try:
        return bool(state.get_max_resources_from_cluster_config())
    except Exception:
        return False  # not part of Ray's public interface: without it we cannot know, and say no


def _too_small(num_workers: int, share: Mapping[str, float], growth: str) -> InfrastructureError:
    nodes = list(_nodes().values())
    totals = {key: sum(node.get(key, 0.0) for node in nodes) for key in {"CPU": 0, "GPU": 0, **share}}
    room = sum(_workers_by_node(share).values())
    return InfrastructureError(
        f"the cluster has room for {room} of {num_workers} workers",
        why=f"each takes {_words(share)}; {len(nodes)} node(s) have {_words(totals)} together, and {growth}",
        try_=_smaller_share(room, share, totals),
    )


def _smaller_share(room: int, share: Mapping[str, float], totals: Mapping[str, float]) -> str:
    if room:
        return f"--train.num_workers={room}, or reduce --train.resources_per_worker"
    if "GPU" in share and not totals["GPU"]:
        return "--train.use_gpu=false, or use a cluster with GPUs"
    return "reduce --train.resources_per_worker, or use larger nodes"


def _needed(bytes_per_worker: float) -> str:
    return f"each needs {bytes_per_worker / 1e9:.1f} GB for weights, gradients and optimizer alone"


def _less_memory(room: int) -> str:
    return f"--train.num_workers={room}" if room else "choose a smaller --model.size, or use larger machines"


def _words(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{value:g} {key}" for key, value in sorted(resources.items())) or "nothing"
