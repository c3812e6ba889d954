"""One migrated MLflow database for all tests that need one: making it takes seconds, copying it does not."""

import shutil

import pytest


@pytest.fixture(scope="session")
def _empty_mlflow_database(tmp_path_factory):
    from infra.mlflow_client import client_of

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client_of(f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def mlflow_root(_empty_mlflow_database, tmp_path, monkeypatch):
    """A folder with an empty mlflow.db, and no MLflow settings in the environment."""
    for name in ["TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"]:
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # servers that are not there fail at once
    shutil.copy(_empty_mlflow_database, tmp_path / "mlflow.db")
    return tmp_path
