"""Whether the nodes of a Ray cluster can hold a run's workers, and whether they share what a run writes."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Mapping

from infra import storage
from infra.errors import InfrastructureError


def check_fit(num_workers: int, resources_per_worker: dict[str, float] | None, use_gpu: bool) -> None:
    """InfrastructureError when the nodes of the cluster, all idle, could not hold the workers and none can be added.

    The worker's share is as Ray Train reads it: one CPU each, or one GPU with `use_gpu`, unless it is given.
    """
    share = _share(resources_per_worker, use_gpu)
    if sum(_rooms(share).values()) < num_workers and not _can_grow():
        raise _does_not_fit(num_workers, share, "no autoscaler adds more")


def wait_for_fit(
    num_workers: int,
    resources_per_worker: dict[str, float] | None,
    use_gpu: bool,
    *,
    wait_s: float,
    say: Callable[[str], None],
) -> None:
    """Return once the nodes of the cluster, all idle, could hold the workers: at once, or when an autoscaler has added
    what they need. (Ray Train would wait for ever, and say nothing.)

    Raises InfrastructureError after `wait_s` seconds, and as `check_fit` does.
    """
    check_fit(num_workers, resources_per_worker, use_gpu)
    share = _share(resources_per_worker, use_gpu)
    room = sum(_rooms(share).values())
    if room >= num_workers:
        return
    from ray.util import placement_group, remove_placement_group

    say(f"the cluster has room for {room} of {num_workers} workers; waiting up to {wait_s:g} s for it to grow")
    until = time.monotonic() + wait_s
    # What tells the autoscaler. `request_resources` would outlive this process, and keep nodes that nobody uses.
    demand = placement_group([share] * num_workers)
    try:
        while sum(_rooms(share).values()) < num_workers:
            if time.monotonic() >= until:
                raise _does_not_fit(num_workers, share, f"no more came in {wait_s:g} s")
            time.sleep(min(1.0, wait_s))
    finally:
        remove_placement_group(demand)


def check_memory(num_workers: int, bytes_per_worker: float) -> None:
    """InfrastructureError when the memory of the cluster's nodes, all idle, could not hold what the workers need at
    least.
    """
    room = sum(_rooms({"memory": bytes_per_worker}).values())
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
    """What `check_fit` and `check_memory` would say of a Ray on this machine with so many CPUs; starts none.

    Of GPUs the number counts and not the memory; kinds of resources that only Ray tells of are taken to be there.
    """
    import psutil
    import torch

    has = {"CPU": cpus, "GPU": float(torch.cuda.device_count()), "memory": float(psutil.virtual_memory().total)}
    share = {key: value for key, value in _share(resources_per_worker, use_gpu).items() if key in has}
    elsewhere = "; or plan on the cluster that is to train: RAY_ADDRESS=<its address>"
    if (room := _room(has, share)) < num_workers:
        totals = {key: has[key] for key in {"CPU": 0, "GPU": 0, **share}}
        raise InfrastructureError(
            f"this machine has room for {room} of {num_workers} workers",
            why=f"each takes {_words(share)}; it has {_words(totals)}",
            try_=_smaller_share(room, share, totals) + elsewhere,
        )
    if not use_gpu and (room := _room(has, {"memory": bytes_per_worker})) < num_workers:
        raise InfrastructureError(
            f"this machine has memory for {room} of {num_workers} workers",
            why=f"{_needed(bytes_per_worker)}, and it has {has['memory'] / 1e9:.1f} GB",
            try_=_less_memory(room) + elsewhere,
        )


def several_nodes(resources_per_worker: dict[str, float] | None, use_gpu: bool) -> bool:
    """Whether workers may run on another node than this process: they then share no disk of their own."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return _can_grow() or bool({*_rooms(_share(resources_per_worker, use_gpu))} - {here})


def nodes_without(folder: str, *, only: Mapping[str, float] | None = None) -> list[str]:
    """Addresses of the nodes that do not see what this process writes to a local folder: they do not share it.

    only: of the nodes that could take a task with these resources.
    """
    probe = os.path.join(storage.absolute(folder), f".seen-{uuid.uuid4().hex}")
    storage.write_bytes(probe, b"")
    try:
        return nodes_blind_to(probe, only=only)
    finally:
        storage.remove_tree(probe)


def nodes_blind_to(path: str, *, only: Mapping[str, float] | None = None) -> list[str]:
    """Addresses of the nodes that have no file or folder of this local path; only: as `nodes_without`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = _rooms(only or {})
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in asked}
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    look = ray.remote(num_cpus=0)(os.path.exists)
    seen = ray.get([look.options(scheduling_strategy=node).remote(storage.absolute(path)) for node in there])
    return [address for address, sees in zip(nodes.values(), seen, strict=True) if not sees]


# -- one level down ----------------------------------------------------------------------------------------------------


def _share(resources_per_worker: dict[str, float] | None, use_gpu: bool) -> dict[str, float]:
    """What one worker takes."""
    share: dict[str, float] = {key: value for key, value in (resources_per_worker or {}).items() if value}
    if resources_per_worker is None and not use_gpu:
        share = {"CPU": 1.0}
    if use_gpu:
        share.setdefault("GPU", 1.0)
    return share


def _nodes() -> dict[str, Mapping[str, float]]:
    """Node id -> resources, of the nodes that are alive."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _rooms(share: Mapping[str, float]) -> dict[str, int]:
    """Node id -> workers that it could hold, of the nodes that could hold one."""
    rooms = {node: _room(has, share) for node, has in _nodes().items()}
    return {node: room for node, room in rooms.items() if room}


def _room(has: Mapping[str, float], share: Mapping[str, float]) -> int:
    """Workers that a node with these resources could hold. The margin is for fractions: three shares of 1/3 fit."""
    return min((math.floor(has.get(key, 0.0) / value + 1e-6) for key, value in share.items()), default=10**9)


def _can_grow() -> bool:
    """Whether an autoscaler may add nodes: nodes that it knows belong to a group (`ray up`, KubeRay), and other
    platforms tell Ray what they could add.
    """
    import ray
    from ray._private.state import state

    if any("ray.io/node-group" in node["Labels"] for node in ray.nodes()):
        return True
    try:
        return bool(state.get_max_resources_from_cluster_config())
    except Exception:
        return False  # not part of Ray's public interface: without it we cannot know, and refuse


def _does_not_fit(num_workers: int, share: Mapping[str, float], growth: str) -> InfrastructureError:
    nodes = list(_nodes().values())
    totals = {key: sum(node.get(key, 0.0) for node in nodes) for key in {"CPU": 0, "GPU": 0, **share}}
    room = sum(_rooms(share).values())
    return InfrastructureError(
        f"the cluster has room for {room} of {num_workers} workers",
        why=f"each takes {_words(share)}; {len(nodes)} node(s) have {_words(totals)} together, and {growth}",
        try_=_smaller_share(room, share, totals),
    )


def _smaller_share(room: int, share: Mapping[str, float], totals: Mapping[str, float]) -> str:
    if room:
        return f"--train.num_workers={room}, or a smaller --train.resources_per_worker"
    if "GPU" in share and not totals["GPU"]:
        return "--train.use_gpu=false, or a cluster with GPUs"
    return "a smaller --train.resources_per_worker, or larger nodes"


def _needed(bytes_per_worker: float) -> str:
    return f"each needs {bytes_per_worker / 1e9:.1f} GB for weights, gradients and optimizer alone"


def _less_memory(room: int) -> str:
    return f"--train.num_workers={room}" if room else "a smaller --model.size, or larger machines"


def _words(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{value:g} {key}" for key, value in sorted(resources.items())) or "nothing"
