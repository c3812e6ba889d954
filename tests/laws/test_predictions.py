"""Law 22: prediction's output has every input row once, with its answer or its reason, after any kill, by any number of
workers: equal bytes.
"""

import sys
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import asked

from infra import storage
from infra.storage import parquet
from workflows import predict
from workflows.evaluation.models import Model
from workflows.prediction import prediction


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(prediction, "ROWS", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    folder = asked.model_folder(tmp_path_factory.mktemp("model"), tiny_tokenizer)
    return asked.teach(folder, {"bad": "dog", "good": "ran"})


@pytest.fixture
def label(monkeypatch, tmp_path, model):
    """Predict 30 rows of two files, one of them damaged, 7 at a time: the bytes of all that is written."""
    folder = tmp_path / "data"
    asked.write(folder / "a.jsonl", asked.rows(16))
    with (folder / "a.jsonl").open("a") as file:
        file.write("{damaged\n")
    asked.write(folder / "b.jsonl", asked.rows(29)[16:])

    def label(to: str, *argv: str) -> dict[str, bytes]:
        given = [f"--model={model}", f"--input={folder}", f"--to={tmp_path / to}", "--shard_rows=7", "--max_bad=0.1"]
        given += ["--batch_positions=50", "--console.quiet=true"]
        monkeypatch.setattr(sys, "argv", ["predict.py", *given, *argv])
        predict.main()
        return {path.name: path.read_bytes() for path in sorted((tmp_path / to).iterdir())}

    return label


def test_every_row_is_there_once_and_in_order_after_kills_at_every_write(label, monkeypatch, tmp_path):
    whole = label("whole")
    rows = pq.read_table(tmp_path / "whole").to_pylist()
    assert [row["id"] for row in rows] == [
        *(f"item-{n}" for n in range(16)), None, *(f"item-{n}" for n in range(16, 29))
    ]  # fmt: skip
    assert [(row["label"] is None) == (row["reason"] is not None) for row in rows] == [True] * 30
    assert rows[16]["reason"].startswith("a.jsonl:17: malformed JSON")

    killed = 0
    real = {storage: storage.write_json, parquet: parquet.write_table}

    def killed_after(write, url, *args):
        write(url, *args)
        raise KeyboardInterrupt

    def killed_before(write, url, *args):
        raise KeyboardInterrupt

    for kill in (killed_before, *[killed_after] * 5, killed_before):
        with monkeypatch.context() as faults:
            faults.setattr(parquet, "write_table", partial(kill, real[parquet]))
            faults.setattr(storage, "write_json", partial(killed_before, real[storage]))
            with pytest.raises(KeyboardInterrupt):
                label("killed")
        killed += 1
        assert not Path(tmp_path, "killed", "_manifest.json").exists()
    assert killed == 7
    assert label("killed") == whole


def test_what_is_answered_is_not_asked_again(label, monkeypatch):
    whole = label("whole")
    monkeypatch.setattr(Model, "load", None)  # who asks the model fails
    assert label("whole") == whole


@pytest.mark.ray
def test_the_number_of_workers_plays_no_part(label, local_ray):
    assert label("here") == label("actors", "--num_workers=2")
