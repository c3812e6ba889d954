"""Runs in MLflow, and the log of metrics that MLflow mirrors."""

from infra.tracking.mlflow_client import NOT_TRACKED, RunHandle
from infra.tracking.mlflow_runs import (
    TrackingConfig,
    finish,
    git_tags,
    log_artifact_dir,
    log_store_input,
    log_text,
    log_values,
    open_run,
    relative_database,
    resolve_uri,
    set_tags,
)

__all__ = [
    "NOT_TRACKED",
    "RunHandle",
    "TrackingConfig",
    "finish",
    "git_tags",
    "log_artifact_dir",
    "log_store_input",
    "log_text",
    "log_values",
    "open_run",
    "relative_database",
    "resolve_uri",
    "set_tags",
]
