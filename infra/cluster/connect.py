"""Join the Ray cluster that the environment names, or start one on this machine.

A cluster that we join is left as it is: no `num_cpus`, no shutdown. Starting a local one takes 3 to 5 s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from infra.errors import InfrastructureError


@dataclass
class ClusterConfig:
    local_cpus: Annotated[int, Ge(1)] | None = None
    """CPUs of a Ray started on this machine; default: all, at least 2. A cluster that is joined has its own."""
    wait_s: Annotated[float, Ge(0)] = 600.0
    """Longest wait for room for the workers, at the start and after a failure: an autoscaler may add nodes."""


@dataclass(frozen=True)
class Cluster:
    address: str
    started_here: bool
    dashboard_url: str | None
    cpus: float
    gpus: float


def connect(config: ClusterConfig, *, min_cpus: int = 2, say: Callable[[str], None] = lambda text: None) -> Cluster:
    """Join the Ray of RAY_ADDRESS or of the job we run in; else start one here with at least `min_cpus` CPUs.

    `min_cpus` counts slots, not cores: two workers fit on a machine with one core, slowly.
    """
    import ray

    joins = ray.is_initialized() or inside_job() or os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
    if not ray.is_initialized():
        with _own_sigterm():
            _join() if joins else _start(config.local_cpus or max(min_cpus, os.cpu_count() or 1))
    resources, context = ray.cluster_resources(), ray.get_runtime_context()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    dashboard = getattr(ray._private.worker, "get_dashboard_url", lambda: None)() or None
    cluster = Cluster(context.gcs_address, not joins, f"http://{dashboard}" if dashboard else None, cpus, gpus)
    verb = "joined Ray" if joins else "started a local Ray"
    gpu_words = f", {gpus:g} GPUs" if gpus else ""
    say(f"{verb} at {cluster.address}: {cpus:g} CPUs{gpu_words}" + (f", {cluster.dashboard_url}" if dashboard else ""))
    return cluster


def shutdown(cluster: Cluster) -> None:
    """Stop the Ray that `connect` started; leave one that it joined alone."""
    if cluster.started_here:
        import ray

        ray.shutdown()


def inside_job() -> bool:
    """Whether this process is the entry point of a `ray job submit`, or was started by it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def quiet_ray_data() -> None:
    """No progress bars and no log lines from Ray Data in this process; errors are raised, and told once, by us."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray's, which it sets before it starts, leaves with exit code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None
    finally:
        # None: a handler that Python cannot put back. Only the main thread may set one.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _addressed_locally() -> Iterator[None]:
    """Processes that are started here look for no Ray of another name.

    Ray Train's own do, in the file in which the last `ray start` on this machine left its address; where that Ray is
    gone, the end of a training waits 12 s for it.
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

    try:
        _knock(os.environ.get("RAY_ADDRESS", ""))
        ray.init()
    except Exception as exc:
        address = os.environ.get("RAY_ADDRESS", "the address of the job")
        try_ = "unset RAY_ADDRESS to run here; if the words above speak of authentication: export RAY_AUTH_MODE=token"
        why = f"{type(exc).__name__}: {(str(exc).strip().splitlines() or [''])[0]}"
        raise InfrastructureError(f"cannot join the Ray at {address}", why=why, try_=try_) from exc


def _knock(address: str) -> None:
    """Fail within seconds when nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _start(num_cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # without a dashboard nobody reads them
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; else it warns
    import psutil
    import ray

    # Ray's own default is 30 % of the memory; our blocks are small.
    store_bytes = int(min(2 << 30, max(256 << 20, 0.1 * psutil.virtual_memory().total)))
    try:
        with _addressed_locally():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=store_bytes,
                logging_level=logging.ERROR,
            )
    except Exception as exc:
        why = f"{type(exc).__name__}: {exc}"
        raise InfrastructureError("Ray does not start on this machine", why=why, try_="free memory and /tmp") from exc
