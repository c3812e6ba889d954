"""Which models a command names: a folder, a run, a checkpoint of a run, all of them; and what becomes of mistakes."""

import json
from pathlib import Path

import pytest
import torch
from helpers import asked

from glm_model import GLM
from infra.errors import DataError, UserError
from workflows.evaluation.models import find_models
from workflows.runs.record import RunRecord, write_record


@pytest.fixture
def run(tmp_path, tiny_tokenizer) -> Path:
    """An unfinished run: checkpoints of steps 10 and 20, one that is not complete, and the tokenizer in its store."""
    folder, store = tmp_path / "runs" / "a", tmp_path / "store"
    exported = asked.model_folder(tmp_path / "exported", tiny_tokenizer)
    shape = GLM.from_pretrained(exported).config
    tiny_tokenizer.save(str(store))
    write_record(RunRecord("a", "0" * 64, {}, model=shape, store_url=str(store)), str(folder))
    (folder / "config.yaml").write_text("model: {init_from: /models/base}\n")
    weights = Path(exported, "model.safetensors").read_bytes()
    for step in (10, 20, 30):
        place = folder / "checkpoints" / f"step-{step:08d}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(weights)
        manifest = {"format": 2, "step": step, "files": {"model.safetensors": len(weights) + (step == 30)}}
        (place / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_checkpoints_of_a_run_that_is_not_finished(run):
    both = find_models([f"{run}@*"])
    assert [(model.name, model.run, model.step) for model in both] == [("a@step=10", "a", 10), ("a@step=20", "a", 20)]
    (one,) = find_models([f"{run}@step=20"])
    assert (one.started_from, one.selected_by) == ("/models/base", "a step that was named")
    model, tokenizer = one.load(), one.load_tokenizer()
    assert (one.positions(), model.config.vocab_size, tokenizer.vocab_size) == (48, 128, 40)


def test_equal_weights_are_one_digest_wherever_they_lie(run, tmp_path, tiny_tokenizer):
    first, second = find_models([f"{run}@*"])
    assert first.digest == second.digest
    (folder,) = find_models([asked.model_folder(tmp_path / "b", tiny_tokenizer)])
    copy = find_models([asked.model_folder(tmp_path / "c", tiny_tokenizer)])[0]
    assert (folder.name, folder.digest) == ("b", copy.digest)
    with torch.no_grad():
        changed = GLM.from_pretrained(folder.url)
        changed.final_norm.weight[0] += 1
    changed.save_pretrained(folder.url, tiny_tokenizer)
    assert find_models([folder.url])[0].digest != copy.digest


def test_mistakes_name_what_there_is(run):
    with pytest.raises(DataError, match=r"has no checkpoint of step 15\n  why: it has 10, 20"):
        find_models([f"{run}@step=15"])
    with pytest.raises(UserError, match="what stands behind @ is unknown"):
        find_models([f"{run}@latest"])
