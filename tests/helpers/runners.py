"""Stages without Ray."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.stages import Runner


def one_by_one(order: Callable[[list], list] = list, ran: list | None = None) -> Runner:
    """Runs the tasks of a stage in this process; ran: collects their items. Values cross as between processes."""

    def run(task: Callable[[Any], Any], items: list) -> Iterator[Any]:
        for item in order(items):
            if ran is not None:
                ran.append(item)
            yield pickle.loads(pickle.dumps(task(pickle.loads(pickle.dumps(item)))))

    return Runner(run=run)
