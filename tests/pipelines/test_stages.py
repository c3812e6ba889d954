"""Tasks through Ray Data: results come back, and so does what a user has to know of a failure."""

import pytest

from infra.errors import InfrastructureError
from pipelines.stages import Runner, run_stage, run_tasks


def full(item):
    raise InfrastructureError("cannot write /x", why="no space left on device", try_="free some")


@pytest.mark.ray
def test_every_task_gives_its_result(local_ray):
    assert sorted(run_tasks(lambda n: (n, 2 * n), range(5))) == [(n, 2 * n) for n in range(5)]
    assert list(run_tasks(full, [])) == []


def test_the_progress_sees_every_result():
    seen = []

    def progress(stage, results, total):
        for result in results:
            seen.append((stage, result, total))
            yield result

    assert run_stage(Runner(progress, run=map), "double", lambda n: 2 * n, [1, 2]) == [2, 4]
    assert seen == [("double", 2, 2), ("double", 4, 2)]


def test_little_items_share_tasks():
    given, seen = [], []

    def run(task, items):
        given.extend(items)
        return map(task, items)

    def progress(stage, results, total):
        for result in results:
            seen.append((result, total))
            yield result

    assert run_stage(Runner(progress, run), "double", lambda n: 2 * n, [1, 2, 3], together=2) == [2, 4, 6]
    assert given == [[1, 2], [3]]
    assert seen == [(2, 3), (4, 3), (6, 3)]


@pytest.mark.ray
def test_a_task_s_error_for_the_user_arrives_as_it_was_raised(local_ray):
    with pytest.raises(InfrastructureError) as caught:
        list(run_tasks(full, [0]))
    assert str(caught.value) == "cannot write /x\n  why: no space left on device\n  try: free some"
    assert caught.value.exit_code == 5
