"""Workers that fit, that do not, and that wait for nodes: on the local Ray that the tests share, and one that grows."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from infra.cluster.capacity import (
    check_capacity,
    check_machine,
    check_memory,
    nodes_missing,
    nodes_not_sharing,
    several_nodes,
    wait_for_capacity,
)
from infra.errors import InfrastructureError

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("workers", "share", "use_gpu"),
    [(4, None, False), (2, {"CPU": 2}, False), (12, {"CPU": 1 / 3}, False), (99, {}, False), (0, None, True)],
)
def test_workers_that_fit(local_ray, workers, share, use_gpu):
    check_capacity(workers, share, use_gpu)


@pytest.mark.parametrize(
    ("workers", "share", "use_gpu", "message", "remedy"),
    [
        (5, None, False, "room for 4 of 5 workers", "--train.num_workers=4"),
        (2, {"CPU": 3}, False, "room for 1 of 2 workers", "--train.num_workers=1"),
        (1, {"CPU": 5}, False, "room for 0 of 1 workers", "--train.resources_per_worker"),
        (1, None, True, "room for 0 of 1 workers", "--train.use_gpu=false"),
        (1, {"TPU": 1}, False, "room for 0 of 1 workers", "--train.resources_per_worker"),
    ],
)
def test_workers_that_do_not_fit(local_ray, workers, share, use_gpu, message, remedy):
    with pytest.raises(InfrastructureError, match=message) as caught:
        check_capacity(workers, share, use_gpu)
    assert remedy in caught.value.try_
    assert "4 CPU" in caught.value.why


def test_without_an_autoscaler_nobody_waits(local_ray):
    said = []
    wait_for_capacity(4, None, False, wait_s=0, say=said.append)
    with pytest.raises(InfrastructureError, match="room for 4 of 5 workers") as caught:
        wait_for_capacity(5, None, False, wait_s=1e9, say=said.append)
    assert "no autoscaler adds more" in caught.value.why
    assert said == []


def test_one_machine_is_one_node_that_sees_its_own_folders(local_ray, tmp_path):
    assert not several_nodes(None, False)
    assert not several_nodes({"CPU": 99}, False)
    assert nodes_not_sharing(str(tmp_path)) == nodes_not_sharing(f"file://{tmp_path}/new") == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_place_that_a_node_does_not_see_is_named_with_the_node(local_ray, tmp_path):
    import ray

    assert nodes_missing(str(tmp_path)) == []
    assert nodes_missing(str(tmp_path / "absent")) == [node["NodeManagerAddress"] for node in ray.nodes()]
    assert nodes_missing(str(tmp_path / "absent"), only={"CPU": 99}) == [], "no node takes such a task"


def test_workers_that_the_memory_cannot_hold_are_refused(local_ray):
    import ray

    held = ray.cluster_resources()["memory"]
    check_memory(2, held / 2.5)
    with pytest.raises(InfrastructureError, match="memory for 2 of 3 workers") as refused:
        check_memory(3, held / 2.5)
    assert refused.value.try_ == "--train.num_workers=2"
    with pytest.raises(InfrastructureError, match="memory for 0 of 1 workers") as refused:
        check_memory(1, held * 2)
    assert f"each needs {2 * held / 1e9:.1f} GB" in str(refused.value.why)


@pytest.fixture
def laptop(monkeypatch):
    """4 cores, no GPU, 16 GB; and no Ray: what would ask one fails."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=16e9))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.nodes", pytest.fail)


@pytest.mark.parametrize(
    ("workers", "share", "use_gpu", "gigabytes"),
    [(4, None, False, 4), (1, {"CPU": 4}, False, 16), (2, {"CPU": 1, "accelerator_type:A100": 0.1}, False, 1)],
)
def test_workers_that_a_machine_would_hold(laptop, workers, share, use_gpu, gigabytes):
    check_machine(workers, share, use_gpu, cpus=4, bytes_per_worker=gigabytes * 1e9)


@pytest.mark.parametrize(
    ("workers", "share", "use_gpu", "gigabytes", "message", "why", "remedy"),
    [
        (5, None, False, 1, "room for 4 of 5", "each takes 1 CPU; it has 4 CPU and 0 GPU", "--train.num_workers=4"),
        (2, {"CPU": 5}, False, 1, "room for 0 of 2", "each takes 5 CPU; it has 4 CPU", "reduce --train.res"),
        (8, None, True, 1, "room for 0 of 8", "each takes 1 GPU; it has 4 CPU and 0 GPU", "--train.use_gpu=false"),
        (3, None, False, 8, "memory for 2 of 3", "each needs 8.0 GB .* it has 16.0 GB", "--train.num_workers=2"),
        (
            1,
            None,
            False,
            160,
            "memory for 0 of 1",
            "each needs 160.0 GB .* it has 16.0 GB",
            "choose a smaller",
        ),
    ],
)
def test_workers_that_a_machine_would_not_hold(laptop, workers, share, use_gpu, gigabytes, message, why, remedy):
    with pytest.raises(InfrastructureError, match=f"^this machine has {message} workers") as caught:
        check_machine(workers, share, use_gpu, cpus=4, bytes_per_worker=gigabytes * 1e9)
    assert re.match(why, str(caught.value.why))
    assert str(caught.value.try_).startswith(remedy)
    assert "RAY_ADDRESS" in str(caught.value.try_), "a cluster may hold them"


GROWING = """
import logging, os
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
from infra.cluster import capacity
from infra.errors import InfrastructureError
from infra.cluster.capacity import check_capacity, nodes_not_sharing, several_nodes, wait_for_capacity

def demands():
    return [group["state"] for group in placement_group_table().values()]

def grow(text):
    print(text, demands())
    cluster.add_node(num_cpus=2)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
try:
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    check_capacity(3, None, False)
    try:
        wait_for_capacity(3, None, False, wait_s=0.1, say=print)
    except InfrastructureError as error:
        print(error.message, "|", error.why, "|", demands())
    wait_for_capacity(3, None, False, wait_s=30, say=grow)
    wait_for_capacity(3, None, False, wait_s=0, say=grow)
    print(several_nodes(None, False), nodes_not_sharing(os.getcwd()), demands())
    capacity._can_grow = lambda: False
    print([several_nodes({"CPU": cpus}, False) for cpus in (1, 2, 3)])
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
def test_workers_wait_for_the_nodes_that_an_autoscaler_adds(tmp_path):
    """Two nodes of a group, as `ray up` and KubeRay start them; the second one comes when its absence is told."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_NODE_TYPE_NAME": "group"}
    done = subprocess.run(
        [sys.executable, "-c", GROWING], env=environment, capture_output=True, text=True, timeout=55, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    room = "the cluster has room for 1 of 3 workers"
    assert done.stdout.splitlines() == [
        f"{room}; waiting up to 0.1 s for it to grow",
        f"{room} | each takes 1 CPU; 1 node(s) have 1 CPU and 0 GPU together, and none was added in 0.1 s"
        " | ['REMOVED']",
        f"{room}; waiting up to 30 s for it to grow ['REMOVED']",
        "True [] ['REMOVED', 'REMOVED']",
        "[True, True, False]",
    ]
