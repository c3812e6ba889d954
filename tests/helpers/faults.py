"""A small run in processes of its own, and what can go wrong with it: for tests that break it and compare the outcome.

A run is `workflows/pretrain.py` as a user starts it: a driver, the local Ray that it starts, and its train workers.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from helpers import small_run
from helpers.patience import PATIENCE

from infra import checkpoint, storage
from infra.tracking.metric_log import Point, read_points
from workflows.runs import history

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
_PATIENCE_S = 120.0 * PATIENCE


@dataclass
class Trial:
    """A run's command and folder. Dropout is on; every step is logged, every fifth saved."""

    corpus: Path
    root: Path
    name: str
    workers: str = "2"
    more: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / self.name

    def command(self) -> list[str]:
        settings = small_run.settings(self.corpus) | {
            "train.steps": STEPS,
            "train.batch_tokens": 2700,
            "train.eval_every": 20,
            "train.checkpoint_every": 5,
            "train.num_workers": self.workers,
            "train.max_failures": 20,
            "run.storage_path": self.root,
            "run.name": self.name,
        }
        return [sys.executable, str(ROOT / "workflows" / "pretrain.py"), *small_run.flags(settings), *self.more]

    def start(self) -> "Driver":
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.environment}
        self.root.mkdir(parents=True, exist_ok=True)
        output = open(self.root / f"{self.name}.out", "ab")  # noqa: SIM115 (the process keeps it)
        before = len(self.output())
        process = subprocess.Popen(self.command(), env=environment, stdout=output, stderr=output, cwd=ROOT)
        return Driver(self, process, before)

    def output(self) -> str:
        path = self.root / f"{self.name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self) -> "Trial":
        """From where it is to its end."""
        assert self.start().wait() == 0, self.output()
        return self

    def step(self) -> int:
        """The last step that was logged."""
        return max((point.step for point in self._points()), default=0)

    def losses(self) -> dict[int, float]:
        return losses(str(self.folder))

    def fingerprints(self) -> dict[int, int]:
        return fingerprints(str(self.folder))

    def worlds(self) -> list[int]:
        """Numbers of workers of the steps, in order, without repetition."""
        worlds = [int(p.values["perf/workers"]) for p in self._points() if "perf/workers" in p.values]
        return [world for i, world in enumerate(worlds) if i == 0 or world != worlds[i - 1]]

    def first_step_of(self, world: int) -> int:
        """The first step that was taken by so many workers."""
        return next(p.step for p in self._points() if p.values.get("perf/workers") == world)

    def weights(self) -> dict[str, torch.Tensor]:
        found = checkpoint.latest(str(self.folder / "checkpoints"))
        assert found is not None
        assert found.step == STEPS
        return checkpoint.load(found.url).model

    def _points(self) -> list[Point]:
        return list(read_points(str(self.folder / "metrics.jsonl")))


@dataclass
class Driver:
    """A driver that runs, and the processes below it."""

    trial: Trial
    process: subprocess.Popen
    told_before: int = 0
    """Characters of output of the drivers before this one."""

    def family(self) -> list[psutil.Process]:
        """All processes that it started."""
        return below(self.process.pid)

    def workers(self) -> list[psutil.Process]:
        """The train workers, oldest first."""
        found = [process for process in self.family() if "RayTrainWorker" in told(process)]
        return sorted(found, key=lambda process: process.pid)

    def reach(self, step: int) -> bool:
        """Wait until this driver has begun and this step is logged; False when the run ends before."""
        with self._ended_on_failure():
            until(lambda: self._is_at(step) or self.process.poll() is not None, self.trial.output)
        return self.process.poll() is None

    def _is_at(self, step: int) -> bool:
        return len(self.trial.output()) > self.told_before and self.trial.step() >= step

    def wait(self) -> int:
        """The exit code, once the driver and the Ray that it started are gone."""
        family = below(self.process.pid)
        with self._ended_on_failure():
            code = self.process.wait(_PATIENCE_S)
        psutil.wait_procs(family, timeout=30)
        return code

    @contextlib.contextmanager
    def _ended_on_failure(self) -> Iterator[None]:
        """Where patience ends, all processes end too: beside them the tests that follow would fail as well."""
        try:
            yield
        except BaseException:
            for process in [*self.family(), self.process]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            raise


def losses(run: str) -> dict[int, float]:
    """Step -> loss, of each step that the run in this folder has logged."""
    points = read_points(storage.join(run, "metrics.jsonl"))
    found = [(point.step, point.values["train/loss"]) for point in points if "train/loss" in point.values]
    assert len(dict(found)) == len(found), "each step is logged once"
    return dict(found)


def fingerprints(run: str) -> dict[int, int]:
    """Step -> fingerprint of its batch, of each step that the run in this folder has logged."""
    return history.fingerprints(history.read_log(run))


def below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def told(process: psutil.Process) -> str:
    """How a process calls itself, as Ray's do (padded with blanks); nothing of one that is gone."""
    try:
        return " ".join(process.cmdline()).strip() or process.name()
    except psutil.Error:
        return ""


def until(happens: Callable[[], bool], tell: Callable[[], str]) -> None:
    """Look often until it happens; AssertionError with what `tell` says after two minutes."""
    limit = time.monotonic() + _PATIENCE_S
    while not happens():
        assert time.monotonic() < limit, tell()
        time.sleep(0.05)


# -- faults: each says whether it struck, and leaves a run that goes on by itself, or one whose driver is gone ---------


def kill_worker(driver: Driver) -> bool:
    return _send(driver.workers()[-1:], signal.SIGKILL)


def kill_all_workers(driver: Driver) -> bool:
    return _send(driver.workers(), signal.SIGKILL)


def kill_driver(driver: Driver) -> bool:
    """SIGKILL to the driver alone; what it started ends by itself, two small agents of Ray within a minute or so."""
    family = [process for process in below(driver.process.pid) if not told(process).endswith("Agent")]
    struck = driver.process.poll() is None
    driver.process.kill()
    driver.process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == [], "without their driver, the workers and their Ray end"
    return struck


def terminate_driver(driver: Driver) -> bool:
    """SIGTERM, as `ray job stop` and batch schedulers send it: a checkpoint is written."""
    struck = driver.process.poll() is None
    driver.process.terminate()
    code = driver.wait()
    assert code in (0, 130), driver.trial.output()
    return struck and code == 130


def kill_while_saving(driver: Driver) -> bool:
    """SIGKILL to all in the middle of a checkpoint, which is left without its manifest."""
    folder = driver.trial.folder / "checkpoints"
    before, workers = _torn(folder), driver.workers()
    while driver.process.poll() is None:
        if _torn(folder) - before:
            _send(workers, signal.SIGSTOP)
            if _torn(folder) - before:
                _send(workers, signal.SIGKILL)
                return kill_driver(driver)
            _send(workers, signal.SIGCONT)  # it was complete by then: the next one
        time.sleep(0.0005)  # writing takes milliseconds
    return False


def _torn(folder: Path) -> set[str]:
    """The newest checkpoint while it has some files and no manifest. (Of older ones without, files are removed.)"""
    newest = max(folder.glob("step-*"), default=None)
    files = {path.name for path in newest.glob("[!.]*")} if newest else set()
    return {newest.name} if newest and files and "manifest.json" not in files else set()


def damage_checkpoint(driver: Driver) -> bool:
    """Kill the driver, and cut a file of the newest checkpoint short."""
    kill_driver(driver)
    folders = sorted((driver.trial.folder / "checkpoints").glob("step-*"))
    if len(folders) < 2:
        return False
    weights = folders[-1] / "model.safetensors"
    if weights.exists():
        os.truncate(weights, weights.stat().st_size // 2)
    return True


def stop_worker(driver: Driver) -> bool:
    """A worker that neither works nor ends (SIGSTOP): the watchdog of another one notices."""
    return _send(driver.workers()[-1:], signal.SIGSTOP)


FAULTS: dict[str, Callable[[Driver], bool]] = {
    "a worker is killed": kill_worker,
    "all workers are killed": kill_all_workers,
    "the driver is killed": kill_driver,
    "SIGTERM to the driver": terminate_driver,
    "killed while a checkpoint is written": kill_while_saving,
    "the newest checkpoint is damaged": damage_checkpoint,
    "a worker hangs": stop_worker,
}


def _send(processes: list[psutil.Process], number: signal.Signals) -> bool:
    struck = False
    for process in processes:
        try:
            process.send_signal(number)
            struck = True
        except psutil.NoSuchProcess:
            continue
    return struck
