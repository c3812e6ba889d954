"""run.json: what is known is in it, and a file of an earlier version is read with all that it says."""

import json

import pytest

from glm_model.config import GLMConfig
from infra.tracking import RunHandle
from workflows.runs.record import RunRecord, Validation, has_record, read_record, write_record

# As pretrain.py wrote it before records were dataclasses.
EARLIER = {
    "name": "mine",
    "identity": "a" * 64,
    "settings": {"optim.lr": "0.01", "model.init_from": "null"},
    "finished": True,
    "model": {
        "layers": 2, "width": 128, "heads": 2, "vocab_size": 640, "positions": 64, "block_positions": True,
        "dropout": 0.1, "attention_dropout": 0.1,
    },
    "store_url": "/data/stores/1",
    "store_digest": "b" * 64,
    "steps": 20,
    "mlflow_run_id": "c" * 32,
    "tracking_uri": "sqlite:///runs/mlflow.db",
    "experiment_id": "1",
    "validation": {"first": 3.5, "last": 3.25},
    "in_mlflow": False,
}  # fmt: skip


def test_the_file_of_an_earlier_version_is_read_and_written_as_it_was(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(EARLIER))
    record = read_record(str(tmp_path))
    assert record == RunRecord(
        "mine",
        "a" * 64,
        EARLIER["settings"],
        finished=True,
        model=GLMConfig(2, 128, 2, 640, 64),
        store_url="/data/stores/1",
        store_digest="b" * 64,
        steps=20,
        mlflow_run_id="c" * 32,
        tracking_uri="sqlite:///runs/mlflow.db",
        experiment_id="1",
        validation=Validation(3.5, 3.25),
        in_mlflow=False,
    )
    assert record.tracking == RunHandle("sqlite:///runs/mlflow.db", "c" * 32, "1")
    write_record(record, str(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text()) == EARLIER


def test_what_is_not_known_stays_out(tmp_path):
    record = RunRecord("new", "a", {"k": "null"}, validation=Validation(first=3.5))
    assert not has_record(str(tmp_path))
    write_record(record, str(tmp_path))
    written = json.loads((tmp_path / "run.json").read_text())
    assert written == {
        "name": "new", "identity": "a", "settings": {"k": "null"}, "finished": False, "validation": {"first": 3.5},
    }  # fmt: skip
    assert has_record(str(tmp_path))
    assert read_record(str(tmp_path)) == record
    assert record.tracking is None


@pytest.mark.parametrize(("found", "expected"), [({}, ("r", "", {})), ({"name": "x", "later": [1]}, ("x", "", {}))])
def test_keys_that_are_absent_or_of_a_later_version(tmp_path, found, expected):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text(json.dumps(found))
    assert read_record(str(tmp_path / "r")) == RunRecord(*expected)
