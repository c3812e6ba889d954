#!/usr/bin/env bash
# MLflow 3.17.2, SQLite store: `search_runs` gives runs without the models that they have read.
#
# A good guess is that a run from `search_runs` holds what `get_run` of its id holds. Parameters, tags, metrics, data
# sets and the models that the run made (`outputs.model_outputs`) are the same, but `inputs.model_inputs` is empty in what
# the search returns. So who looks for the runs that used a model has to fetch each run by its id.
#
# Prints: search: 1 data set, 0 models read, 1 made / get: 1 data set, 1 models read, 1 made
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mlflow==3.17.2
MLFLOW_DISABLE_TELEMETRY=true venv/bin/python - <<'PYTHON' 2>/dev/null
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput

client = MlflowClient("sqlite:///mlflow.db")
experiment = client.create_experiment("e", artifact_location="artifacts")
run = client.create_run(experiment).info.run_id
read, made = (client.create_logged_model(experiment, name=name, source_run_id=run).model_id for name in ("a", "b"))
data = DatasetInput(Dataset("d", "12345678", "local", "{}"), [])
client.log_inputs(run, datasets=[data], models=[LoggedModelInput(read)])
client.log_outputs(run, [LoggedModelOutput(made, 7)])

(searched,), got = client.search_runs([experiment]), client.get_run(run)
counts = {}
for name, one in (("search", searched), ("get", got)):
    models_made = one.outputs.model_outputs if one.outputs else []
    counts[name] = (len(one.inputs.dataset_inputs), len(one.inputs.model_inputs or []), len(models_made))
    print("{}: {} data set, {} models read, {} made".format(name, *counts[name]))
assert counts == {"search": (1, 0, 1), "get": (1, 1, 1)}
PYTHON
