"""Join the Ray cluster that the environment names, or start one on this machine.

A cluster that we join keeps its settings, and runs on after us. Starting a local one takes 3 to 5 s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from infra.errors import InfrastructureError

_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_MOST_SOCKET_BYTES = 107  # of the path of a socket, on Linux
_SOCKET_BYTES = len("/ray/session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store")


@dataclass
class ClusterConfig:
    local_cpus: Annotated[int, Ge(1)] | None = None
    """CPUs of a Ray that is started on this machine. Default: all, but at least 2, and at least one more than the
    workers of a training. A joined cluster has its own.
    """
    wait_s: Annotated[float, Ge(0)] = 600.0
    """Longest wait, in seconds, for free resources for the workers, at the start and after a failure: an autoscaler may
    add nodes.
    """


@dataclass(frozen=True)
class Cluster:
    """The Ray that this process is connected to. started_here: `shutdown` ends it; cpus, gpus: of all its nodes."""

    address: str
    started_here: bool
    dashboard_url: str | None
    cpus: float
    gpus: float


def connect(config: ClusterConfig, *, min_cpus: int = 2, say: Callable[[str], None] = lambda text: None) -> Cluster:
    """Join the Ray of RAY_ADDRESS or of the job we run in; else start one here with at least `min_cpus` CPUs.

    min_cpus: Ray's slots, not cores; two workers run on a machine with one core, slowly. say: prints a line for the
    user. Raises InfrastructureError.
    """
    # Read where Ray is imported. Else a thread of Ray Data that outlives a Ray which Ctrl-C ended starts another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    import ray
    import ray._private.worker

    joins = ray.is_initialized() or inside_job() or os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
    if not ray.is_initialized():
        with _kept_sigterm_handler():
            _join() if joins else _start(config.local_cpus or max(min_cpus, os.cpu_count() or 1))
    resources, context = ray.cluster_resources(), ray.get_runtime_context()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    dashboard = getattr(ray._private.worker, "get_dashboard_url", lambda: None)() or None
    cluster = Cluster(context.gcs_address, not joins, f"http://{dashboard}" if dashboard else None, cpus, gpus)
    verb = "joined Ray" if joins else "started a local Ray"
    # A local Ray has slots for processes that mostly wait, so that its CPUs are not those of the machine.
    cores = f"{cpus:g} CPUs" if joins else f"{os.cpu_count() or 1} cores, {cpus:g} slots"
    gpu_words = f", {gpus:g} GPUs" if gpus else ""
    say(f"{verb} at {cluster.address}: {cores}{gpu_words}" + (f", {cluster.dashboard_url}" if dashboard else ""))
    return cluster


def shutdown(cluster: Cluster) -> None:
    """Stop the Ray if `connect` started it; one that it joined runs on."""
    if cluster.started_here:
        import ray

        ray.shutdown()


def inside_job() -> bool:
    """Whether this process is the entry point of a `ray job submit`, or was started by it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def quiet_ray_data() -> None:
    """Turn off Ray Data's progress bars and log lines in this process. Its errors are raised; we print them once."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _kept_sigterm_handler() -> Iterator[None]:
    """Restore this process's handler of SIGTERM afterwards: Ray sets its own as it starts, which exits with code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None
    finally:
        # None: a handler that Python cannot restore. Only the main thread may set one.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _local_address() -> Iterator[None]:
    """Keep processes that are started here from looking for another Ray.

    Ray Train's own processes would, in the file where the last `ray start` on this machine left its address; if that
    Ray is gone, the end of a training waits 12 s for it.
    """
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = "local"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = before


def _join() -> None:
    import ray

    given = os.environ.get("RAY_ADDRESS", "")
    # Ray Train's own processes look for their Ray on the machine and take the one that `ray start` began last. Where
    # that is another one, they find their training dead in it and remove its workers
    # (findings/ray_train_asks_the_newest_ray.sh). With the address in their environment they ask the right one.
    known = {"env_vars": {"RAY_ADDRESS": given}} if _is_host_and_port(given) else None
    try:
        _check_reachable(given)
        ray.init(runtime_env=known)
    except Exception as exc:
        address = os.environ.get("RAY_ADDRESS", "the address of the job")
        try_ = "unset RAY_ADDRESS to run here; if the reason is authentication: export RAY_AUTH_MODE=token"
        why = f"{type(exc).__name__}: {(str(exc).strip().splitlines() or [''])[0]}"
        raise InfrastructureError(f"cannot join the Ray at {address}", why=why, try_=try_) from exc


def _check_reachable(address: str) -> None:
    """Raise OSError within seconds if nobody listens; Ray itself would try for minutes."""
    if _is_host_and_port(address):
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _is_host_and_port(address: str) -> bool:
    _, colon, port = address.rpartition(":")
    return bool(colon) and port.isdigit() and "://" not in address


def socket_folder(folders: Sequence[str] = _SHORT_FOLDERS) -> str | None:
    """A short folder for Ray, where sockets in its own would have longer paths than the system allows, else None. Ray's
    own is the temporary folder, which some batch systems set to a long path.
    """
    own = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(os.path.abspath(own))) + _SOCKET_BYTES <= _MOST_SOCKET_BYTES:
        return None
    for folder in folders:
        if os.access(folder, os.W_OK):
            return os.path.join(folder, f"ray-{os.getuid()}")
    return None  # Ray says why it does not start


def _start(num_cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # without a dashboard nobody reads them
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; else it warns
    import psutil
    import ray

    # Ray's own default is 30 % of the memory; our blocks are small.
    store_bytes = int(min(2 << 30, max(256 << 20, 0.1 * psutil.virtual_memory().total)))
    try:
        with _local_address():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=store_bytes,
                logging_level=logging.ERROR,
                _temp_dir=socket_folder(),
            )
    except Exception as exc:
        why = f"{type(exc).__name__}: {exc}"
        raise InfrastructureError("Ray does not start on this machine", why=why, try_=start_remedy(str(exc))) from exc


def start_remedy(reason: str) -> str:
    """What to try where Ray does not start, by what it says."""
    if "AF_UNIX" in reason or ("socket" in reason and "too long" in reason):
        return "give Ray a short folder for its sockets: export RAY_TMPDIR=/tmp"
    if "No space left" in reason or "Errno 28" in reason or "quota" in reason:
        return "free space in /tmp, or give Ray another folder: export RAY_TMPDIR=/var/tmp"
    if "memory" in reason:
        return "free memory: Ray needs about 1 GB besides the workers"
    if "timed out" in reason or "overloaded" in reason or "Failed to connect to GCS" in reason:
        return (
            "run the same command again when the machine is less busy, or give Ray longer: "
            "export RAY_gcs_server_request_timeout_seconds=180"
        )
    return "run the same command again; Ray's own log is in /tmp/ray/session_latest/logs"
