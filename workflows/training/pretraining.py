"""Pretraining: a GLM that fills blanks of a token store's rows."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from glm_model import GLMConfig, Tokenizer
from glm_model.config import LossOptions
from glm_model.train import TrainStep
from infra import commands
from pipelines.config import cache_of
from pipelines.feed.examples import FeedSettings, feed_settings
from pipelines.feed.micro_batches import RowReader, Step, steps
from pipelines.store.format import TokenStore
from workflows.settings.budget import Budget, batch_plan
from workflows.settings.recipe import Recipe
from workflows.training.engine import Place, Training
from workflows.training.initial_weights import initial_model
from workflows.training.to_device import page_lock, to_device
from workflows.training.validation import validate, validation_of
from workflows.training.zero_shot import ZeroShot, zero_shot_scores


@dataclass(frozen=True)
class Pretraining:
    """What a pretraining worker reads, trains and validates on (`Kind`)."""

    recipe: Recipe
    """Its places are absolute, and all nodes see them."""
    budget: Budget
    model: GLMConfig
    store_url: str
    """The token store, with its tokenizer."""
    blanks_key: str
    """Names the blanks that the store may hold already, drawn in advance."""
    run_url: str | None = None
    """For commands that show a step's examples."""
    asked: tuple[ZeroShot, ...] = ()
    """Tasks that the model is asked at each validation."""

    def begin(self, place: Place) -> Training:
        """Raises UserError and DataError where the store or the model to begin with does not serve."""
        recipe, train = self.recipe, self.recipe.train
        store = TokenStore.open(self.store_url, cache=cache_of(recipe.data))
        tokenizer = Tokenizer.load(self.store_url)
        settings = feed_settings(
            store,
            tokenizer,
            recipe.blanks,
            blanks_key=self.blanks_key,
            expand_on_device=place.ranks.device.type == "cuda",
        )
        mixture = settings.mixture
        model = initial_model(
            self.model, seed=train.seed, init_from=None if place.is_restored else recipe.model.init_from
        ).to(place.ranks.device)
        step = TrainStep(
            model,
            num_objectives=len(mixture.names),
            precision=place.precision,
            options=LossOptions(train.label_smoothing, train.z_loss),
            compiled=train.compile,
            checkpoint_activations=train.checkpoint_activations,
        )
        held_out = validation_of(
            store,
            replace(settings, split_name="validation"),
            recipe.blanks.mask_tokens,
            rows=train.eval_rows,
            micro_rows=train.micro_rows,
        )

        def validated() -> dict[str, float]:
            of_text = validate(step, held_out, place) if held_out.places else {}
            return of_text | zero_shot_scores(self.asked, model, tokenizer, place)

        return Training(
            model=model,
            step=step,
            objectives=mixture.names,
            shares=mixture.shares,
            steps=functools.partial(self._steps, store, settings, place),
            to_device=functools.partial(to_device, device=place.ranks.device, config=self.model),
            validate=validated if held_out.places or self.asked else None,
            score=lambda values: values.get("val/loss"),
            points=self._points,
            flops_per_token=self.budget.flops_per_token,
            look_at=lambda step: commands.workflow("inspect_run", "--run", self.run_url or "", "--step", str(step)),
        )

    def _steps(self, store: TokenStore, settings: FeedSettings, place: Place, start: int, stop: int) -> Iterator[Step]:
        ranks, windows = place.ranks, 2 * max(len(store.parts), 1)  # the one being read and the next, of each store
        return steps(
            RowReader(store.train, settings, cached_groups=windows * self.recipe.train.window),
            batch_plan(self.budget, store, self.recipe),
            start=start,
            stop=stop,
            rank=ranks.rank,
            world=ranks.world,
            finish=page_lock if ranks.device.type == "cuda" else None,
        )

    def _points(self, step: int) -> dict[str, float]:
        return {"data/tokens": round(step * self.budget.step_tokens), "data/epoch": step / self.budget.epoch_steps}
