"""The time machine: batches rebuilt as they were logged, documents found in them, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest

from infra import config
from infra.config import Count
from infra.errors import run_main
from infra.tracking.metric_log import Point
from pipelines.blanks.mixture import BlanksConfig
from pipelines.feed.micro_batches import RowReader, steps
from pipelines.store import lineage
from workflows import inspect_run
from workflows.runs import history
from workflows.settings.recipe import ModelConfig, Recipe, TrainConfig
from workflows.settings.shape import model_config

pytestmark = pytest.mark.integration

STEPS = 60  # more than two epochs of the tiny store


@pytest.fixture(scope="module")
def past(tiny_store, tiny_tokenizer, tmp_path_factory) -> Path:
    """A run's folder, whose log has step 3 as it was and another fingerprint for step 5."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    recipe = Recipe(
        blanks=BlanksConfig(mixture="glm_multi", seed=7),
        model=ModelConfig(size="tiny"),
        train=TrainConfig(steps=STEPS, batch_tokens=Count(300), micro_rows=1),
    )
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml(recipe))
    shape = model_config(recipe, tiny_store, tiny_tokenizer).to_dict()
    record = {"store_url": tiny_store.url, "store_digest": tiny_store.digest, "model": shape, "steps": 60}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("")
    known = history.batch_of(history.open_past(str(folder)), 3).fingerprint
    points = [
        {
            "step": step,
            "time": 0,
            "values": {"data/fingerprint_high": value >> 32, "data/fingerprint_low": value % 2**32},
        }
        for step, value in ((3, known), (5, known))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    return folder


@pytest.fixture
def look(past, monkeypatch, capsys):
    def look(*argv: str, run: str = str(past)) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspect_run.py", f"--run={run}", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(inspect_run.main)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return look


def test_a_batch_is_what_the_ranks_of_a_training_read(past, tiny_store):
    """Law 13, afterwards: the rebuilt batch has the fingerprint of the micro-batches that a feed makes of the step."""
    opened = history.open_past(str(past))
    assert opened.plan.micro_batches > 1
    reader = RowReader(tiny_store.train, opened.setup.feed)
    for step, item in enumerate(steps(reader, opened.plan, start=0, stop=STEPS, rank=0, world=1), start=1):
        expected = sum(micro_batch.fingerprint for _, micro_batch in item.micro_batches) % 2**64
        assert history.batch_of(opened, step).fingerprint == expected


def test_every_segment_of_a_step_is_traced_to_a_document_that_the_step_is_listed_for(past, tiny_store):
    opened = history.open_past(str(past))
    batch = history.batch_of(opened, 4)
    groups = sorted({group for place in batch.places for group in place.group.tolist()})
    origins = lineage.origins(tiny_store.train, groups, batch.rows.ids)
    assert len(origins) == len(batch.rows.ids) > 3
    for origin in origins:
        seen = list(history.sightings(opened, origin.document))
        assert [one for _, step, _, segments in seen if step == 4 for one in segments].count(origin.segment) == 1
        assert 0 <= origin.segment < origin.segments


def test_sightings_are_all_the_times_that_a_document_is_read(past, tiny_store):
    opened = history.open_past(str(past))
    places, ids = history.batch_of(opened, 2).places, history.batch_of(opened, 2).rows.ids
    document = lineage.origins(tiny_store.train, [int(group) for place in places for group in place.group], ids)[0]
    held = lineage.rows_of(tiny_store.train, bytes.fromhex(document.document))
    expected = []
    for step in range(1, STEPS + 1):
        for index, places in enumerate(history.batch_of(opened, step).places):
            for at in range(len(places.row)):
                place = (int(places.group[at]), int(places.row[at]))
                found = [one.segments for one in held if place == (one.group, one.row)]
                expected += [(int(places.epoch[at]), step, index, segments) for segments in found]
    assert {epoch for epoch, *_ in expected} >= {0, 1}
    assert sorted(history.sightings(opened, document.document)) == sorted(expected)


def test_points_that_were_read_once_tell_the_fingerprints_and_the_last_step():
    halves = {"data/fingerprint_high": 2.0**31 + 1, "data/fingerprint_low": 7.0}
    points = [Point(3, 0.0, halves | {"train/loss": 9.0}), Point(8, 1.0, {"val/loss": 9.0})]
    assert history.fingerprints(points) == {3: (2**31 + 1) * 2**32 + 7}
    assert history.last_step(points) == 8
    assert (history.fingerprints([]), history.last_step([])) == ({}, 0)


def test_a_step_on_the_screen(look, tmp_path):
    code, out, _ = look("--step=3", "--count=2", "--documents=1")
    assert code == 0
    assert "as the run logged it" in out
    assert out.count("predicted positions") == 2
    assert "more: --documents=0 lists all" in out
    assert "but the run logged" in look("--step=5")[1]
    assert "not logged at this step" in look("--step=4")[1]
    assert "to come: the run has not logged this step yet" in look("--step=6")[1]
    assert look("--step=3", f"--html={tmp_path}/page.html")[0] == 0
    assert "mine, step 3" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "--step and --document: exactly one is needed"),
        (["--step=3", "--document=00"], 2, "--step K, or --document ID"),
        (["--step=0"], 2, "its steps are 1 to 60"),
        (["--step=61"], 2, "its steps are 1 to 60"),
        (["--document=xyz"], 2, "32 hexadecimal digits"),
        (["--document=" + "0" * 32], 3, "the run saw no part"),
        (["--stepp=3"], 2, "did you mean"),
    ],
)
def test_mistakes(look, words, code, told):
    got, _, error = look(*words)
    assert (got, told in error) == (code, True), error


def test_a_run_that_is_gone_and_one_of_another_store(look, past, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none/mlflow.db")
    code, _, error = look("--step=1", run="nothing")
    assert code == 3
    assert "nothing is not a run" in error
    other = tmp_path / "runs" / "other"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text((past / "config.yaml").read_text())
    record = json.loads((past / "run.json").read_text()) | {"store_digest": "0" * 64}
    (other / "run.json").write_text(json.dumps(record))
    code, _, error = look("--step=1", run="other")
    assert code == 3
    assert "not the store that this run was trained on" in error
