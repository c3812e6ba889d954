"""Run independent tasks with Ray Data and stream their results: one task, one block, one atomic output.

Ray Data schedules, retries and spreads the tasks; each writes its own files under names that follow from its input, and
returns a small JSON record. That makes every stage resumable per task and its output independent of parallelism, which
Ray Data's own writers do not promise (decisions/prepare.md).
"""

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from infra import errors
from infra.errors import UserError

Progress = Callable[[str, Iterable[dict[str, Any]], int], Iterable[dict[str, Any]]]
"""progress(stage, records, total) yields the records while it shows them."""


def run_stage(
    stage: str, task: Callable[[dict[str, Any]], dict[str, Any]], items: list[dict[str, Any]], progress: Progress
) -> list[dict[str, Any]]:
    """The records of all items, as they finished."""
    return list(progress(stage, run_tasks(task, items), len(items)))


def run_tasks(
    task: Callable[[dict[str, Any]], dict[str, Any]], items: list[dict[str, Any]], *, cpus: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Yield task(item) of every item, as they finish. Items and results are JSON values. Needs a connected Ray."""
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
            results = [json.dumps(_outcome(task, json.loads(item))) for item in batch["item"].to_pylist()]
        finally:
            gc.enable()
            pa.default_memory_pool().release_unused()  # or a worker keeps 60 MB of what its largest task used
        return pa.table({"result": pa.array(results, pa.large_string())})

    blocks = [pa.table({"item": pa.array([json.dumps(item)], pa.large_string())}) for item in items]
    dataset = ray.data.from_arrow(blocks).map_batches(run, batch_format="pyarrow", batch_size=None, num_cpus=cpus)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for result in map(json.loads, batch["result"].to_pylist()):
            if "error" in result:
                raise getattr(errors, result["error"])(result["message"], why=result["why"], try_=result["try"])
            yield result["record"]


def _outcome(task: Callable[[dict[str, Any]], dict[str, Any]], item: dict[str, Any]) -> dict[str, Any]:
    """The task's record, or what the user has to know: Ray Data would wrap a UserError and lose it."""
    try:
        return {"record": task(item)}
    except UserError as error:
        return {"error": type(error).__name__, "message": error.message, "why": error.why, "try": error.try_}
