"""Runs in MLflow: create or resume one by its id, describe it, finish it. `MetricLog` logs the points of a run.

Uses MlflowClient with an explicit URI and run id, never the process-wide active run, so that several runs can be open.
Importing mlflow takes 1.5 s and creating its database a few seconds more: both happen at the first call, not at import.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from infra import storage
from infra.console import Console
from infra.errors import InfrastructureError, UserError
from infra.tracking import own_tags
from infra.tracking.mlflow_client import (
    NOT_TRACKED,
    RunHandle,
    best_effort,
    client_of,
    first_line,
    refusal,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "RunHandle",
    "TrackingConfig",
    "finish",
    "git_tags",
    "log_artifact_dir",
    "log_text",
    "open_run",
    "relative_database",
    "resolve_uri",
    "set_note",
    "set_tags",
]

_DEFAULT_EXPERIMENT = "glm"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
# Limits of MLflow's servers.
_PARAMS_PER_REQUEST, _PARAM_CHARACTERS, _NOTE_CHARACTERS = 100, 6000, 8000


@dataclass
class TrackingConfig:
    enabled: bool = True
    """Record runs in MLflow."""
    required: bool = True
    """Stop if MLflow cannot be reached at the start. false: warn, and go on without it."""
    uri: str | None = None
    """Tracking server. Default: MLFLOW_TRACKING_URI, or else an SQLite file beside the runs."""
    experiment: str = _DEFAULT_EXPERIMENT
    """Experiment that groups the runs. MLFLOW_EXPERIMENT_NAME replaces the default."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tags of the run, for filters of your own: {team: search}."""


def open_run(
    config: TrackingConfig,
    *,
    name: str,
    run_dir: str,
    params: dict[str, str],
    tags: dict[str, str],
    run_id: str | None,
    default_root: str,
    take_over: bool = True,
    experiment_suffix: str = "",
    began_at: float | None = None,
    warn: Callable[[str], None] | None = None,
) -> RunHandle:
    """Create a run, or continue `run_id`. Parameters are logged at creation alone: MLflow refuses to change them.

    take_over: continue a run that MLFLOW_RUN_ID names, too. default_root: where the SQLite file lies by default.
    experiment_suffix: behind the experiment's name: an experiment beside it, for runs that would be in its way.
    began_at: when the run began, in seconds since the epoch; by default now.

    Raises InfrastructureError if MLflow cannot be reached; if config.required is off, warns and tracks nothing.
    """
    not_tracked = replace(NOT_TRACKED, run_id=run_id or "")
    if not config.enabled:
        return not_tracked
    warn = warn or Console().warn
    uri = _resolve(config, default_root)
    try:
        with _one_at_a_time(uri):
            client = client_of(uri)
            tags = {**config.tags, **tags, "glm.run_dir": run_dir}  # a run that goes on may have moved
            resumed = _resume(
                client, uri, run_id or (os.environ.get("MLFLOW_RUN_ID") if take_over else None), tags, warn
            )
            if resumed:
                return resumed
            experiment_id = _experiment(client, uri, config, experiment_suffix)
            return _create(client, uri, experiment_id, name, tags, params, began_at)
    except UserError:
        raise
    except Exception as exc:
        why, (what, try_) = first_line(exc), refusal(exc, uri)
        if config.required:
            raise InfrastructureError(what, why=why, try_=try_) from exc
        warn(f"{what}; this run is not tracked there: {why}")
        return not_tracked


def resolve_uri(config: TrackingConfig, default_root: str) -> str | None:
    """Where `open_run` records a run, or None if tracking is off. Contacts no server. UserError if no URI is known."""
    return _resolve(config, default_root) if config.enabled else None


def relative_database(config: TrackingConfig) -> str | None:
    """The setting that names an SQLite database by a relative path, such as `MLFLOW_TRACKING_URI=sqlite:///x.db`; None
    if there is no such setting.
    """
    key, uri = ("tracking.uri", config.uri) if config.uri else (_URI_VARIABLE, os.environ.get(_URI_VARIABLE) or "")
    path = _database(uri)
    return f"{key}={uri}" if config.enabled and path and not os.path.isabs(path) else None


def set_tags(handle: RunHandle, tags: dict[str, str]) -> None:
    def send(client: MlflowClient) -> None:
        from mlflow.entities import RunTag

        client.log_batch(handle.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    best_effort(handle, "set tags", send)


def set_note(handle: RunHandle, text: str, tags: dict[str, str]) -> None:
    """Describe the run by a note at the top of its page, in Markdown, and by tags. A note that a person has changed or
    deleted stays as it is.
    """

    def send(client: MlflowClient) -> None:
        from mlflow.entities import RunTag

        note = own_tags.due(client.get_run(handle.run_id).data.tags, {own_tags.NOTE: text[:_NOTE_CHARACTERS]})
        client.log_batch(handle.run_id, tags=[RunTag(key, value) for key, value in (tags | note).items()])

    best_effort(handle, "describe the run", send)


def log_text(handle: RunHandle, text: str, path: str) -> None:
    """Log one text as the artifact `path`."""
    best_effort(handle, f"log {path}", lambda client: client.log_text(handle.run_id, text, path))


def log_artifact_dir(handle: RunHandle, folder: str, path: str | None = None) -> None:
    """Log the files below `folder`, a path or URL, as artifacts below `path`."""

    def send(client: MlflowClient) -> None:
        with storage.local_copy(folder) as local:
            client.log_artifacts(handle.run_id, local, path)

    best_effort(handle, f"log {folder}", send)


def finish(handle: RunHandle, status: Literal["finished", "interrupted", "failed"]) -> None:
    """Close the run. One that was interrupted waits to be continued: MLflow's word for such runs is SCHEDULED, and its
    UI shows KILLED like FAILED, as an error.
    """
    in_mlflow = {"finished": "FINISHED", "interrupted": "SCHEDULED", "failed": "FAILED"}[status]
    best_effort(handle, "close the run", lambda client: client.set_terminated(handle.run_id, in_mlflow))


def git_tags(folder: str) -> dict[str, str]:
    """Tags with the commit that runs, and whether files differ from it; empty outside git.

    Ray leaves `.git` out of a job's files: in a job it is the commit in the submission's metadata, if there is one.
    """
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    if commit is None or changes is None:
        commit = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {}).get("commit")
        return {"mlflow.source.git.commit": commit} if commit else {}
    return {"mlflow.source.git.commit": commit, "glm.git_dirty": "true" if changes else "false"}


def _resolve(config: TrackingConfig, default_root: str) -> str:
    uri = config.uri or os.environ.get(_URI_VARIABLE)
    if not uri:
        if not storage.is_local(default_root):
            try_ = "--tracking.uri=http://..., or MLFLOW_TRACKING_URI, or --tracking.enabled=false"
            raise UserError("tracking.uri is required", why=f"{default_root} cannot hold an SQLite database", try_=try_)
        return _sqlite(os.path.join(storage.absolute(default_root), "mlflow.db"))
    path = _database(uri)
    # The working directories of driver and workers differ: a relative path would name two databases.
    _, mark, query = uri.partition("?")
    return f"{_sqlite(os.path.abspath(path))}{mark}{query}" if path else uri


def _database(uri: str) -> str | None:
    """The path of the database in a URI of SQLite; it stands there with %3F for a question mark, as SQLAlchemy 2.1
    reads it.
    """
    return unquote(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _sqlite(path: str) -> str:
    return f"sqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


@contextlib.contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Keep two commands that start together from both creating the database."""
    path = _database(uri)
    if path is None:
        yield
        return
    import fcntl

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resume(
    client: MlflowClient, uri: str, run_id: str | None, tags: dict[str, str], warn: Callable[[str], None]
) -> RunHandle | None:
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        warn(f"the MLflow run {run_id} no longer exists at {without_password(uri)}; a new one is created")
        return None
    client.update_run(run_id, status="RUNNING")
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    return RunHandle(uri, run_id, run.info.experiment_id)


def _create(
    client: MlflowClient,
    uri: str,
    experiment_id: str,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    began_at: float | None,
) -> RunHandle:
    from mlflow.entities import Param

    source = {"mlflow.source.name": os.path.basename(sys.argv[0]), "mlflow.source.type": "LOCAL"}
    began_ms = None if began_at is None else int(1000 * began_at)
    run = client.create_run(experiment_id, start_time=began_ms, run_name=name, tags={**source, **tags})
    rows = [Param(key, value[:_PARAM_CHARACTERS]) for key, value in params.items()]
    for first in range(0, len(rows), _PARAMS_PER_REQUEST):
        client.log_batch(run.info.run_id, params=rows[first : first + _PARAMS_PER_REQUEST])
    return RunHandle(uri, run.info.run_id, experiment_id)


def _experiment(client: MlflowClient, uri: str, config: TrackingConfig, suffix: str) -> str:
    name, known = config.experiment, None
    if name == _DEFAULT_EXPERIMENT:
        name, known = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name, os.environ.get("MLFLOW_EXPERIMENT_ID")
    experiment_id = known or _named(client, uri, name)  # first, so that it is number 1 of a new database
    return _named(client, uri, client.get_experiment(experiment_id).name + suffix) if suffix else experiment_id


def _named(client: MlflowClient, uri: str, name: str) -> str:
    """The experiment of this name, which is created where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        try_ = f"--tracking.experiment=ANOTHER, or: mlflow experiments restore -x {found.experiment_id}"
        raise UserError(f"the MLflow experiment {name!r} was deleted", try_=try_)
    if found:
        return found.experiment_id
    path = _database(uri)
    # MLflow would put artifacts below the current directory, which vanishes with a Ray job.
    place = os.path.join(os.path.dirname(path), "mlartifacts") if path else None
    if place and set("%#?") & set(place):  # MLflow takes a path for a URL and decodes it
        place = Path(place).as_uri()
    try:
        return client.create_experiment(name, artifact_location=place)
    except MlflowException as exc:
        made_meanwhile = exc.error_code == "RESOURCE_ALREADY_EXISTS" and client.get_experiment_by_name(name)
        if not made_meanwhile:
            raise
        return made_meanwhile.experiment_id


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
