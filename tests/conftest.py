"""What all tests share: one local Ray, a tiny token store, the folder of real data, and the --run-slow switch."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from helpers.patience import PATIENCE

# Before torch is loaded: on a busy machine two threads that spin while they wait for each other make tiny steps a
# hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts a command in the background with Ctrl-C ignored, which what the tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a busy machine is no failure.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=40)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow (minutes each)")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("thorough" if config.getoption("--run-slow") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Files that take long first: tests run side by side, a file in one process, and the last one should be short.
    longest: dict[str, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds = limit.args[0] if limit else (1 if item.get_closest_marker("ray") else 0)
        longest[item.nodeid.partition("::")[0]] = max(seconds, longest.get(item.nodeid.partition("::")[0], 0))
    items.sort(key=lambda item: -longest[item.nodeid.partition("::")[0]])
    if PATIENCE != 1:
        usual = float(config.getini("timeout"))
        for item in items:
            limit = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout((limit.args[0] if limit else usual) * PATIENCE), append=False)
    if config.getoption("--run-slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):  # not a keyword: folders are keywords too
            item.add_marker(pytest.mark.skip(reason="slow: needs --run-slow"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for the whole run; tests that use it are marked `ray`."""
    import logging

    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", "local")  # as infra.cluster.connect does it
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=256 << 20,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An empty bucket of an S3 that this process starts, by way of AWS_* variables: processes started later see it."""
    pytest.importorskip("moto", reason="needs the extra dev")
    s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")
    from helpers import servers

    with servers.s3_server() as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        environment.setenv("AWS_ACCESS_KEY_ID", "tests")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("tests-bucket")
        yield "s3://tests-bucket"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora, vocabularies and golden values beside the checkout."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared"
    if not folder.is_dir():
        pytest.skip("the folder `shared` with real data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """A handmade WordPiece tokenizer (see `small.PIECES`)."""
    from helpers import small

    return small.tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory, tiny_tokenizer):
    """A published store of 120 documents: 2 training shards with several row groups, 1 validation shard."""
    from helpers import small

    return small.store(tmp_path_factory.mktemp("tiny"), tiny_tokenizer)


@pytest.fixture(scope="session")
def empty_mlflow_database(tmp_path_factory):
    """Migrated once: making it takes seconds, copying it does not."""
    from infra.tracking.mlflow_client import client_of

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client_of(f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def mlflow_root(empty_mlflow_database, tmp_path, monkeypatch):
    """A folder with an empty mlflow.db, and no MLflow settings in the environment."""
    for name in ["TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"]:
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # servers that are not there fail at once
    shutil.copy(empty_mlflow_database, tmp_path / "mlflow.db")
    return tmp_path
