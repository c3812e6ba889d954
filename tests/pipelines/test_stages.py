"""Tasks through Ray Data: records come back, and so does what a user has to know of a failure."""

import pytest

from infra.errors import InfrastructureError
from pipelines.stages import run_tasks

pytestmark = pytest.mark.ray


def double(item):
    return {"twice": 2 * item["n"]}


def full(item):
    raise InfrastructureError("cannot write /x", why="no space left on device", try_="free some")


def test_every_task_gives_its_record(local_ray):
    assert sorted(r["twice"] for r in run_tasks(double, [{"n": n} for n in range(5)])) == [0, 2, 4, 6, 8]
    assert list(run_tasks(double, [])) == []


def test_a_task_s_error_for_the_user_arrives_as_it_was_raised(local_ray):
    with pytest.raises(InfrastructureError) as caught:
        list(run_tasks(full, [{}]))
    assert str(caught.value) == "cannot write /x\n  why: no space left on device\n  try: free some"
    assert caught.value.exit_code == 5
