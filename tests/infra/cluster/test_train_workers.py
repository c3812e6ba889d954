"""What ended a training, in the user's words; and the signals that stop one."""

import os
import signal
import threading

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from infra.cluster import train_workers
from infra.cluster.train_workers import describe_failure, failure_text, stop_signals
from infra.errors import DataError, InfrastructureError, Interrupted


def group(**failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("told by Ray", {int(rank[1:]): error for rank, error in failures.items()})


DIED = WorkerHealthCheckFailedError("A worker health check failed.", RuntimeError("killed: out of memory"))


@pytest.mark.parametrize("restarts", [0, 3])
def test_a_process_that_ended_is_infrastructure_whatever_the_others_say(restarts):
    error = group(r0=RuntimeError("Connection closed by peer"), r1=DIED)
    failure = describe_failure(error, restarts)
    assert isinstance(failure, InfrastructureError)
    assert failure.__cause__ is error
    used = ", and 3 restarts are used up" if restarts else ""
    assert failure.message == f"worker 1 ended without an error of its own{used}"
    assert "killed: out of memory" in failure.why
    assert "reduce --train.micro_rows" in failure.try_


# As Ray 2.60 words it, shortened: the last line is advice.
LOW_ON_MEMORY = (
    "3 worker(s) were killed due to the node running low on memory. Memory on the node was 15.3GB / 16.0GB.\n"
    "Refer to the documentation: https://docs.ray.io/. Consider provisioning more memory on this node."
)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ControllerError(OutOfMemoryError(LOW_ON_MEMORY)), "ran short of memory"),
        (ControllerError(RayActorError(error_msg=f"The actor died.\n{LOW_ON_MEMORY}")), "ran short of memory"),
        (
            RayActorError(error_msg="The actor died unexpectedly.\nSee https://docs.ray.io/"),
            "The actor died unexpectedly.",
        ),
    ],
)
def test_the_end_of_rays_own_processes_is_infrastructure(error, why):
    failure = describe_failure(error, 3)
    assert isinstance(failure, InfrastructureError)
    assert failure.message == "a process of Ray Train ended, which restarts no worker after that"
    assert why in failure.why
    assert "the same command continues" in failure.try_


def test_a_worker_killed_for_memory_says_so():
    died = WorkerHealthCheckFailedError("A worker health check failed.", OutOfMemoryError(LOW_ON_MEMORY))
    failure = describe_failure(group(r0=died), 0)
    assert failure.why == "the machine ran short of memory, and Ray ended the process to keep it alive"


@pytest.mark.parametrize(
    "error",
    [
        ControllerError(ValueError("a bug in a callback")),
        group(r0=RuntimeError("a bug")),
        group(r0=DataError("a store is gone"), r1=DIED),
        ValueError("ours"),
    ],
)
def test_errors_of_the_workers_stay_what_they_are(error):
    assert describe_failure(error, 3) is error
    assert error.__cause__ is None


class TaskError(RuntimeError):
    """Shaped like Ray's wrapper: its text is a stack trace."""

    def __init__(self, cause: Exception):
        super().__init__(f"Traceback (most recent call last):\n  File ...\n{cause}")
        self.cause = cause


@pytest.mark.parametrize("wrap", [lambda error: error, TaskError])
@pytest.mark.parametrize(
    ("error", "first"),
    [
        (InfrastructureError("disk full: /x", why="quota", try_="free space"), "disk full: /x"),
        (
            DataError("cannot read /s/shard-00001.parquet", why="it is gone", try_="copy it again"),
            "cannot read /s/shard",
        ),
    ],
)
def test_a_warning_of_a_failed_worker_begins_with_the_cause_and_not_with_the_advice(wrap, error, first):
    assert failure_text(3, wrap(error)).startswith(f"worker 3 failed: {first}")
    assert "try:" not in failure_text(3, wrap(error))


def test_of_other_errors_the_last_line_is_told():
    assert failure_text(0, RuntimeError("Traceback\nKeyError: 'x'")) == "worker 0 failed: RuntimeError: KeyError: 'x'"


def test_a_signal_that_is_sent_twice_at_once_is_one_and_a_later_one_does_not_wait(monkeypatch):
    told, heard, clock = list[str](), threading.Event(), iter([10.0, 10.01, 11.0])
    monkeypatch.setattr(train_workers.time, "monotonic", lambda: next(clock))

    def stop(reason: str) -> None:
        told.append(reason)
        heard.set()

    with stop_signals(stop):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.wait(20)
        with pytest.raises(Interrupted, match="interrupted twice"):
            os.kill(os.getpid(), signal.SIGINT)
    assert told == ["SIGINT"]
