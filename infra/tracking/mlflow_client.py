"""The MLflow client and the handle that names a run in it. mlflow takes 1.5 s to import: at the first call."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class RunHandle:
    """Names one run, for any process; what takes a handle does nothing when it is not enabled.

    `run_id` is the id to remember either way: that of a run which is not tracked this time stays what it was, and is ""
    where it never was tracked.
    """

    uri: str
    run_id: str
    experiment_id: str
    enabled: bool = True


NOT_TRACKED = RunHandle("", "", "", enabled=False)


def client_of(uri: str) -> MlflowClient:
    """A client that gives up on a dead server within seconds, unless the environment says otherwise."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    # They tell of every migration step when a database is made, and of every retry; errors still pass.
    for logger in ("mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def shown(uri: str) -> str:
    """A URI, or text with one in it, without its password."""
    return re.sub(r"//[^/@\s]*@", "//***@", uri)


def first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines() or [""]
    return f"{type(exc).__name__}: {shown(lines[0])[:300]}"
