"""A recipe with all that it resolves to: resolved once, before a run starts, and passed on as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from glm_model.config import GLMConfig
from glm_model.tokenizer import Tokenizer
from infra.console import Console
from pipelines.feed.examples import FeedSettings, feed_settings
from pipelines.store.format import TokenStore
from workflows.settings.budget import MANY_STEPS, Budget, check_warmup, make_budget
from workflows.settings.recipe import Recipe
from workflows.settings.shape import model_config


@dataclass(frozen=True)
class Setup:
    """What a run is made of."""

    recipe: Recipe
    store: TokenStore
    tokenizer: Tokenizer
    """The store's."""
    feed: FeedSettings
    """How the run reads the training split: its mixture of objectives, and what becomes of rows and blanks."""
    shape: GLMConfig
    """The model's."""
    budget: Budget
    screen: Console
    """Where the run shows what it does."""

    def with_steps(self, steps: int) -> Setup:
        """The same with another length. Raises UserError when the warm-up would take all of it."""
        check_warmup(self.recipe.optim, steps)
        return replace(self, budget=replace(self.budget, steps=steps))


def resolve_setup(
    recipe: Recipe, store: TokenStore, screen: Console, *, shape: GLMConfig | None = None, steps: int | None = None
) -> Setup:
    """Resolve a recipe on its store. shape, steps: those that the run began with; None: they follow from the recipe.

    The length of a new run that is given in hours is `MANY_STEPS` until it is known. Raises UserError for settings that
    cannot work together.
    """
    tokenizer = Tokenizer.load(store.url)
    feed = feed_settings(store, tokenizer, recipe.blanks)
    shape = shape or model_config(recipe, store, tokenizer)
    if steps is None and recipe.train.hours is not None:
        steps = MANY_STEPS
    budget = make_budget(recipe, store, shape, feed, steps=steps)
    return Setup(recipe, store, tokenizer, feed, shape, budget, screen)
