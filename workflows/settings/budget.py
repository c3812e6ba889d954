"""What a run will do, computed once before it starts: rows of a step, steps, epochs, parameters and cost."""

import math
from dataclasses import dataclass

import numpy as np

from glm_model.config import GLMConfig, OptimConfig, flops_per_token, num_parameters
from glm_model.tokenizer import Tokenizer
from infra import commands, storage, tracking
from infra.errors import UserError
from pipelines.blanks.draw import moments
from pipelines.feed.examples import FeedSettings, draw_epoch
from pipelines.feed.order import BatchPlan
from pipelines.ragged import RowBatch
from pipelines.store.format import TokenStore
from pipelines.store.packing import RESERVE_SIGMAS
from pipelines.store.tokenizer import load_tokenizer
from workflows.settings.eval_tasks import check_eval_tasks
from workflows.settings.recipe import Recipe
from workflows.settings.shape import check_tokenizer, shape_for

BYTES_PER_PARAMETER = 16  # fp32 weight, gradient and the two moments of AdamW
MANY_STEPS = 10**9  # of a run whose length is not known yet: its end must not be in sight
_LEAST_ROW = 0.9  # of what a row is estimated to hold: what only a store can tell is not refused without one


@dataclass(frozen=True)
class Budget:
    """Tokens are source tokens; positions are what the model computes on, blanks laid out."""

    steps: int
    micro_rows: int
    """Rows of a micro-batch."""
    micro_batches: int
    """Micro-batches of a step, over all workers."""
    row_tokens: float
    """Tokens of a row, on average."""
    epoch_steps: float
    expansion: float
    """Positions per token."""
    parameters: int
    flops_per_token: float
    """Useful operations of forward and backward per token."""

    @property
    def step_rows(self) -> int:
        return self.micro_rows * self.micro_batches

    @property
    def step_tokens(self) -> float:
        return self.step_rows * self.row_tokens

    @property
    def tokens(self) -> float:
        return self.steps * self.step_tokens

    @property
    def epochs(self) -> float:
        return self.steps / self.epoch_steps

    def first_step(self, tokens: int) -> int:
        """The first step after which so many tokens were seen."""
        return math.ceil(tokens / self.step_tokens)


def check_recipe(recipe: Recipe, *, begun: bool = False) -> None:
    """Refuse what cannot be trained, before hours go into its data. begun: the run has a model already, whose shape
    stands in its record, and what it began with may be gone.
    """
    if not has_length(recipe):
        raise UserError(
            "the run has no length: train.tokens, train.steps or train.hours is needed",
            try_="--train.tokens=20B, or a recipe: --config workflows/recipes/quickstart.yaml",
        )
    if recipe.train.steps is not None and recipe.train.hours is not None:
        raise UserError("train.steps and train.hours are both given", try_="--train.steps=null, or --train.hours=null")
    if not begun:
        shape_for(recipe, recipe.data.sequence_length, vocab_size=128)
        check_given_tokenizer(recipe)
    if recipe.train.steps is not None:
        check_warmup(recipe.optim, recipe.train.steps)
    check_eval_tasks(recipe.train.eval_tasks)
    tracking.resolve_uri(recipe.tracking, recipe.run.storage_path)


def check_given_tokenizer(recipe: Recipe) -> None:
    """Refuse another tokenizer than that of the model that the run begins with."""
    init_from, given = recipe.model.init_from, recipe.data.tokenizer
    if not init_from or given.url == init_from:
        return
    if store := recipe.data.store or next((member.store for member in recipe.data.mix), None):  # a mix has one
        check_tokenizer(init_from, Tokenizer.load(store))
    elif given.url:
        check_tokenizer(init_from, load_tokenizer(given.url, lowercase=given.lowercase))


def has_length(recipe: Recipe) -> bool:
    """Whether the recipe says how long to train (one for prepare.py alone does not)."""
    train = recipe.train
    return not (train.tokens is None and train.steps is None and train.hours is None)


def check_warmup(optim: OptimConfig, steps: int) -> None:
    """Raises UserError when the warm-up takes all steps of the run."""
    try:
        optim.warmup(steps)
    except ValueError as error:
        raise UserError(str(error)) from error


def make_budget(
    recipe: Recipe, store: TokenStore, shape: GLMConfig, feed: FeedSettings, *, steps: int | None = None
) -> Budget:
    """Resolve the batch and the length of the run. feed: how it reads the store; steps: known already, such as what
    `train.hours` came to. Raises UserError where the settings cannot work together.
    """
    if store.train.rows == 0:
        raise UserError("the store has no training rows", try_="use more text, or a smaller data.validation_fraction")
    row_tokens = store.row_tokens
    _check_workers(recipe, row_tokens)
    steps = _steps(recipe, row_tokens) if steps is None else steps
    check_warmup(recipe.optim, steps)
    rows = store.train.read_group(0)
    _check_expansion(rows, feed, packed_for=store.manifest.packed_for["mixture"])
    work = _useful_work(rows, feed, shape)
    return _budget(recipe, shape, work, steps=steps, row_tokens=row_tokens, num_rows=store.train.rows)


def planned_budget(
    recipe: Recipe,
    shape: GLMConfig,
    synthetic: tuple[RowBatch, FeedSettings],
    *,
    tokens: float,
    steps: int | None = None,
) -> Budget:
    """An estimate of what `make_budget` will say of a store that is not there yet.

    synthetic: from `synthetic_rows`; tokens: of the whole corpus. Raises UserError for settings that cannot work.
    """
    rows, feed = synthetic
    row_tokens = len(rows.tokens) / (len(rows.row_offsets) - 1)
    _check_workers(recipe, row_tokens, least=_LEAST_ROW)
    steps = _steps(recipe, row_tokens) if steps is None else steps
    check_warmup(recipe.optim, steps)
    held_out = recipe.data.validation_fraction
    if held_out:  # a small corpus holds out more, up to a quarter (`pipelines.store.held_out`)
        held_out = max(held_out, min(recipe.data.validation_tokens / max(tokens, 1), 0.25))
    trained = tokens * (1 - held_out - recipe.data.test_fraction)
    work, num_rows = _useful_work(rows, feed, shape), max(1, round(trained / row_tokens))
    return _budget(recipe, shape, work, steps=steps, row_tokens=row_tokens, num_rows=num_rows)


def epochs_text(budget: Budget, store: TokenStore) -> str:
    """How often the run reads the store, or each store of a mix."""
    if not store.parts:
        return f"{budget.epochs:.2f} epochs"
    edges = np.cumsum([0, *(part.groups for part in store.parts)])[:-1]
    rows = np.add.reduceat(store.train.group_rows, edges)
    return ", ".join(
        f"{budget.steps * budget.step_rows * part.weight / own:.2f} epochs of {storage.base_name(member.url)[:8]}"
        for part, own, member in zip(store.parts, rows.tolist(), store.manifest.members, strict=True)
    )


def batch_plan(budget: Budget, store: TokenStore, recipe: Recipe) -> BatchPlan:
    """The order in which the run reads the store's rows."""
    return BatchPlan(
        tuple(store.train.group_rows.tolist()),
        seed=recipe.train.seed,
        micro_rows=budget.micro_rows,
        micro_batches=budget.micro_batches,
        window=recipe.train.window,
        parts=store.parts,
    )


def _budget(
    recipe: Recipe, shape: GLMConfig, work: tuple[float, float], *, steps: int, row_tokens: float, num_rows: int
) -> Budget:
    """work: as `_useful_work` gives it; num_rows: of an epoch."""
    micro_rows, micro_batches = recipe.train.micro_rows, _micro_batches(recipe, row_tokens)
    return Budget(
        steps=steps,
        micro_rows=micro_rows,
        micro_batches=micro_batches,
        row_tokens=row_tokens,
        epoch_steps=num_rows / (micro_batches * micro_rows),
        expansion=work[0],
        parameters=num_parameters(shape),
        flops_per_token=work[1],
    )


def _micro_batches(recipe: Recipe, row_tokens: float) -> int:
    return max(1, round(recipe.train.batch_tokens / row_tokens / recipe.train.micro_rows))


def _steps(recipe: Recipe, row_tokens: float) -> int:
    if recipe.train.steps is not None:
        return recipe.train.steps
    step_tokens = _micro_batches(recipe, row_tokens) * recipe.train.micro_rows * row_tokens
    return max(1, round((recipe.train.tokens or 0) / step_tokens))


def _check_workers(recipe: Recipe, row_tokens: float, *, least: float = 1.0) -> None:
    """Refuse workers without work. least: the part of its tokens that a row holds at least, where they are a guess."""
    train, micro_batches = recipe.train, _micro_batches(recipe, least * row_tokens)
    if train.max_workers > micro_batches:
        guessed = ", fewer than a row is likely to hold" if least < 1 else ""
        raise UserError(
            f"{train.max_workers} workers for {micro_batches} micro-batches of a step: some would have nothing to do",
            why=f"train.batch_tokens={train.batch_tokens} is {micro_batches} micro-batches of {train.micro_rows} rows "
            f"with {least * row_tokens:,.0f} tokens each{guessed}",
            try_=f"--train.num_workers={micro_batches}, or "
            f"--train.batch_tokens={int(train.max_workers * train.micro_rows * row_tokens) + 1}",
        )


def _useful_work(rows: RowBatch, feed: FeedSettings, shape: GLMConfig) -> tuple[float, float]:
    """(positions, useful operations) per source token, with the blanks of these rows in the first epoch."""
    blanks, form = draw_epoch(rows, feed, 0), feed.mixture.form
    positions, predicted = form.positions(rows, blanks), form.targets(blanks)
    per_position = flops_per_token(
        shape,
        segment_length=form.visible_pairs(rows, blanks).sum() / positions.sum(),
        density=1.0,  # the length is that of the visible pairs already
        blank_share=predicted.sum() / positions.sum(),
    )
    expansion = float(positions.sum() / len(rows.tokens))
    return expansion, float(per_position * expansion)


def _check_expansion(rows: RowBatch, feed: FeedSettings, *, packed_for: str) -> None:
    """Refuse a mixture that expands more than the store's rows have room for. packed_for: the mixture of the store."""
    mean, variance = moments(feed.mixture, rows, feed.token_classes)
    starts = rows.row_offsets[:-1]
    need = np.add.reduceat(mean, starts) + RESERVE_SIGMAS * np.sqrt(np.add.reduceat(variance, starts))
    if need.max() > feed.width + 1e-6:
        raise UserError(
            f"this mixture may need {int(need.max()):,} positions in a row, and the store's rows have {feed.width:,}",
            why=f"the store was packed for {packed_for!r}, which expands less",
            try_=f"{commands.workflow('prepare')} --config <this recipe>   # makes another store for this mixture",
        )
