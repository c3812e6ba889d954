"""A tracking server that dies while a run trains: nothing stops, and in the end it has each point once."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import faults, small_run
from helpers.faults import STEPS, Trial
from mlflow import MlflowClient
from mlflow.entities import Run

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]


class Server:
    """`mlflow server` on a port of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        places = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination",
            f"{self.folder}/a",
        ]
        output = open(self.folder / "server.log", "ab")  # noqa: SIM115 (the process keeps it)
        self.process = subprocess.Popen([*command, *places], stdout=output, stderr=output, start_new_session=True)
        faults.until(self._answers, lambda: (self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/health", timeout=1).status == 200
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    made.start()
    yield made
    made.kill()


def logged(server: Server) -> list[tuple[int, float]]:
    points = MlflowClient(server.url).get_metric_history(the_run(server).info.run_id, "train/loss")
    return sorted((point.step, point.value) for point in points)


def status(server: Server) -> str:
    return the_run(server).info.status


def the_run(server: Server) -> Run:
    client = MlflowClient(server.url)
    (run,) = client.search_runs([client.get_experiment_by_name("glm").experiment_id], "tags.`glm.phase` = 'pretrain'")
    return run


@pytest.mark.parametrize("back", ["during the run", "after the run"])
def test_a_server_that_dies_stops_nothing_and_lacks_nothing_in_the_end(server, tmp_path, back):
    corpus = small_run.write_corpus(tmp_path / "corpus")
    steps = 100_000 if back == "during the run" else STEPS
    more = ("--tracking.enabled=true", f"--tracking.uri={server.url}", f"--train.steps={steps}")
    trial = Trial(corpus, tmp_path / "runs", "run", "1", more)
    driver = trial.start()
    assert driver.reach(8), trial.output()
    server.kill()
    if back == "during the run":
        assert driver.reach(20), trial.output()
        server.start()
        away = trial.step()
        faults.until(lambda: max(logged(server), default=(0,))[0] > away, trial.output)  # while the same driver goes on
        faults.terminate_driver(driver)
    else:
        assert driver.wait() == 0, trial.output()
        server.start()
        trial.run()  # a finished run: sends what is lacking
    assert logged(server) == sorted(trial.losses().items())
    assert [step for step, _ in logged(server)] == list(range(1, trial.step() + 1))
    assert status(server) == ("SCHEDULED" if back == "during the run" else "FINISHED")
