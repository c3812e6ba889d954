"""What a run read and what it made, as MLflow links it: datasets and models.

A model is known by the digest of its weights, wherever it lies: a run that evaluates it and the run that trained it
show the same entry of the page of models. MLflow compares datasets by name and digest.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra import storage
from infra.tracking.mlflow_client import RunHandle, best_effort, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_DIGEST_CHARACTERS = 8  # as MLflow's own have, and as its table of runs shows without cutting them
_MODEL_DIGEST, _MODEL_URL = "glm.model_digest", "glm.url"


@dataclass(frozen=True)
class LinkedDataset:
    """Data that a run reads. Equal digests mean equal data."""

    name: str
    digest: str
    """Hexadecimal; MLflow shows its first 8 characters."""
    url: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What MLflow shows of it: the texts and numbers among these values."""


@dataclass(frozen=True)
class LinkedModel:
    """A model folder. Equal digests mean equal weights."""

    name: str
    digest: str
    url: str
    tags: Mapping[str, str] = field(default_factory=dict)
    """What else is known of it, such as its size."""


def link_dataset(handle: RunHandle, dataset: LinkedDataset, *, context: str) -> None:
    """Link data as an input of the run. context: what for, such as "pretraining" or "evaluation"."""

    def send(client: MlflowClient) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        scalars = {key: value for key, value in dataset.profile.items() if isinstance(value, str | int | float)}
        entry = Dataset(
            name=dataset.name,
            digest=dataset.digest[:_DIGEST_CHARACTERS],
            source_type="local" if storage.is_local(dataset.url) else dataset.url.split("://")[0],
            source=json.dumps({"uri": dataset.url}),
            profile=json.dumps({"digest": dataset.digest, **scalars}),
        )
        client.log_inputs(handle.run_id, datasets=[DatasetInput(entry, [InputTag("mlflow.data.context", context)])])

    best_effort(handle, "log the dataset", send)


def link_trained_model(handle: RunHandle, model: LinkedModel, *, step: int) -> str | None:
    """Link a model as an output of the run, made at this optimizer step. Returns MLflow's id of it; None: MLflow did
    not take it, which is a warning, or the run is not tracked. The same call again changes nothing.
    """

    def send(client: MlflowClient) -> str:
        from mlflow.entities import LoggedModelOutput

        outputs = client.get_run(handle.run_id).outputs
        linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
        known = _known(client, handle, model, made_by=handle.run_id)
        entry = known or _create(client, handle, model, made_by=handle.run_id)
        if entry.model_id not in linked:  # MLflow takes an output once: a second time is an error of its database
            client.log_outputs(handle.run_id, [LoggedModelOutput(entry.model_id, step)])
        return entry.model_id

    return best_effort(handle, "link the model", send)


def link_used_model(handle: RunHandle, model: LinkedModel) -> str | None:
    """Link a model as an input of the run: the entry that its training made in this experiment, or else a new one.
    Returns as `link_trained_model`; its id goes with the metrics that were measured on it (`log_values`).
    """

    def send(client: MlflowClient) -> str:
        from mlflow.entities import LoggedModelInput

        entry = _known(client, handle, model) or _create(client, handle, model)
        client.log_inputs(handle.run_id, models=[LoggedModelInput(entry.model_id)])
        return entry.model_id

    return best_effort(handle, "link the model", send)


def log_values(
    handle: RunHandle,
    values: Mapping[str, float],
    *,
    step: int = 0,
    seconds: float | None = None,
    model_id: str | None = None,
    dataset: LinkedDataset | None = None,
) -> None:
    """Log metrics of the run, at once. model_id, dataset: what they were measured on; MLflow shows them beside the
    model too, a column per dataset. seconds: when, since 1970; a point that the run has already, of equal step, time
    and value, is not logged a second time.
    """

    def send(client: MlflowClient) -> None:
        from mlflow.entities import Metric

        measured_on = {"model_id": model_id, "run_id": handle.run_id if model_id else None}
        if dataset:
            digest = dataset.digest[:_DIGEST_CHARACTERS]
            measured_on |= {"dataset_name": dataset.name, "dataset_digest": digest}
        at = round((time.time() if seconds is None else seconds) * 1000)
        points = [Metric(key, float(value), at, step, **measured_on) for key, value in values.items()]
        client.log_batch(handle.run_id, metrics=points)

    best_effort(handle, "log metrics", send)


def _known(
    client: MlflowClient, handle: RunHandle, model: LinkedModel, *, made_by: str | None = None
) -> LoggedModel | None:
    """The newest entry of the experiment with these weights; made_by: of this run alone."""
    same = f"tags.`{_MODEL_DIGEST}` = '{model.digest}'"
    if made_by:
        same += f" AND source_run_id = '{made_by}'"
    found = client.search_logged_models([handle.experiment_id], same, max_results=1)
    return found[0] if found else None


def _create(client: MlflowClient, handle: RunHandle, model: LinkedModel, *, made_by: str | None = None) -> LoggedModel:
    entry = client.create_logged_model(
        handle.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", model.name),  # which MLflow refuses
        source_run_id=made_by,
        tags={_MODEL_DIGEST: model.digest, _MODEL_URL: without_password(model.url), **model.tags},
    )
    return client.finalize_logged_model(entry.model_id, "READY")
