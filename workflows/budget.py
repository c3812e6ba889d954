"""What a run will do, computed once before it starts: rows of a step, steps, epochs, parameters and cost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glm_model.config import GLMConfig, flops_per_token, num_parameters, sized
from glm_model.tokenizer import Tokenizer
from glm_model.train import learning_rate
from infra import storage, tracking
from infra.errors import UserError
from pipelines import blanks
from pipelines.batches import BatchPlan
from pipelines.blanks import RowBatch
from pipelines.pack import RESERVE_SIGMAS
from pipelines.store import TokenStore
from pipelines.vocabulary import Vocabulary
from workflows.initial import check_tokenizer, grown, pretrained_config
from workflows.recipe import Recipe

BYTES_PER_PARAMETER = 16  # fp32 weight, gradient and the two moments of AdamW


@dataclass(frozen=True)
class Budget:
    """micro_batches: of a step (M); tokens are source tokens; expansion: positions per source token."""

    steps: int
    micro_rows: int
    micro_batches: int
    row_tokens: float
    epoch_steps: float
    expansion: float
    parameters: int
    flops_per_token: float

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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_recipe(recipe: Recipe, *, begun: bool = False) -> None:
    """Refuse what cannot be trained, before hours go into its data. begun: the run has a model already, whose shape
    stands in its record, and what it began with may be gone.
    """
    if not has_length(recipe):
        raise UserError(
            "the run has no length: give train.tokens, train.steps or train.hours", try_="--train.tokens=20B"
        )
    if recipe.train.steps is not None and recipe.train.hours is not None:
        raise UserError("train.steps and train.hours are both given", try_="--train.steps=null, or --train.hours=null")
    if not begun:
        _shape(recipe, recipe.data.sequence_length, vocab_size=128)
    if recipe.train.steps is not None:
        _check_warmup(recipe, recipe.train.steps)
    tracking.resolve_uri(recipe.tracking, recipe.run.storage_path)


def has_length(recipe: Recipe) -> bool:
    """Whether the recipe says how long to train (one for prepare.py alone does not)."""
    train = recipe.train
    return not (train.tokens is None and train.steps is None and train.hours is None)


def model_config(recipe: Recipe, opened: TokenStore, tokenizer: Tokenizer) -> GLMConfig:
    """The model's shape. Raises UserError for unknown sizes and for segments beyond the position tables."""
    needed = tokenizer.vocab_size + blanks.resolve(recipe.blanks).form.extra_tokens
    if recipe.model.init_from:
        check_tokenizer(recipe.model.init_from, tokenizer)
    return _shape(recipe, opened.manifest["settings"]["sequence_length"], vocab_size=-(-needed // 128) * 128)


def model_name(recipe: Recipe) -> str:
    """What the model is called: its size, or the model that it begins with."""
    init_from = recipe.model.init_from
    return "from " + "/".join(init_from.rstrip("/").split("/")[-2:]) if init_from else recipe.model.size


def _shape(recipe: Recipe, length: int, *, vocab_size: int) -> GLMConfig:
    own = pretrained_config(recipe.model.init_from) if recipe.model.init_from else None
    positions = recipe.model.positions or max(length, own.positions if own else 0)
    if length > positions:
        raise UserError(
            f"segments of {length} tokens are beyond the position table: model.positions={positions}",
            try_=f"model.positions={length}, or a store of data.sequence_length={positions}",
        )
    if own:
        return _grown(own, recipe, positions, vocab_size)
    try:
        return sized(
            recipe.model.size,
            vocab_size=vocab_size,
            positions=positions,
            block_positions=recipe.model.block_positions,
            dropout=recipe.model.dropout,
            attention_dropout=recipe.model.dropout,
        )
    except ValueError as error:
        raise UserError(f"model.size: {error}") from error


def _grown(own: GLMConfig, recipe: Recipe, positions: int, vocab_size: int) -> GLMConfig:
    if own.block_positions != recipe.model.block_positions:
        has = "a second position" if own.block_positions else "no second position"
        raise UserError(
            f"model.init_from={recipe.model.init_from} has {has}",
            try_=f"--model.block_positions={str(own.block_positions).lower()}",
        )
    if positions < own.positions:
        raise UserError(
            f"model.positions={positions} is less than the {own.positions} of model.init_from",
            try_="leave model.positions out: a shorter text needs no shorter table",
        )
    return grown(own, positions=positions, vocab_size=vocab_size, dropout=recipe.model.dropout)


def make_budget(
    recipe: Recipe, opened: TokenStore, config: GLMConfig, vocabulary: Vocabulary, *, steps: int | None = None
) -> Budget:
    """Settle the batch and the length of the run. steps: settled before, what `train.hours` came to. Raises UserError
    where the settings cannot work together.
    """
    train = recipe.train
    if opened.train.rows == 0:
        raise UserError("the store has no training rows", try_="more text, or a smaller data.validation_fraction")
    row_tokens = opened.row_tokens
    micro_batches = max(1, round(train.batch_tokens / row_tokens / train.micro_rows))
    if train.max_workers > micro_batches:
        raise UserError(
            f"{train.max_workers} workers for {micro_batches} micro-batches of a step: some would have nothing to do",
            why=f"train.batch_tokens={train.batch_tokens} is {micro_batches} micro-batches of {train.micro_rows} rows "
            f"with {row_tokens:,.0f} tokens each",
            try_=f"train.num_workers={micro_batches}, or "
            f"train.batch_tokens={int(train.max_workers * train.micro_rows * row_tokens) + 1}",
        )
    step_tokens = micro_batches * train.micro_rows * row_tokens
    if steps is None:
        steps = train.steps if train.steps is not None else max(1, round((train.tokens or 0) / step_tokens))
    _check_warmup(recipe, steps)
    rows = opened.train.read_group(0)
    _check_expansion(recipe, opened, rows, vocabulary)
    expansion, flops = _useful_work(recipe, opened, rows, config, vocabulary)
    return Budget(
        steps=steps,
        micro_rows=train.micro_rows,
        micro_batches=micro_batches,
        row_tokens=row_tokens,
        epoch_steps=opened.train.rows / (micro_batches * train.micro_rows),
        expansion=expansion,
        parameters=num_parameters(config),
        flops_per_token=flops,
    )


def epochs_text(budget: Budget, opened: TokenStore) -> str:
    """How often the run reads the store, or each store of a mix."""
    if not opened.parts:
        return f"{budget.epochs:.2f} epochs"
    edges = np.cumsum([0, *(part.groups for part in opened.parts)])[:-1]
    rows = np.add.reduceat(opened.train.group_rows, edges)
    return ", ".join(
        f"{budget.steps * budget.step_rows * part.weight / own:.2f} epochs of {storage.base_name(member['url'])[:8]}"
        for part, own, member in zip(opened.parts, rows.tolist(), opened.manifest["members"], strict=True)
    )


def batch_plan(budget: Budget, opened: TokenStore, recipe: Recipe) -> BatchPlan:
    return BatchPlan(
        tuple(opened.train.group_rows.tolist()),
        seed=recipe.train.seed,
        micro_rows=budget.micro_rows,
        micro_batches=budget.micro_batches,
        window=recipe.train.window,
        parts=opened.parts,
    )


def _check_warmup(recipe: Recipe, steps: int) -> None:
    try:
        learning_rate(0, steps, recipe.optim)
    except ValueError as error:
        raise UserError(str(error)) from error


def _useful_work(
    recipe: Recipe, opened: TokenStore, rows: RowBatch, config: GLMConfig, vocabulary: Vocabulary
) -> tuple[float, float]:
    """(positions, useful operations) per source token, with the blanks of these rows in the first epoch."""
    mixture, width = blanks.resolve(recipe.blanks), opened.manifest["settings"]["row_width"]
    drawn, _ = blanks.draw_rows(mixture, rows, vocabulary, seed=recipe.blanks.seed, epoch=0, width=width)
    blanked = np.add.reduceat(drawn.spans[:, 1] - drawn.spans[:, 0], drawn.span_offsets[:-1])
    count, length = np.diff(drawn.span_offsets), np.diff(rows.offsets)
    predicted, context = blanked + count, length - blanked + count
    if mixture.form.in_place:
        predicted, context = blanked, length
    positions = length if mixture.form.in_place else predicted + context
    back = 0 if mixture.form.in_place else predicted * (predicted + 1) / 2
    pairs = context * positions + back
    per_position = flops_per_token(
        config,
        segment_length=pairs.sum() / positions.sum(),
        density=1.0,  # the length is that of the visible pairs already
        blank_share=predicted.sum() / positions.sum(),
    )
    expansion = float(positions.sum() / len(rows.tokens))
    return expansion, float(per_position * expansion)


def _check_expansion(recipe: Recipe, opened: TokenStore, rows: RowBatch, vocabulary: Vocabulary) -> None:
    """Refuse a mixture that expands more than the store's rows have room for."""
    width = opened.manifest["settings"]["row_width"]
    mean, variance = blanks.moments(blanks.resolve(recipe.blanks), rows, vocabulary)
    need = np.add.reduceat(mean, rows.row_offsets[:-1]) + RESERVE_SIGMAS * np.sqrt(
        np.add.reduceat(variance, rows.row_offsets[:-1])
    )
    if need.max() > width + 1e-6:
        raise UserError(
            f"this mixture may need {int(need.max()):,} positions in a row, and the store's rows have {width:,}",
            why=f"the store was packed for {opened.manifest['settings']['blanks']['mixture']!r}, which expands less",
            try_="python workflows/prepare.py --config <this recipe>   # makes a store for this mixture beside "
            "the old one",
        )
