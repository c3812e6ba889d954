"""Runs against a real MLflow: an SQLite database, and servers that are not there."""

import contextlib
import http.server
import subprocess
import threading
from collections.abc import Iterator

import pytest

from infra.errors import InfrastructureError, UserError
from infra.tracking import (
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
from infra.tracking.mlflow_client import client_of, without_password
from infra.tracking.mlflow_runs import RunHandle

pytestmark = pytest.mark.integration

DEAD = "http://me:secret@127.0.0.1:9"


def start(root, config=None, run_id=None, params=None, **kwargs) -> RunHandle:
    return open_run(
        config or TrackingConfig(),
        name="base-1234",
        run_dir=str(root / "base-1234"),
        params=params or {"optim.lr": "0.1"},
        tags={"glm.phase": "pretrain"},
        run_id=run_id,
        default_root=str(root),
        **kwargs,
    )


def test_a_run_is_created_with_params_and_tags(mlflow_root):
    params = {f"section.key_{i}": str(i) for i in range(250)} | {"long": "x" * 7000}
    handle = start(mlflow_root, params=params)
    assert handle.uri == f"sqlite:///{mlflow_root}/mlflow.db"
    run = client_of(handle.uri).get_run(handle.run_id)
    assert run.data.params == params | {"long": "x" * 6000}
    assert (run.info.run_name, run.info.status) == ("base-1234", "RUNNING")
    assert run.data.tags["glm.phase"] == "pretrain"
    assert run.info.artifact_uri.startswith(f"{mlflow_root}/mlartifacts/")
    assert client_of(handle.uri).get_experiment(handle.experiment_id).name == "glm"


def test_a_run_has_the_tags_of_its_settings_beside_its_own_which_they_do_not_replace(mlflow_root):
    run_id = None
    for team in ("search", "speech"):  # new, and continued
        handle = start(mlflow_root, TrackingConfig(tags={"team": team, "glm.phase": "mine"}), run_id=run_id)
        run_id = handle.run_id
        tags = client_of(handle.uri).get_run(run_id).data.tags
        assert (tags["team"], tags["glm.phase"]) == (team, "pretrain")


def test_a_run_is_resumed_by_id_without_logging_params_again(mlflow_root):
    handle = start(mlflow_root)
    finish(handle, "failed")
    assert client_of(handle.uri).get_run(handle.run_id).info.status == "FAILED"
    assert start(mlflow_root, run_id=handle.run_id, params={"optim.lr": "0.2"}) == handle
    run = client_of(handle.uri).get_run(handle.run_id)
    assert (run.info.status, run.data.params) == ("RUNNING", {"optim.lr": "0.1"})


@pytest.mark.parametrize("gone", ["deleted", "unknown"])
def test_a_run_that_is_gone_is_made_again_and_said_so(mlflow_root, gone):
    handle, warnings = start(mlflow_root), []
    client_of(handle.uri).delete_run(handle.run_id)
    run_id = handle.run_id if gone == "deleted" else "0" * 32
    again = start(mlflow_root, run_id=run_id, warn=warnings.append)
    assert again.run_id not in (handle.run_id, run_id)
    assert len(warnings) == 1
    assert run_id in warnings[0]


@contextlib.contextmanager
def refusing(status: int, body: bytes) -> Iterator[str]:
    """A server in front of MLflow that answers every request with this status, as a proxy or a login does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format, *args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "what", "advice"),
    [
        (401, b"You are not authenticated.", "asks who you are", "MLFLOW_TRACKING_USERNAME"),
        (401, b'{"error_code": "UNAUTHENTICATED", "message": "no"}', "asks who you are", "MLFLOW_TRACKING_TOKEN"),
        (403, b"Permission denied", "does not permit this", "--tracking.experiment=<name>"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "does not permit this", "permission to edit"),
        (
            400,
            b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}',
            "refuses the run",
            "correct what it names",
        ),
        (404, b"<html>no such page</html>", "has no such page", "another server answers there"),
    ],
)
def test_what_mlflow_refuses_has_its_own_advice(mlflow_root, status, body, what, advice):
    with refusing(status, body) as uri:
        with pytest.raises(InfrastructureError) as caught:
            start(mlflow_root, TrackingConfig(uri=uri))
        warnings = []
        handle = start(mlflow_root, TrackingConfig(uri=uri, required=False), warn=warnings.append)
    assert caught.value.message.startswith(f"MLflow at {uri} {what}")
    assert advice in caught.value.try_
    assert "--tracking.required=false" in caught.value.try_
    assert not handle.enabled
    assert [text for text in warnings if what in text and "not tracked there" in text]


def test_what_mlflow_itself_refuses_is_said_so(mlflow_root):
    with pytest.raises(InfrastructureError, match="refuses the run") as caught:
        start(mlflow_root, TrackingConfig(experiment="x" * 600))
    assert "--tracking.experiment" in caught.value.try_


def test_a_run_may_have_begun_before_it_is_recorded(mlflow_root):
    handle = start(mlflow_root, began_at=1_700_000_000.25)
    assert client_of(handle.uri).get_run(handle.run_id).info.start_time == 1_700_000_000_250


def test_a_dead_server_is_an_infrastructure_error_that_keeps_the_password(mlflow_root):
    with pytest.raises(InfrastructureError) as caught:
        start(mlflow_root, TrackingConfig(uri=DEAD))
    assert caught.value.message == "MLflow at http://***@127.0.0.1:9 does not answer"
    assert "tracking.required=false" in caught.value.try_
    assert without_password("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


def test_a_dead_server_that_is_not_required_is_one_warning(mlflow_root):
    warnings = []
    handle = start(mlflow_root, TrackingConfig(uri=DEAD, required=False), warn=warnings.append)
    assert not handle.enabled
    assert len(warnings) == 1
    assert "secret" not in warnings[0]


@pytest.mark.parametrize("config", [TrackingConfig(enabled=False), TrackingConfig(uri=DEAD, required=False)])
def test_a_run_that_is_not_tracked_this_time_keeps_its_id(mlflow_root, config):
    before = start(mlflow_root)
    handle = start(mlflow_root, config, run_id=before.run_id, warn=lambda text: None)
    assert (handle.enabled, handle.run_id) == (False, before.run_id)
    assert start(mlflow_root, config, warn=lambda text: None).run_id == ""
    assert start(mlflow_root, run_id=handle.run_id) == before
    assert start(mlflow_root, run_id="").run_id not in ("", before.run_id)


def test_what_is_off_does_nothing(mlflow_root):
    handle = start(mlflow_root, TrackingConfig(enabled=False, uri=DEAD))
    assert not handle.enabled
    set_tags(handle, {"a": "b"})
    log_text(handle, "x", "x.txt")
    finish(handle, "finished")


def test_the_environment_names_server_and_experiment(mlflow_root, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_root}/mlflow.db")
    elsewhere = mlflow_root / "elsewhere"
    assert start(elsewhere).uri == f"sqlite:///{mlflow_root}/mlflow.db"
    assert not elsewhere.exists()
    for experiment, name in [("glm", "mine"), ("other", "other")]:
        handle = start(mlflow_root, TrackingConfig(experiment=experiment))
        assert client_of(handle.uri).get_experiment(handle.experiment_id).name == name


def test_a_relative_database_becomes_absolute(mlflow_root, monkeypatch):
    monkeypatch.chdir(mlflow_root)
    assert start(mlflow_root, TrackingConfig(uri="sqlite:///mlflow.db")).uri == f"sqlite:///{mlflow_root}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "environment", "told"),
    [
        ("sqlite:///x.db", None, "tracking.uri=sqlite:///x.db"),
        ("sqlite:///../x.db", "sqlite:////a/x.db", "tracking.uri=sqlite:///../x.db"),
        (None, "sqlite:///x.db", "MLFLOW_TRACKING_URI=sqlite:///x.db"),
        ("sqlite:////a/x.db", "sqlite:///x.db", None),
        (None, "sqlite:////a/x.db", None),
        ("http://mlflow:5000", "sqlite:///x.db", None),
        (None, None, None),
    ],
)
def test_a_relative_database_is_named_as_it_was_given(monkeypatch, uri, environment, told):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert relative_database(TrackingConfig(uri=uri)) == told
    assert relative_database(TrackingConfig(uri=uri, enabled=False)) is None


def test_the_database_of_a_file_url_lies_at_its_path(mlflow_root):
    handle = open_run(
        TrackingConfig(), name="x", run_dir="x", params={}, tags={}, run_id=None, default_root=f"file://{mlflow_root}"
    )
    assert handle.uri == f"sqlite:///{mlflow_root}/mlflow.db"
    (mlflow_root / "folder").mkdir()
    (mlflow_root / "folder" / "a.txt").write_text("a")
    log_artifact_dir(handle, f"file://{mlflow_root}/folder", "model")
    assert [item.path for item in client_of(handle.uri).list_artifacts(handle.run_id, "model")] == ["model/a.txt"]


def test_a_deleted_experiment_is_refused_with_the_remedy(mlflow_root):
    handle = start(mlflow_root)
    client_of(handle.uri).delete_experiment(handle.experiment_id)
    with pytest.raises(UserError, match="'glm' was deleted") as caught:
        start(mlflow_root)
    assert "mlflow experiments restore" in caught.value.try_


def test_a_remote_root_cannot_hold_the_database(mlflow_root):
    with pytest.raises(UserError, match=r"tracking\.uri is required"):
        open_run(TrackingConfig(), name="x", run_dir="s3://b/x", params={}, tags={}, run_id=None, default_root="s3://b")


def test_artifacts_and_tags(mlflow_root):
    handle = start(mlflow_root)
    (mlflow_root / "folder").mkdir()
    (mlflow_root / "folder" / "a.txt").write_text("a")
    log_text(handle, "größe", "config.yaml")
    log_artifact_dir(handle, str(mlflow_root / "folder"), "gallery")
    set_tags(handle, {"resumed_from_step": "5"})
    client = client_of(handle.uri)
    run = client.get_run(handle.run_id)
    assert [item.path for item in client.list_artifacts(handle.run_id)] == ["config.yaml", "gallery"]
    assert run.data.tags["resumed_from_step"] == "5"


def test_a_failing_description_is_a_warning(mlflow_root, capsys):
    log_text(RunHandle(DEAD, "x", "0"), "text", "a.txt")
    out = capsys.readouterr().out
    assert out.startswith("warning: MLflow at http://***@127.0.0.1:9 did not log a.txt")


@pytest.mark.parametrize(
    ("status", "told"), [("finished", "FINISHED"), ("interrupted", "SCHEDULED"), ("failed", "FAILED")]
)
def test_how_a_run_ended(mlflow_root, status, told):
    handle = start(mlflow_root)
    finish(handle, status)
    info = client_of(handle.uri).get_run(handle.run_id).info
    assert (info.status, info.end_time >= info.start_time) == (told, True)


def test_a_note_follows_the_run_until_a_person_writes_another(mlflow_root):
    handle = start(mlflow_root)
    client = client_of(handle.uri)

    def note() -> tuple[str, str]:
        tags = client.get_run(handle.run_id).data.tags
        return tags["mlflow.note.content"], tags["glm.status"]

    set_note(handle, "begins", {"glm.status": "running"})
    set_note(handle, "ended", {"glm.status": "finished"})
    assert note() == ("ended", "finished")
    client.set_tag(handle.run_id, "mlflow.note.content", "my best one")
    set_note(handle, "ended again", {"glm.status": "failed"})
    assert note() == ("my best one", "failed")


@pytest.mark.parametrize("named", ["default", "by name", "by id"])
def test_runs_that_are_not_compared_have_an_experiment_beside_the_others(mlflow_root, monkeypatch, named):
    name = "glm" if named == "default" else "mine"
    if named == "by id":
        other = start(mlflow_root, TrackingConfig(experiment="mine"))
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other.experiment_id)
    config = TrackingConfig(experiment="mine") if named == "by name" else None
    one, two = start(mlflow_root, config), start(mlflow_root, config, experiment_suffix="-stores")
    client = client_of(one.uri)
    assert client.get_experiment(one.experiment_id).name == name
    assert client.get_experiment(two.experiment_id).name == f"{name}-stores"


def test_git_tags(tmp_path):
    assert git_tags(str(tmp_path)) == {}
    assert git_tags(str(tmp_path / "none")) == {}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in [["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]]:
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    tags = git_tags(str(tmp_path))
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["glm.git_dirty"] == "false"
    (tmp_path / "new").write_text("")
    assert git_tags(str(tmp_path))["glm.git_dirty"] == "true"


def test_a_job_s_commit_is_what_its_submission_names(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_name": "j", "commit": "abc"}}')
    assert git_tags(str(tmp_path)) == {"mlflow.source.git.commit": "abc"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_name": "j"}}')
    assert git_tags(str(tmp_path)) == {}


@pytest.mark.parametrize("name", ["50% #1 a+b?c=d", "50%20x", "a b [v2]"])
def test_a_database_lies_in_its_folder_whatever_that_is_called(name, tmp_path):
    """SQLAlchemy decodes paths, and takes a question mark for the end of one."""
    from sqlalchemy import make_url

    folder = str(tmp_path / name)
    uri = resolve_uri(TrackingConfig(), folder)
    assert make_url(str(uri)).database == f"{folder}/mlflow.db"
    assert resolve_uri(TrackingConfig(uri=uri), "elsewhere") == uri
    assert resolve_uri(TrackingConfig(uri=f"{uri}?timeout=9"), "elsewhere") == f"{uri}?timeout=9"
