#!/bin/sh
# mlflow 3.17.2 with an SQLite backend: what happens when the folder with the database and its artifacts is moved.
#
# A good guess: the database is a file, so after `mv a b` and sqlite:///.../b/mlflow.db everything is as it was.
# Seen: runs, parameters and metrics are there. Artifacts are not: the database holds the absolute place of each run's
# artifacts. `list_artifacts` gives [] and no error, although the files lie in b; `log_text` makes the folder a again and
# writes there. Changing experiments.artifact_location and runs.artifact_uri in the database brings the files back;
# MLflow 3.17.2 has no call for it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mlflow==3.17.2
cat > moved.py <<'P'
import os
import sqlite3

import mlflow
from mlflow import MlflowClient

root = os.path.join(os.getcwd(), "place")
os.makedirs(f"{root}/a")
client = MlflowClient(f"sqlite:///{root}/a/mlflow.db")
experiment = client.create_experiment("moved", artifact_location=f"{root}/a/artifacts")
run = client.create_run(experiment).info.run_id
client.log_param(run, "lr", "0.1")
client.log_text(run, "one", "one.txt")
os.rename(f"{root}/a", f"{root}/b")

client = MlflowClient(f"sqlite:///{root}/b/mlflow.db")
found = client.get_run(run)
print(mlflow.__version__, found.data.params, found.info.artifact_uri.replace(root, ""))
assert found.data.params == {"lr": "0.1"}
assert found.info.artifact_uri.startswith(f"{root}/a/"), "the old place"
assert client.list_artifacts(run) == [], "none, and no error"
assert not os.path.exists(f"{root}/a")
client.log_text(run, "two", "two.txt")
assert os.path.exists(f"{root}/a"), "the old folder is made again"
assert [file.path for file in client.list_artifacts(run)] == ["two.txt"]

database = sqlite3.connect(f"{root}/b/mlflow.db")
for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
    database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (f"{root}/a/", f"{root}/b/"))
database.commit()
client = MlflowClient(f"sqlite:///{root}/b/mlflow.db")
assert [file.path for file in client.list_artifacts(run)] == ["one.txt"]
print("artifacts stay at the old place until the database says otherwise")
P
venv/bin/python moved.py
# Output: 3.17.2 {'lr': '0.1'} /a/artifacts/<id>/artifacts
#         artifacts stay at the old place until the database says otherwise
