#!/usr/bin/env bash
# MLflow 3.17.2, SQLite store: a model can be logged as a run's input any number of times, but as its output once.
#
# A good guess is that both ignore a repetition, as parameters with the same value and data sets do. The second
# `log_outputs` of one model raises MlflowException BAD_REQUEST with the text of the database's error: "UNIQUE constraint
# failed: inputs.source_type, ...". So a resumed run has to look at `run.outputs` before it links its model.
#
# Also seen here: a metric point that the run has already (same step, time and value), logged again with model_id and a
# data set, appears beside the model, and the run's history still has one point.
#
# Prints: input twice: 1 link / output twice: BAD_REQUEST UNIQUE / points in the run: 1, beside the model: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mlflow==3.17.2
MLFLOW_DISABLE_TELEMETRY=true venv/bin/python - <<'PYTHON' 2>/dev/null
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException

client = MlflowClient("sqlite:///mlflow.db")
experiment = client.create_experiment("e", artifact_location="artifacts")
run = client.create_run(experiment).info.run_id
model = client.create_logged_model(experiment, name="m", source_run_id=run).model_id

for _ in range(2):
    client.log_inputs(run, models=[LoggedModelInput(model)])
linked = client.get_run(run).inputs.model_inputs
print(f"input twice: {len(linked)} link")
assert len(linked) == 1

client.log_outputs(run, [LoggedModelOutput(model, 7)])
try:
    client.log_outputs(run, [LoggedModelOutput(model, 7)])
except MlflowException as error:
    print(f"output twice: {error.error_code} {'UNIQUE' if 'UNIQUE constraint failed' in str(error) else error}")
    assert error.error_code == "BAD_REQUEST"
else:
    raise SystemExit("output twice: taken, which is new")

client.log_batch(run, metrics=[Metric("loss", 1.5, 1000, 7)])
data = {"dataset_name": "d", "dataset_digest": "12345678"}
client.log_batch(run, metrics=[Metric("loss", 1.5, 1000, 7, model_id=model, run_id=run, **data)])
points, shown = client.get_metric_history(run, "loss"), client.get_logged_model(model).metrics
print(f"points in the run: {len(points)}, beside the model: {len(shown)}")
assert (len(points), len(shown)) == (1, 1)
PYTHON
