"""The metric points of a run: appended to a local file at once, and sent to MLflow by a thread that reads that file.

`metrics.jsonl` is the truth. The thread's only state is how far it has read, so an outage of MLflow costs nothing:
sending continues where it stopped, and a resumed run sends what MLflow lacks. `log` always costs one write.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from infra import storage
from infra.errors import DataError, InfrastructureError
from infra.tracking.mlflow_client import RunHandle, client_of, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

_POINTS_PER_REQUEST = 1000  # MLflow's limit
_NOT_SENT = "data/fingerprint_"  # as a curve it is noise, which MLflow's UI would draw before the losses
# MLflow lists metrics in the order in which they came first, and its page that compares runs opens on the first one.
_FIRST = ("val/bits_per_byte", "val/accuracy", "train/loss", "val/loss")
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Point:
    """What was logged at one optimizer step. time: in seconds since 1970."""

    step: int
    time: float
    values: dict[str, float]


class _Metric(NamedTuple):
    """One value of a point, as MLflow takes it."""

    key: str
    value: float
    milliseconds: int
    step: int


class MetricLog:
    """Appends points to a file, of which it must be the only writer. `problem` says why points are not in MLflow yet.

    A metric has one value per step, the first that is logged. With `resume_step` the file is cut back to steps <=
    resume_step, and points of (metric, step) that MLflow has are not sent again: MLflow would keep both. Fingerprints
    stay in the file.
    """

    def __init__(
        self, metrics_path: str, handle: RunHandle, *, resume_step: int | None = None, interval_s: float = 2.0
    ):
        metrics_path = storage.absolute(metrics_path)
        os.makedirs(os.path.dirname(metrics_path), exist_ok=True)
        kept, self._logged = _cut_back(metrics_path, resume_step)
        self._step = resume_step  # of the last point, for which the metrics `_logged` have values
        self.problem: str | None = None
        self._path, self._handle, self._interval_s = metrics_path, handle, interval_s
        # Unbuffered: on a full disk a line would stay in the buffer, and fail again when the file is closed.
        self._file = open(metrics_path, "ab", buffering=0)  # noqa: SIM115 (lives as long as the log)
        self._written = kept
        self._sent = 0 if resume_step is not None else kept
        # Metric -> steps in MLflow, requested when first needed. None: a new run, which has no points there.
        self._known: dict[str, set[int]] | None = {} if resume_step is not None else None
        self._is_begun = bool(resume_step)  # a validation of step 0 is sent with the training's first point
        self._wake = threading.Condition()
        self._hurry = self._closed = self._failed = False
        self._thread = threading.Thread(target=self._send_forever, name="metric-log", daemon=True)
        if handle.enabled:
            self._thread.start()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record values of one optimizer step, without waiting for MLflow.

        Raises InfrastructureError if the file cannot be written.
        """
        plain = {key: _json_number(float(value)) for key, value in values.items()}
        with self._wake:
            if step != self._step:
                self._step, self._logged = step, set()
            plain = {key: value for key, value in plain.items() if key not in self._logged}
            if not plain:
                return
            line = (json.dumps({"step": int(step), "time": time.time(), "values": plain}) + "\n").encode()
            self._append(line)
            self._logged |= set(plain)
            self._written += len(line)
            self._is_begun = self._is_begun or step > 0
            self._wake.notify_all()

    def _append(self, line: bytes) -> None:
        """Write the whole line or nothing."""
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failed = True
            with contextlib.suppress(OSError):
                self._file.truncate(self._written)
            raise _unwritable(self._path, error) from error

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything is in MLflow; False if that takes longer."""
        if not self._handle.enabled:
            return True
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            done = self._wake.wait_for(lambda: self._sent >= self._written or not self._thread.is_alive(), timeout_s)
            self._hurry = False
            return done and self._sent >= self._written

    def close(self, timeout_s: float = 10.0) -> bool:
        """Flush and stop. Returns False if points are left for the next resume to send; the file has them all.

        Raises InfrastructureError if closing the file shows that it was not written (on network file systems).
        """
        sent = self.flush(timeout_s)
        with self._wake:
            self._closed = True
            self._wake.notify_all()
            try:
                self._file.close()
            except OSError as error:
                if not self._failed:
                    raise _unwritable(self._path, error) from error
        return sent

    def _send_forever(self) -> None:
        client, pause_s = None, self._interval_s
        while not self._closed:
            with self._wake:
                self._wake.wait_for(self._has_news)
                # Points of `pause_s` seconds are sent together, unless someone waits for them.
                self._wake.wait_for(lambda: self._hurry or self._closed, pause_s)
                until = self._written
            if self._closed:
                return
            try:
                client = client or client_of(self._handle.uri)
                for batch, end in _batches(self._path, self._sent, until):
                    self._send(client, batch)
                    with self._wake:
                        self._sent = end
                        self._wake.notify_all()
                self.problem, pause_s = None, self._interval_s
            except Exception as exc:
                self.problem = first_line(exc)
                pause_s = min(max(2 * pause_s, 1.0), _LONGEST_PAUSE_S)
                if self._hurry:
                    time.sleep(0.1)  # someone waits: retry soon, but do not spin

    def _has_news(self) -> bool:
        return self._closed or (self._sent < self._written and (self._is_begun or self._hurry))

    def _send(self, client: MlflowClient, batch: list[_Metric]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        metrics = [Metric(*metric) for metric in batch if not self._is_known(client, metric.key, metric.step)]
        try:
            if metrics:
                client.log_batch(self._handle.run_id, metrics=metrics)
        except MlflowException as exc:
            if exc.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # A name that MLflow refuses must not hold up the other metrics forever.
            for metric in metrics:
                try:
                    client.log_batch(self._handle.run_id, metrics=[metric])
                except MlflowException as one:
                    if one.error_code != "INVALID_PARAMETER_VALUE":
                        raise
        if self._known is not None:
            for metric in metrics:
                self._known[metric.key].add(metric.step)

    def _is_known(self, client: MlflowClient, key: str, step: int) -> bool:
        if self._known is None:
            return False
        if key not in self._known:
            self._known[key] = _steps_of(client, self._handle.run_id, key)
        return step in self._known[key]


def _steps_of(client: MlflowClient, run_id: str, key: str) -> set[int]:
    from mlflow.exceptions import MlflowException

    try:
        return {metric.step for metric in client.get_metric_history(run_id, key)}
    except MlflowException as exc:
        if exc.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return set()  # a name that MLflow refuses has no history


def read_points(metrics_url: str) -> Iterator[Point]:
    """The points in a metrics file, in their order; none if there is no file.

    A last line without a line break is left out: it is being written, or was when the run was killed. Raises DataError
    for any other line that is not JSON.
    """
    if not storage.exists(metrics_url):
        return
    with storage.open_file(metrics_url) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as exc:
                raise DataError(f"line {number} of {metrics_url} is not valid JSON", why=str(exc)) from None
            values = {key: float(value) for key, value in record["values"].items()}
            yield Point(record["step"], record["time"], values)


def _batches(path: str, start: int, end: int) -> Iterator[tuple[list[_Metric], int]]:
    """The metrics between two offsets of a file in batches that MLflow takes, each with the offset after it."""
    batch: list[_Metric] = []
    with open(path, "rb") as file:
        file.seek(start)
        while (at := file.tell()) < end:
            record = json.loads(file.readline())
            values, milliseconds = record["values"].items(), round(record["time"] * 1000)
            if batch and len(batch) + len(values) > _POINTS_PER_REQUEST:
                yield _in_order(batch), at
                batch = []
            batch += [
                _Metric(key, float(value), milliseconds, record["step"])
                for key, value in values
                if not key.startswith(_NOT_SENT)
            ]
            assert len(values) <= _POINTS_PER_REQUEST, "one step logs at most 1000 metrics"
        yield _in_order(batch), end


def _in_order(batch: list[_Metric]) -> list[_Metric]:
    return sorted(batch, key=lambda metric: _FIRST.index(metric.key) if metric.key in _FIRST else len(_FIRST))


def _cut_back(path: str, resume_step: int | None) -> tuple[int, set[str]]:
    """Remove a line torn by a crash, and steps after `resume_step`. Returns the file's size in bytes, and the names of
    the metrics that are logged for that step.
    """
    if not os.path.exists(path):
        return 0, set()
    with open(path, "rb") as file:
        lines = file.readlines()
    whole = [(line, json.loads(line)) for line in lines if _is_whole(line)]
    kept = [(line, point) for line, point in whole if resume_step is None or point["step"] <= resume_step]
    if len(kept) < len(lines):
        storage.write_bytes(path, b"".join(line for line, _ in kept))
    logged = {name for _, point in kept if point["step"] == resume_step for name in point["values"]}
    return sum(len(line) for line, _ in kept), logged


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _unwritable(path: str, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"cannot write {path}: {error}",
        try_="free space, then start the same command again: it continues from the last checkpoint",
    )


def _json_number(value: float) -> float | str:
    """The value itself; nan and infinities, which JSON lacks, as "nan", "inf", "-inf", which float() reads."""
    return value if math.isfinite(value) else str(value)
