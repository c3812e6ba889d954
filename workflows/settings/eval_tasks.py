"""The tasks that a training asks its model: what is wrong with them is said before it begins."""

from collections.abc import Sequence

from infra.errors import UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from workflows.settings.recipe import EvalTask


def task_config(one: EvalTask) -> TaskConfig:
    return TaskConfig(name=one.name, data=one.data)


def short_name(one: EvalTask) -> str:
    """What its metrics are called by: of a module of the user's own the last part."""
    return one.name.rpartition(".")[2]


def check_eval_tasks(several: Sequence[EvalTask]) -> None:
    """Raises UserError for a task that does not exist, is named twice or has no such split, DataError where there is
    nothing to read.
    """
    names = [short_name(one) for one in several]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"train.eval_tasks names {twice[0]} twice",
            why="their metrics would have one name",
            try_="leave one out, and ask the other with evaluate.py",
        )
    for one in several:
        splits = tasks.find_splits(task_config(one))
        if one.split not in splits:
            raise UserError(
                f"train.eval_tasks: {one.data} has no split {one.split!r} of {one.name}",
                try_=f"split: {', or '.join(splits)}",
            )
