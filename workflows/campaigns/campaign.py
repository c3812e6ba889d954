"""A campaign from its recipe to its table: cells that are not finished run side by side, each finished one is asked the
reported split, and what they come to stands in files, on screen and in MLflow.

<run.storage_path>/<campaign>/cells/<cell>.yaml    the recipe of each cell: finetune.py --config with it goes on with it
                              logs/<cell>.log      what its last command printed
                              scores/              the answers of its model
                              means.csv, cells.csv, campaign.html
<run.storage_path>/<cell>/                         the run of each cell
"""

from __future__ import annotations

import contextlib
import functools
import html
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from infra import children, commands, config, storage
from infra.cluster import connect
from infra.console import Console, Live, duration
from infra.errors import Interrupted, UserError, kind_of
from infra.tracking import RunHandle
from infra.tracking.mlflow_client import without_password
from workflows.campaigns import tracked
from workflows.campaigns.cells import campaign_name, check_split, list_cells
from workflows.campaigns.plan import at_once, describe_campaign, seconds_of, standing_text, state_of
from workflows.campaigns.planned import Planned, logged_step, plan_cells
from workflows.campaigns.scores import Mean, Scored, cell_rows, mean_csv, mean_rows, means, score_cells, table_csv
from workflows.campaigns.side_by_side import Ended, Standing, reason_of, run_side_by_side
from workflows.evaluation.page import STYLE, html_table
from workflows.finetuning.run import catch_up
from workflows.runs.mlflow_views import ways_to_compare_campaigns
from workflows.runs.record import RunRecord, has_record
from workflows.runs.run import Run, clear, locked
from workflows.runs.shared_places import check_shared_finetuning
from workflows.runs.workers import check_memory, ray_for_workers
from workflows.settings.campaign import CampaignRecipe

_WATCH_S = 2.0


class CellsFailed(UserError):
    """Some cells of a campaign failed. The exit code is that of the first of them."""

    def __init__(self, message: str, code: int, *, why: str, try_: str):
        super().__init__(message, why=why, try_=try_)
        self.exit_code, self.kind = code, kind_of(code)


@dataclass(frozen=True)
class Campaign:
    """A campaign with its cells as their folders have them."""

    recipe: CampaignRecipe
    name: str
    cells: tuple[Planned, ...]
    screen: Console

    @property
    def url(self) -> str:
        """Its folder."""
        return storage.join(self.recipe.run.storage_path, self.name)

    @property
    def unfinished(self) -> tuple[Planned, ...]:
        return tuple(one for one in self.cells if not one.is_finished)


@dataclass(frozen=True)
class Failure:
    """A cell that failed. reason: its error."""

    name: str
    code: int
    reason: str

    @property
    def told(self) -> str:
        """In a line."""
        return f"failed with exit {self.code} ({kind_of(self.code)})"


def open_campaign(recipe: CampaignRecipe, recipe_name: str, screen: Console) -> Campaign:
    """The campaign with all its cells; starts no Ray. Raises as `list_cells`, `plan_cells` and `check_split`, and
    UserError where a run has its name.
    """
    name = campaign_name(recipe, recipe_name)
    cells = list_cells(recipe, name, in_job=connect.inside_job())
    campaign = Campaign(recipe, name, plan_cells(cells, screen), screen)
    check_split(cells, recipe.campaign.split)
    if has_record(campaign.url):
        raise UserError(
            f"{campaign.url} is a run, not a campaign",
            why="a campaign has a folder of its own beside the runs of its cells",
            try_="choose another --run.name",
        )
    return campaign


def run_campaign(campaign: Campaign) -> None:
    """Carry the campaign to its end, and show what it came to. Raises Interrupted when it was stopped, and CellsFailed
    behind the table where cells failed.
    """
    recipe, name = campaign.recipe, campaign.name
    storage.ensure_writable(recipe.run.storage_path)
    with locked(Run(campaign.url, RunRecord(name=name, identity="", settings={}))):
        if recipe.run.fresh:
            campaign = _cleared(campaign)
        handle = tracked.open_entry(recipe, name, campaign.url, campaign.cells)
        _show_header(campaign, handle)
        tell = functools.partial(tracked.describe_entry, recipe, name, handle)
        tell(campaign.cells, "running", standing_text(campaign.cells))
        try:
            failures = _run_cells(campaign, handle) if campaign.unfinished else ()
            campaign = replace(campaign, cells=tuple(one.again() for one in campaign.cells))
            _conclude(campaign, handle, failures)
        except BaseException as error:
            is_stop = isinstance(error, Interrupted | KeyboardInterrupt)
            cells = [one.again() for one in campaign.cells]
            tell(cells, "interrupted" if is_stop else "failed", standing_text(cells))
            raise
        tell(campaign.cells, "failed" if failures else "finished", standing_text(campaign.cells))
    if failures:
        raise _failed(campaign, failures)


def _show_header(campaign: Campaign, handle: RunHandle) -> None:
    rows = [*describe_campaign(campaign.recipe, campaign.cells), ("folder", campaign.url)]
    rows += [("mlflow", without_password(handle.uri))] if handle.enabled else []
    campaign.screen.header(f"glm campaign · {campaign.name}", rows)
    if campaign.recipe.run.fresh:
        campaign.screen.line("all cells begin from scratch; the same command without --run.fresh goes on with them")


def _cleared(campaign: Campaign) -> Campaign:
    """The campaign without the runs that its cells had: one of them would count as finished when it is stopped before
    that cell begins. Raises UserError, and removes nothing, where one is being trained.
    """
    with contextlib.ExitStack() as every:
        for one in campaign.cells:
            every.enter_context(locked(one.run))
        for one in campaign.cells:
            clear(one.run, fresh=True)
    return replace(campaign, cells=tuple(one.begun() for one in campaign.cells))


def how_to_go_on(recipe: CampaignRecipe) -> str:
    """What to do about cells that are not finished. The same command with --run.fresh would lose those that are."""
    return f"run {commands.same_command(is_fresh=recipe.run.fresh)}: it goes on with what is not finished"


def _run_cells(campaign: Campaign, handle: RunHandle) -> tuple[Failure, ...]:
    """Run the cells that are not finished. Raises Interrupted when they were stopped."""
    recipe, screen, todo = campaign.recipe, campaign.screen, campaign.unfinished
    shared = functools.partial(check_shared_finetuning, todo[0].setup.recipe)
    with ray_for_workers(recipe, screen, check_shared=shared), tempfile.TemporaryDirectory() as scratch:
        for one in todo:
            check_memory(recipe, one.setup.shape)
        place = storage.absolute(campaign.url) if storage.is_local(campaign.url) else scratch
        failures: list[Failure] = []
        room = at_once(recipe, campaign.cells)
        screen.line(f"{room} side by side; what each prints is in {os.path.join(place, 'logs')}")

        def tell(ended: Ended) -> None:
            if ended.code == 0:
                screen.line(f"{ended.name} finished in {duration(ended.seconds)}")
                return
            failures.append(_failure(ended, _log(place, ended.name)))
            if ended.code != Interrupted.exit_code:
                screen.warn(f"{ended.name} {failures[-1].told}: {failures[-1].reason.splitlines()[0]}")

        def warn_of_stop(reason: str) -> None:
            screen.line(f"{reason}: stopping; running cells write a checkpoint (Ctrl-C again: at once, without one)")

        with screen.progress("campaign", 100) as live:
            outcome = run_side_by_side(
                [one.name for one in todo],
                _starter(campaign, place, handle),
                room=lambda: max(room, at_once(recipe, campaign.cells)),
                on_change=tell,
                on_poll=_watcher(campaign, live),
                on_stop=warn_of_stop,
            )
        if place == scratch:
            storage.upload_dir(scratch, campaign.url)
    if outcome.was_stopped:
        told = standing_text([one.again() for one in campaign.cells])
        raise Interrupted(f"stopped: {told}", try_=how_to_go_on(recipe))
    return tuple(failures)


def _starter(campaign: Campaign, place: str, handle: RunHandle) -> Callable[[str], children.Process]:
    """What starts the command of a cell. place: the campaign's local folder."""
    import ray

    own = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_LOG_TO_DRIVER": "0", "PYTHONUNBUFFERED": "1"}
    inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}  # each has a run of its own
    cells = {one.name: one.cell for one in campaign.cells}
    tags = tracked.tags_of_cell(campaign.name, handle)

    def start(name: str) -> children.Process:
        recipe = cells[name].recipe
        recipe = replace(recipe, tracking=replace(recipe.tracking, tags={**recipe.tracking.tags, **tags}))
        path = os.path.join(place, "cells", f"{name}.yaml")
        storage.write_bytes(path, config.to_yaml(recipe).encode())
        words = ["--config", os.path.relpath(path)]
        return children.start(commands.script("finetune"), words, log=_log(place, name), environment=inherited | own)

    return start


def _log(place: str, name: str) -> str:
    return os.path.join(place, "logs", f"{name}.log")


def _failure(ended: Ended, log: str) -> Failure:
    """How a cell failed. log: what its command printed."""
    if ended.code < 0:
        return Failure(ended.name, 5, f"its command was ended by signal {-ended.code}; memory may be short")
    with open(log, encoding="utf-8", errors="replace") as file:
        return Failure(ended.name, ended.code, reason_of(file.read()))


def _watcher(campaign: Campaign, live: Live) -> Callable[[Standing], None]:
    """What shows the progress of the campaign: the share of its work, and how many cells are done and run."""
    cells, seconds = campaign.cells, functools.partial(seconds_of, campaign.recipe)
    by_name, total = {one.name: one for one in cells}, sum(map(seconds, cells))
    before = [one for one in cells if one.is_finished]
    shown_at = -_WATCH_S

    def show(standing: Standing) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at < _WATCH_S and standing.running:
            return
        shown_at = time.monotonic()
        stopped = [one.name for one in standing.ended if one.code == Interrupted.exit_code]
        over = [by_name[one.name] for one in standing.ended if one.name not in stopped]
        done = sum(map(seconds, (*before, *over)))
        for one in map(by_name.__getitem__, (*standing.running, *stopped)):
            share = min(logged_step(one.run.url) / one.setup.steps, 1.0)
            done += seconds(one, share) if share else 0.0
        failed = sum(one.code not in (0, Interrupted.exit_code) for one in standing.ended)
        finished = len(before) + sum(one.code == 0 for one in standing.ended)
        told = f"{finished} of {len(cells)} cells done, {len(standing.running)} running"
        live.update(100 * done / total, told + (f", {failed} failed" if failed else ""))

    return show


def _conclude(campaign: Campaign, handle: RunHandle, failures: Sequence[Failure]) -> None:
    """Score the finished cells, and write and show the tables."""
    recipe, screen = campaign.recipe, campaign.screen
    finished = [one for one in campaign.cells if one.is_finished]
    for one in finished:
        catch_up(one.setup, one.run)
    scored = score_cells(finished, recipe, storage.join(campaign.url, "scores"), screen)
    rows = means(scored)
    states = {one.name: state_of(one) for one in campaign.cells} | {one.name: one.told for one in failures}
    files = _files(campaign, rows, scored, states)
    for name, text in files.items():
        storage.write_bytes(storage.join(campaign.url, name), text.encode())
    tracked.record(campaign.name, handle, rows, scored, files)
    if rows:
        screen.table(f"{campaign.name} on the split {recipe.campaign.split}", *mean_rows(rows))
    steps = [("look", storage.join(campaign.url, "campaign.html"))]
    models = f"{recipe.run.storage_path}/{campaign.name}-*"
    steps.append(("evaluate", commands.workflow("evaluate", "--models", models)))
    if handle.enabled:
        steps += ways_to_compare_campaigns(handle)
    screen.next_steps(steps)


def _files(
    campaign: Campaign, rows: Sequence[Mean], scored: Sequence[Scored], states: dict[str, str]
) -> Mapping[str, str]:
    """Name -> text of what a campaign leaves in its folder and in MLflow."""
    columns, cells = cell_rows(campaign.cells, states, scored)
    title = html.escape(f"Campaign {campaign.name}")
    told = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
        for key, value in describe_campaign(campaign.recipe, campaign.cells)
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head>
<body><h1>{title}</h1><table>{told}</table>
<h2>Means over seeds</h2>
<p>Metrics are on 0 to 100. The standard deviation is that of the sample of seeds; the interval is over items, for these
seeds. No row is picked: what is best among them by these scores was chosen on the split that is reported.</p>
{html_table(*mean_rows(rows)) if rows else "<p>No cell is finished.</p>"}
<h2>Cells</h2>
{html_table(columns, cells)}
</body></html>
"""
    exact = table_csv(*cell_rows(campaign.cells, states, scored, exact=True))
    return {"means.csv": mean_csv(rows), "cells.csv": exact, "campaign.html": page}


def _failed(campaign: Campaign, failures: Sequence[Failure]) -> CellsFailed:
    told = "\n".join(f"{one.name} {one.told}: {one.reason}" for one in failures)
    return CellsFailed(
        f"{len(failures)} of {len(campaign.cells)} cells failed",
        failures[0].code,
        why=told,
        try_=f"mend what they say and {how_to_go_on(campaign.recipe)}",
    )
