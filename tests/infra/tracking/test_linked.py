"""Datasets and models as MLflow links them to runs, against a real MLflow."""

import json

import pytest

from infra.tracking import (
    LinkedDataset,
    LinkedModel,
    RunHandle,
    TrackingConfig,
    link_dataset,
    link_trained_model,
    link_used_model,
    log_values,
    open_run,
)
from infra.tracking.mlflow_client import client_of

pytestmark = pytest.mark.integration

STORE = LinkedDataset("my store", "ab" * 32, "/data/my store", {"tokens": 5, "shards": [1, 2]})
MODEL = LinkedModel("base-1.2", "cd" * 16, "/runs/base/model", {"glm.size": "tiny"})


def begin(root, name: str = "x") -> RunHandle:
    return open_run(TrackingConfig(), name=name, run_dir="x", params={}, tags={}, run_id=None, default_root=str(root))


def test_a_dataset_has_a_short_digest_and_its_scalars(mlflow_root):
    handle = begin(mlflow_root)
    for _ in range(2):  # as on a resume
        link_dataset(handle, STORE, context="pretraining")
    (found,) = client_of(handle.uri).get_run(handle.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source_type) == ("my store", "abababab", "local")
    assert json.loads(found.dataset.source) == {"uri": "/data/my store"}
    assert json.loads(found.dataset.profile) == {"digest": "ab" * 32, "tokens": 5}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "pretraining")]


def test_a_trained_model_is_one_output_of_its_run_however_often_it_is_linked(mlflow_root):
    handle = begin(mlflow_root)
    model_id = link_trained_model(handle, MODEL, step=7)
    assert link_trained_model(handle, MODEL, step=7) == model_id
    client = client_of(handle.uri)
    (output,) = client.get_run(handle.run_id).outputs.model_outputs
    assert (output.model_id, output.step) == (model_id, 7)
    entry = client.get_logged_model(model_id)
    assert (entry.name, entry.source_run_id, entry.status) == ("base-1-2", handle.run_id, "READY")
    assert entry.tags == {"glm.model_digest": MODEL.digest, "glm.url": MODEL.url, "glm.size": "tiny"}


def test_an_evaluation_shares_the_entry_of_the_model_that_was_trained(mlflow_root):
    training, evaluation = begin(mlflow_root, "training"), begin(mlflow_root, "evaluation")
    trained = link_trained_model(training, MODEL, step=7)
    elsewhere = LinkedModel("copy", MODEL.digest, "s3://models/copy")
    assert [link_used_model(evaluation, elsewhere) for _ in range(2)] == [trained, trained]
    stranger = link_used_model(evaluation, LinkedModel("authors", "ef" * 16, "/models/glm"))
    assert stranger not in (None, trained)
    inputs = client_of(evaluation.uri).get_run(evaluation.run_id).inputs.model_inputs
    assert {one.model_id for one in inputs} == {trained, stranger}


def test_a_score_stands_beside_its_model_and_data_and_once_in_its_run(mlflow_root):
    handle = begin(mlflow_root)
    model_id = link_used_model(handle, MODEL)
    log_values(handle, {"eval/sst2/accuracy": 80.0}, step=3, seconds=1000.5)
    log_values(handle, {"eval/sst2/accuracy": 80.0}, step=3, seconds=1000.5, model_id=model_id, dataset=STORE)
    client = client_of(handle.uri)
    (point,) = client.get_metric_history(handle.run_id, "eval/sst2/accuracy")
    assert (point.value, point.step, point.timestamp) == (80.0, 3, 1_000_500)
    (shown,) = client.get_logged_model(str(model_id)).metrics or []
    assert (shown.key, shown.value) == ("eval/sst2/accuracy", 80.0)
    assert (shown.dataset_name, shown.dataset_digest) == ("my store", "abababab")


def test_a_dead_server_costs_a_warning(capsys):
    assert link_used_model(RunHandle("http://127.0.0.1:9", "r", "1"), MODEL) is None
    assert "did not link the model" in capsys.readouterr().out
