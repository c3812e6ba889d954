"""What ended a training, in the user's words."""

import pytest
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from infra.cluster.train_workers import describe_failure
from infra.errors import DataError, InfrastructureError


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


@pytest.mark.parametrize(
    "error", [group(r0=RuntimeError("a bug")), group(r0=DataError("a store is gone"), r1=DIED), ValueError("ours")]
)
def test_errors_of_the_workers_stay_what_they_are(error):
    assert describe_failure(error, 3) is error
    assert error.__cause__ is None
