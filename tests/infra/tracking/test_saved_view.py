"""Views of an experiment in MLflow: what the UI reads of them, and that a person's stay as they are."""

import base64
import json
import zlib

import pytest

from infra.tracking import TrackingConfig, open_run
from infra.tracking.mlflow_client import RunHandle, client_of
from infra.tracking.saved_view import DURATION, Line, Section, View, link, metric, offer, run_link, state_text, tag

VIEW = View(
    key="best",
    name="Best first",
    filter="tags.`kind` = 'training'",
    order_by=metric("val/loss"),
    ascending=True,
    columns={tag("size"): 90, metric("val/loss"): 120, DURATION: 80},
    sections=(
        Section("Losses", (Line("val/loss"), Line("train/loss", over="tokens"))),
        Section("val"),
        Section("perf", is_open=False),
    ),
)


def state_of(text: str) -> dict:
    value = json.loads(text)
    assert (value["name"], value["createdAt"], value["updatedAt"]) == (VIEW.name, 5, 5)
    kind, _, packed = value["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_says_what_the_table_shows_and_in_which_order():
    state = state_of(state_text(VIEW, 5))
    assert {key: state[key] for key in ("searchFilter", "orderByKey", "orderByAsc", "selectedColumns")} == {
        "searchFilter": "tags.`kind` = 'training'",
        "orderByKey": "metrics.`val/loss`",
        "orderByAsc": True,
        "selectedColumns": ["tags.`size`", "metrics.`val/loss`"],
    }
    assert state["columnOrder"] == [
        *("attributes.`Run Name`", "runDateAndNestInfo"),
        *("tags.`size`", "metrics.`val/loss`", "duration"),
    ]
    assert state["columnWidths"] == {"tags.`size`": 90, "metrics.`val/loss`": 120, "duration": 80}


def test_charts_begin_with_those_asked_for_then_the_settings_that_differ():
    state = state_of(state_text(VIEW, 5))
    sections = [(s["name"], s["display"], s["isGenerated"]) for s in state["compareRunSections"]]
    assert sections == [
        ("Losses", True, False),
        ("Settings that differ", True, False),
        ("val", True, True),
        ("perf", False, True),
    ]
    first, second, differing = state["compareRunCharts"]
    axes = ("metricKey", "xAxisKey", "selectedXAxisMetricKey", "useGlobalXaxisKey")
    assert [first[key] for key in axes] == ["val/loss", "step", "", True]
    assert [second[key] for key in axes] == ["train/loss", "metric", "tokens", False]
    assert (differing["type"], differing["compareGroups"]) == ("DIFFERENCE", ["Parameters"])
    places = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    charts = [places[chart["metricSectionId"]] for chart in state["compareRunCharts"]]
    assert charts == ["Losses", "Losses", "Settings that differ"]


def test_links():
    handle = RunHandle("http://host", "r1", "7")
    table = "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=best"
    assert link(handle, VIEW) == table
    assert link(handle, VIEW, charts=True, host="http://host/") == f"http://host/{table}&compareRunsMode=CHART"
    assert run_link(handle) == "#/experiments/7/runs/r1?workflowType=machine_learning"


@pytest.fixture
def handle(mlflow_root) -> RunHandle:
    return open_run(
        TrackingConfig(), name="x", run_dir="x", params={}, tags={}, run_id=None, default_root=str(mlflow_root)
    )


def tags_of(handle: RunHandle) -> dict[str, str]:
    return client_of(handle.uri).get_experiment(handle.experiment_id).tags


@pytest.mark.integration
def test_an_experiment_is_given_its_views_and_a_description_of_them(handle):
    offer(handle, VIEW, lambda keys: f"views: {sorted(keys)}")
    other = View("new", "New", "", metric("a"), ascending=False, columns={}, sections=())
    offer(handle, other, lambda keys: f"views: {sorted(keys)}")
    tags = tags_of(handle)
    assert tags["mlflow.note.content"] == "views: ['best', 'new']"
    assert json.loads(tags[VIEW.tag])["name"] == "Best first"
    assert json.loads(tags[other.tag])["name"] == "New"


@pytest.mark.integration
@pytest.mark.parametrize("change", ["changed", "deleted"])
def test_what_a_person_changed_or_deleted_stays_so(handle, change):
    client = client_of(handle.uri)
    offer(handle, VIEW, lambda keys: "ours")
    for key in (VIEW.tag, "mlflow.note.content"):
        if change == "changed":
            client.set_experiment_tag(handle.experiment_id, key, "theirs")
        else:
            client.delete_experiment_tag(handle.experiment_id, key)
    before = tags_of(handle)
    offer(handle, VIEW, lambda keys: "ours, and newer")
    assert tags_of(handle) == before


@pytest.mark.integration
def test_a_dead_server_costs_a_warning(capsys):
    offer(RunHandle("http://127.0.0.1:9", "r", "1"), VIEW, lambda keys: "")
    assert "did not save the view of its runs" in capsys.readouterr().out
