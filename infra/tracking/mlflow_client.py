"""The MLflow client, and the handle that names a run. Importing mlflow takes 1.5 s: it is done at the first call."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from infra.console import Console

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")


@dataclass(frozen=True)
class RunHandle:
    """Names one run in MLflow, for any process."""

    uri: str
    """Tracking server or database."""
    run_id: str
    """Kept too while a run is not tracked; "" if it never was."""
    experiment_id: str
    enabled: bool = True
    """Whether the run is tracked this time; functions that take the handle do nothing if not."""


NOT_TRACKED = RunHandle("", "", "", enabled=False)


def client_of(uri: str) -> MlflowClient:
    """A client that gives up on a dead server within seconds, unless the environment says otherwise."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    # These log every migration step when a database is made, and every retry; errors are still logged.
    for logger in ("mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def without_password(uri: str) -> str:
    """A URI, or a text that contains one, with *** for its user and password."""
    return re.sub(r"//[^/@\s]*@", "//***@", uri)


def first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines() or [""]
    return f"{type(exc).__name__}: {without_password(lines[0])[:300]}"


def best_effort(handle: RunHandle, action: str, send: Callable[[MlflowClient], T]) -> T | None:
    """Call `send`; its failure is a warning, because a description must not cost a training run. None where it failed,
    and where the run is not tracked. action: "log the dataset", for the warning.
    """
    if not handle.enabled:
        return None
    try:
        return send(client_of(handle.uri))
    except Exception as exc:
        Console().warn(f"MLflow at {without_password(handle.uri)} did not {action}: {first_line(exc)}")
        return None


def refusal(exc: Exception, uri: str) -> tuple[str, str]:
    """(what MLflow did, what to try), by the HTTP status of its answer; one that never came has none."""
    place, without = f"MLflow at {without_password(uri)}", "or go on without it: --tracking.required=false"
    told = re.search(r"error code (\d{3})", str(exc))  # of an answer that is not MLflow's own, such as a proxy's
    status = int(told[1]) if told else getattr(exc, "get_http_status_code", lambda: 0)()
    if status == 401:
        names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return f"{place} asks who you are, and does not accept the answer", f"export {names}; {without}"
    if status == 403:
        mend = "ask for the permission to edit this experiment, or use one of your own: --tracking.experiment=<name>"
        return f"{place} does not permit this", f"{mend}; {without}"
    if status == 400:
        return f"{place} refuses the run", f"correct what it names, such as --tracking.experiment; {without}"
    if status == 404:
        return f"{place} has no such page", f"correct --tracking.uri: another server answers there; {without}"
    return f"{place} does not answer", f"start the server, correct --tracking.uri, {without}"
