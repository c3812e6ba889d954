"""Recipes of tasks (law 15): each is read by both commands that take a task; and what a recipe comes to."""

from pathlib import Path

import pytest

from infra import config
from infra.errors import UserError
from pipelines.questions.pattern import Pattern
from workflows.settings.campaign import CampaignRecipe
from workflows.settings.finetune import FinetuneConfig, FinetuneRecipe

FOLDER = Path(__file__).resolve().parents[3] / "workflows" / "recipes" / "tasks"
CAMPAIGNS = FOLDER.parent / "campaigns"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_a_task_is_read(path):
    recipe = config.parse(FinetuneRecipe, description="", argv=["--config", str(path)]).config
    pattern = Pattern(recipe.task.pattern or "", recipe.task.words)
    assert set(pattern.fields) <= {*recipe.task.columns}
    assert set(config.plain(recipe.task)) >= {"columns", "words"}
    assert recipe == config.from_yaml(FinetuneRecipe, config.to_yaml(recipe))


@pytest.mark.parametrize("path", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_a_campaign_is_read(path):
    recipe = config.parse(CampaignRecipe, description="", argv=["--config", str(path)]).config
    assert recipe.is_campaign
    assert recipe == config.from_yaml(CampaignRecipe, config.to_yaml(recipe))


def test_validations_and_checkpoints_come_each_epoch_unless_said_otherwise():
    assert FinetuneConfig().training(57).eval_every == FinetuneConfig().training(57).checkpoint_every == 57
    assert FinetuneConfig(eval_every=5).training(57).eval_every == 5


def test_more_workers_than_micro_batches_are_refused():
    with pytest.raises(UserError, match="3 workers for 2 micro-batches of a step: some would be idle"):
        FinetuneConfig(batch=16, micro=8, num_workers=3)
