"""Saved views of an experiment: which columns and charts the page of its runs shows, for whoever opens a link to it.

MLflow's UI keeps a view that a user saves in a tag of the experiment: the state of its page, as JSON. The same tag
written from here is the same view. The format is the UI's own and not documented; it was read from MLflow 3.17.2.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.tracking import own_tags
from infra.tracking.mlflow_client import RunHandle, best_effort

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "mlflow.sharedViewState."
_MAX_CHARACTERS = 20_000  # of the tag's value, on MLflow's servers
_MAX_RUNS = 20
"""Runs that are drawn until a user chooses others. The UI's default is 10, of which preparations took half."""

_DIFFERENCES = "differences"

DURATION, CREATED = "duration", "runDateAndNestInfo"


def metric(name: str) -> str:
    """Column of a metric's last values."""
    return f"metrics.`{name}`"


def parameter(name: str) -> str:
    return f"params.`{name}`"


def tag(name: str) -> str:
    return f"tags.`{name}`"


def attribute(name: str) -> str:
    """Column of a run's own: "Run Name", "Dataset", "Models", "Source", "User", "Description"."""
    return f"attributes.`{name}`"


@dataclass(frozen=True)
class Line:
    """A chart of one metric, a line per run."""

    metric: str
    over: str | None = None
    """The metric on the x axis, which has to be logged at the same steps; None: optimizer steps."""


@dataclass(frozen=True)
class Section:
    """A section of the page of charts. One without charts holds those of all metrics that begin with `<name>/`."""

    name: str
    charts: tuple[Line, ...] = ()
    is_open: bool = True


@dataclass(frozen=True)
class View:
    """Table and charts of those runs of an experiment that `filter` finds."""

    key: str
    """Names the view in links."""
    name: str
    """Names it in the UI's menu of views."""
    filter: str
    """As `MlflowClient.search_runs` takes it."""
    order_by: str
    """The column to sort by; runs that lack it come last."""
    ascending: bool
    columns: Mapping[str, int]
    """Column -> its width in pixels, in their order. The UI shows name and time of a run before them in any case."""
    sections: tuple[Section, ...]
    """Behind them comes a table of the parameters that differ. Metrics of no section get one of their own, last."""

    @property
    def tag(self) -> str:
        """The experiment's tag that holds the view."""
        return _TAG + self.key


def link(handle: RunHandle, view: View, *, charts: bool = False, host: str = "") -> str:
    """Where the UI shows a view: its table, or its charts. host: of the UI, such as `http://127.0.0.1:5000/`; without
    it the link is relative, for texts in the UI itself.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    experiment = f"{host}#/experiments/{handle.experiment_id}/runs"
    return f"{experiment}?workflowType=machine_learning&viewStateShareKey={view.key}{mode}"


def run_link(handle: RunHandle, *, host: str = "") -> str:
    """Where the UI shows the run."""
    return f"{host}#/experiments/{handle.experiment_id}/runs/{handle.run_id}?workflowType=machine_learning"


def offer(handle: RunHandle, view: View, note: Callable[[set[str]], str]) -> None:
    """Give the run's experiment this view and a description, where a person has not put others in their place, or
    deleted them. What cannot be written is a warning.

    note: the description, in Markdown, from the keys of the views that the experiment has.
    """

    def send(client: MlflowClient) -> None:
        experiment = client.get_experiment(handle.experiment_id)
        texts = own_tags.due(experiment.tags, {view.tag: state_text(view, experiment.creation_time or 0)})
        there = {key.removeprefix(_TAG) for key in {**experiment.tags, **texts} if key.startswith(_TAG)}
        tags = {**experiment.tags, **texts}
        for key, value in {**texts, **own_tags.due(tags, {own_tags.NOTE: note(there)})}.items():
            client.set_experiment_tag(handle.experiment_id, key, value)

    best_effort(handle, "save the view of its runs", send)


def state_text(view: View, created_at: int) -> str:
    """The value of the view's tag. created_at: milliseconds since 1970; the UI lists the newest view first."""
    state = json.dumps(_state(view), separators=(",", ":")).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state)).decode()
    text = json.dumps({"name": view.name, "createdAt": created_at, "updatedAt": created_at, "state": packed})
    assert len(text) <= _MAX_CHARACTERS, f"the view {view.key} is longer than MLflow takes"
    return text


def _state(view: View) -> dict[str, Any]:
    sections = [
        _section(f"s{index}", section.name, is_open=section.is_open, is_generated=not section.charts)
        for index, section in enumerate(view.sections)
    ]
    behind = max((index + 1 for index, section in enumerate(view.sections) if section.charts), default=0)
    sections.insert(behind, _section(_DIFFERENCES, "Settings that differ") | {"columns": 1, "cardHeight": 360})
    return {
        "searchFilter": view.filter,
        "orderByKey": view.order_by,
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [column for column in view.columns if column != DURATION],
        "columnOrder": [attribute("Run Name"), CREATED, *view.columns],
        "columnWidths": dict(view.columns),
        "runsHiddenMode": f"FIRST_{_MAX_RUNS}_RUNS",
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": True,  # or the sections are sorted by their names
        "compareRunSections": sections,
        "compareRunCharts": [
            *(
                _line(f"s{index}", number, line)
                for index, section in enumerate(view.sections)
                for number, line in enumerate(section.charts)
            ),
            _differences(),
        ],
    }


def _section(uuid: str, name: str, *, is_open: bool = True, is_generated: bool = False) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": is_open,
        "isReordered": False,
        "deleted": False,
        "isGenerated": is_generated,
        "columns": 2,
        "cardHeight": 300,
    }


def _line(section: str, number: int, line: Line) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{number}",
        "type": "LINE",
        "metricSectionId": section,
        "metricKey": line.metric,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": _MAX_RUNS,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "metric" if line.over else "step",
        "selectedXAxisMetricKey": line.over or "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": line.over is None,
        "useGlobalLineSmoothing": True,
    }


def _differences() -> dict[str, Any]:
    return {
        "uuid": f"{_DIFFERENCES}-0",
        "type": "DIFFERENCE",
        "metricSectionId": _DIFFERENCES,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": _MAX_RUNS,
        "compareGroups": ["Parameters"],
        "chartName": "Runs difference view",
        "showChangeFromBaseline": True,
        "showDifferencesOnly": True,
        "baselineColumnUuid": "",
    }
