"""What a finished run exports."""

import pytest
import torch

from glm_model import GLM
from glm_model.config import GLMConfig
from infra import storage, tracking
from infra.checkpoint import CheckpointWriter
from infra.console import Console
from workflows.runs.final_model import export
from workflows.runs.run import Run
from workflows.runs.setup import resolve_setup
from workflows.settings.recipe import Recipe


@pytest.mark.parametrize(("steps", "exported"), [(6, 6), (50, 2)], ids=["to its end", "early"])
def test_the_last_model_is_exported_and_of_a_run_that_ended_early_the_best(tiny_store, tmp_path, steps, exported):
    shape = GLMConfig(layers=1, width=8, heads=1, vocab_size=128, positions=32)
    made = Recipe()
    made.run.storage_path = str(tmp_path)
    made.train.steps = steps
    run, setup = Run.of(made, "run"), resolve_setup(made, tiny_store, Console(), shape=shape)
    checkpoints = CheckpointWriter(run.checkpoints_url, keep=9)
    for step, score in ((2, 0.1), (4, 0.5), (6, 0.4)):
        model = GLM(shape)
        with torch.no_grad():
            model.token_embedding.weight.fill_(step)
        state = {"validated": {"step": step, "val/bits_per_byte": score}}
        checkpoints.save(step, model.state_dict(), {"state": {}, "param_groups": []}, state, score=score)
        checkpoints.wait()
    validated = export(setup, run, tracking.NOT_TRACKED)
    assert validated["step"] == exported
    assert GLM.from_pretrained(run.model_url).token_embedding.weight[0, 0] == exported
    card = storage.read_bytes(storage.join(run.model_url, "README.md")).decode()
    assert f"| step | {exported} |" in card
