"""Run independent tasks with Ray Data and stream their results: one task, one block, one atomic output.

Ray Data schedules, retries and spreads the tasks; each writes its own files under names that follow from its item, and
returns a small value. That makes every stage resumable per task and its output independent of parallelism, which Ray
Data's own writers do not promise (docs/decisions/prepare.md).
"""

import gc
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from infra.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(task: Callable[[Item], Result], items: Sequence[Item], *, cpus: float = 1.0) -> Iterator[Result]:
    """Yield task(item) of every item, as they finish. Raises the UserError of a task. Needs a connected Ray.

    Items and results cross processes as pickled values, through the object store: keep them small.
    """
    if not items:
        return
    import ray.data

    from infra.cluster.connect import quiet_ray_data

    assert ray.is_initialized(), "Ray Data would start a Ray of its own"
    quiet_ray_data()
    # Ray Data reserves half of the resources for other operators; there is one, whose blocks are a few hundred bytes.
    # With the reservation two cores run one task at a time.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False

    def run(batch: pa.Table) -> pa.Table:
        gc.disable()  # tasks make many small values and no cycles: collections cost 15 % of cleaning
        try:
            return _table("outcome", [_outcome(task, item) for item in _values(batch, "item")])
        finally:
            gc.enable()
            pa.default_memory_pool().release_unused()  # or a worker keeps 60 MB of what its largest task used

    blocks = [_table("item", [item]) for item in items]
    dataset = ray.data.from_arrow(blocks).map_batches(run, batch_format="pyarrow", batch_size=None, num_cpus=cpus)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for outcome in _values(batch, "outcome"):
            if isinstance(outcome, UserError):
                raise outcome
            yield outcome


Progress = Callable[[str, Iterable[Any], int], Iterable[Any]]
"""progress(stage, results, total) yields the results while it shows them."""


def _unseen(stage: str, results: Iterable[Any], total: int) -> Iterable[Any]:
    return results


@dataclass(frozen=True)
class Runner:
    """How the tasks of a preparation run, and who watches."""

    progress: Progress = _unseen
    run: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = run_tasks
    """run(task, items) yields the results; tests take another one, which needs no Ray."""


def run_stage(
    runner: Runner, stage: str, task: Callable[[Item], Result], items: Sequence[Item], *, together: int = 1
) -> list[Result]:
    """The results of all items, as they finished. together: items that one task of Ray takes, where each is little work
    beside what a task costs, some 10 ms of CPU time.
    """
    if together > 1:
        groups = [items[first : first + together] for first in range(0, len(items), together)]
        done = runner.run(lambda group: [task(item) for item in group], groups)
        results: Iterable[Result] = itertools.chain.from_iterable(done)
    else:
        results = runner.run(task, items)
    return list(runner.progress(stage, results, len(items)))


def _outcome(task: Callable[[Item], Result], item: Item) -> Result | UserError:
    """The task's result, or what the user has to know: Ray Data would wrap a UserError that is raised, and lose it."""
    try:
        return task(item)
    except UserError as error:
        return error


def _table(name: str, values: list[Any]) -> pa.Table:
    return pa.table({name: pa.array([pickle.dumps(value) for value in values], pa.large_binary())})


def _values(table: pa.Table, name: str) -> list[Any]:
    return [pickle.loads(value) for value in table[name].to_pylist()]
