"""Runs in MLflow, and the log of metrics that MLflow mirrors."""

from infra.tracking.linked import (
    LinkedDataset,
    LinkedModel,
    link_dataset,
    link_trained_model,
    link_used_model,
    log_values,
)
from infra.tracking.mlflow_client import NOT_TRACKED, RunHandle
from infra.tracking.mlflow_runs import (
    TrackingConfig,
    finish,
    git_tags,
    log_artifact_dir,
    log_text,
    open_run,
    relative_database,
    resolve_uri,
    set_note,
    set_tags,
)

__all__ = [
    "NOT_TRACKED",
    "LinkedDataset",
    "LinkedModel",
    "RunHandle",
    "TrackingConfig",
    "finish",
    "git_tags",
    "link_dataset",
    "link_trained_model",
    "link_used_model",
    "log_artifact_dir",
    "log_text",
    "log_values",
    "open_run",
    "relative_database",
    "resolve_uri",
    "set_note",
    "set_tags",
]
