"""The cells of a campaign with all that they resolve to, and how far the run of each has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from glm_model.tokenizer import Tokenizer
from infra import checkpoint, config, storage
from infra.console import Console
from infra.errors import UserError
from infra.tracking.metric_log import read_points
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Question
from pipelines.questions.splits import SplitFile
from pipelines.questions.task import Task
from workflows.campaigns.cells import Cell
from workflows.finetuning.items import labelled
from workflows.finetuning.plan import useful_work
from workflows.finetuning.setup import FinetuneSetup, open_finetuning, resolve_finetune
from workflows.runs.record import has_record, read_record
from workflows.runs.run import Run


@dataclass(frozen=True)
class Planned:
    """A cell, and its run as its folder has it."""

    cell: Cell
    setup: FinetuneSetup
    run: Run

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def is_finished(self) -> bool:
        return self.run.record.finished

    @property
    def step(self) -> int:
        """The last step that its run has kept, and goes on from."""
        last = None if self.cell.recipe.run.fresh else checkpoint.latest(self.run.checkpoints_url)
        return last.step if last else 0

    @cached_property
    def flops(self) -> float:
        """Floating-point operations of all its steps."""
        setup = self.setup
        _, flops = useful_work(setup.selection.train, setup.shape, has_head=setup.recipe.task.head)
        return flops * setup.steps * setup.plan.step_questions / setup.plan.questions

    def begun(self) -> Planned:
        """The cell where nothing is left of what its run was before: it is not to be fresh once more."""
        recipe = self.cell.recipe
        return replace(self, cell=replace(self.cell, recipe=replace(recipe, run=replace(recipe.run, fresh=False))))

    def again(self) -> Planned:
        """The cell with its run as it stands now."""
        url = self.run.url
        return replace(self, run=Run(url, read_record(url))) if has_record(url) else self


def plan_cells(cells: Sequence[Cell], screen: Console) -> tuple[Planned, ...]:
    """Resolve every cell; what several ask alike is read once. Starts no Ray.

    Raises UserError for a cell that cannot work, that exists with other settings, or that computes what another one
    does; DataError for data that cannot be used.
    """
    read, found = _reading_once(), list[Planned]()
    by_identity: dict[str, str] = {}
    with screen.progress("reading cells", len(cells)) as live:
        for number, cell in enumerate(cells, 1):
            try:
                setup = resolve_finetune(cell.recipe, screen, read=read)
                found.append(Planned(cell, setup, open_finetuning(setup, "")))
            except UserError as error:
                raise type(error)(f"the cell {cell.name}: {error.message}", why=error.why, try_=error.try_) from error
            if same := by_identity.get(setup.identity):
                raise UserError(
                    f"the cells {same} and {cell.name} are the same training",
                    why="the setting in which they differ decides nothing here: another one overrides it, or it only "
                    "says where and how fast a run is",
                    try_="leave that setting out of campaign.grid",
                )
            by_identity[setup.identity] = cell.name
            live.update(number, cell.name)
    return tuple(found)


def logged_step(run_url: str) -> int:
    """The last step that a run has logged; 0 before the first one, and where that cannot be read: whoever watches a run
    costs it nothing.
    """
    try:
        return max((point.step for point in read_points(storage.join(run_url, "metrics.jsonl"))), default=0)
    except (UserError, OSError):
        return 0


def _reading_once() -> Callable[..., list[Question]]:
    """`labelled`, which reads a split once for all cells that ask it alike."""
    known: dict[str, list[Question]] = {}

    def read(
        asked: TaskConfig,
        task: Task,
        splits: dict[str, SplitFile],
        split: str,
        tokenizer: Tokenizer,
        positions: int,
        screen: Console,
    ) -> list[Question]:
        key = json.dumps([config.plain(asked), split, tokenizer.digest, positions])
        if key not in known:
            known[key] = labelled(asked, task, splits, split, tokenizer, positions, screen)
        return known[key]

    return read
