"""Joining and starting a Ray, on the local Ray that the tests share."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from infra.cluster.connect import Cluster, ClusterConfig, connect, inside_job, shutdown, start_remedy
from infra.errors import DataError, root_cause

pytestmark = pytest.mark.ray


def test_a_running_ray_is_joined_and_left_alone(local_ray):
    import ray

    said = []
    cluster = connect(ClusterConfig(local_cpus=99), say=said.append)
    assert (cluster.started_here, cluster.cpus, cluster.gpus, cluster.dashboard_url) == (False, 4.0, 0.0, None)
    assert said == [f"joined Ray at {cluster.address}: 4 CPUs"]
    shutdown(cluster)
    assert ray.is_initialized()


def test_processes_of_a_ray_that_is_joined_know_its_address(local_ray):
    """Ray Train's own look for another one without it (findings/ray_train_asks_the_newest_ray.sh)."""
    import ray

    code = """
from infra.cluster.connect import *
connect(ClusterConfig())
import ray
ask = ray.remote(num_cpus=0)(lambda: os.environ.get("RAY_ADDRESS"))
print(ray.get(ask.remote(), timeout=40))
"""
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, f"{address}\n"), done.stderr


def test_errors_of_remote_tasks_keep_their_text(local_ray):
    import ray

    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise DataError("no store", why="interrupted", try_="again")

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(fail.remote())
    cause = root_cause(caught.value)
    assert type(cause) is DataError
    assert str(cause) == "no store\n  why: interrupted\n  try: again"


def test_a_local_ray_is_started_and_stopped_quietly():
    code = """
from infra.cluster.connect import *
cluster = connect(ClusterConfig(), min_cpus=7, say=print)
assert cluster.started_here and cluster.cpus >= 7, cluster
import ray
shutdown(cluster)
assert not ray.is_initialized()
try:
    ray.put(1)  # as a thread of Ray Data does that outlives it
except ray.exceptions.RaySystemError:
    pass
assert not ray.is_initialized()
"""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("started a local Ray at ")


def test_a_local_ray_knows_nothing_of_one_that_was_started_before_and_is_gone():
    # Ray Train's processes ask "their" Ray for actors, by an API that a Ray of ours has not: they learn that at once.
    code = """
from infra.cluster.connect import *
import ray, ray.util.state
cluster = connect(ClusterConfig())

@ray.remote(num_cpus=0)
def ask():
    try:
        ray.util.state.get_actor("00", timeout=1)
    except (ray.util.state.exception.RayStateApiException, ConnectionError):  # the latter where there are several
        return "nothing to ask"

print(ray.get(ask.remote(), timeout=20), os.environ.get("RAY_ADDRESS"))
shutdown(cluster)
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # paths of sockets have 107 bytes at most
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= {"RAY_TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to ask None\n", "")


def test_a_cluster_that_is_not_there_is_named_at_once():
    code = "from infra.cluster.connect import *; from infra.errors import *; run_main(lambda: connect(ClusterConfig()))"
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    lines = done.stderr.splitlines()
    assert lines[0] == "error: cannot join the Ray at 127.0.0.1:1"
    assert "refused" in lines[1]
    assert lines[-1] == "exit 5 (infrastructure)"


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("OSError: validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x/y", "RAY_TMPDIR"),
        ("The current node timed out during startup. This could happen because some of the raylet", "less busy"),
        ("Failed to connect to GCS within 60 seconds", "RAY_gcs_server_request_timeout_seconds=180"),
        ("[Errno 28] No space left on device: '/tmp/ray/session'", "free space in /tmp"),
        ("Attempting to cap object store memory usage at 1 bytes, but the minimum allowed is", "free memory"),
        ("something that nobody has met", "/tmp/ray/session_latest/logs"),
    ],
)
def test_where_ray_does_not_start_its_reason_decides_the_advice(reason, advice):
    assert advice in start_remedy(reason)


def test_inside_job_reads_what_ray_sets(monkeypatch):
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    monkeypatch.delenv(RAY_JOB_CONFIG_JSON_ENV_VAR, raising=False)
    assert not inside_job()
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")
    assert inside_job()


def test_import_brings_neither_ray_nor_torch():
    code = "import sys, infra.cluster.connect; print([m for m in ('ray', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_cluster_can_be_sent():
    cluster = Cluster("127.0.0.1:1", True, None, 4.0, 0.0)
    assert pickle.loads(pickle.dumps(cluster)) == cluster
