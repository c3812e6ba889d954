"""Each ablation of the paper, from a recipe's settings to a gradient, on one store."""

import numpy as np
import pytest
import torch
from helpers import small

from glm_model import GLM
from glm_model.train import TrainStep
from pipelines.blanks.mixture import BlanksConfig
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import RowPlaces
from workflows.settings.recipe import ModelConfig, Recipe
from workflows.settings.shape import model_config
from workflows.training.to_device import to_device

ABLATIONS = {
    "none": ({}, True),
    "no span shuffle": ({"order": "left_to_right"}, True),
    "sentinels": ({"mask_tokens": "sentinel"}, True),
    "no second position": ({}, False),
    "masked language model": ({"mixture": {"masked_lm": 1.0}}, True),
    "noise": ({"noise": 0.2}, True),
    "all that go together": ({"order": "left_to_right", "mask_tokens": "sentinel", "noise": 0.2}, False),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_trains_on_the_store_that_is_there(tiny_store, tiny_tokenizer, name):
    blanks, block_positions = ABLATIONS[name]
    settings = small.settings_of(tiny_store, tiny_tokenizer, **{"mixture": "glm", **blanks})
    recipe = Recipe(
        blanks=BlanksConfig(**{"mixture": "glm", **blanks}),
        model=ModelConfig(size="tiny", dropout=0.0, block_positions=block_positions),
    )
    torch.manual_seed(0)
    model = GLM(model_config(recipe, tiny_store, tiny_tokenizer))
    step = TrainStep(model, num_objectives=1, precision="fp32")
    reader = RowReader(tiny_store.train, settings)
    batch = reader.micro_batch(RowPlaces(np.zeros(2, np.int64), np.zeros(2, np.int64), np.arange(2)))
    sums, counts = step(to_device(batch))
    assert counts.tolist() == batch.counts.tolist()
    assert counts.tolist() == [int(batch.example.loss_mask.sum())]
    assert 0.5 < float(sums[0].detach() / counts[0]) / np.log(model.config.vocab_size) < 1.5, (
        "an untrained model guesses"
    )
    sums.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert (model.block_position_embedding is not None) == block_positions
