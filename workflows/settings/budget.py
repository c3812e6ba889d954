"""What a run will do, computed once before it starts: rows of a step, steps, epochs, parameters and cost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glm_model.config import GLMConfig, flops_per_token, num_parameters
from infra import storage, tracking
from infra.errors import UserError
from pipelines.blanks.draw import draw_rows, moments
from pipelines.blanks.mixture import resolve
from pipelines.feed.order import BatchPlan
from pipelines.ragged import RowBatch, Segments, offsets_of, take_rows
from pipelines.store.format import TokenStore
from pipelines.store.packing import RESERVE_SIGMAS, pack
from pipelines.token_classes import HARD_END, TokenClasses
from workflows.settings.recipe import Recipe
from workflows.settings.shape import _shape

BYTES_PER_PARAMETER = 16  # fp32 weight, gradient and the two moments of AdamW
_SENTENCE = 25  # tokens, in made-up text
_MADE_UP_ROWS = 64
_LEAST_ROW = 0.9  # of what a row is estimated to hold: what only a store can tell is not refused without one


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


def make_budget(
    recipe: Recipe, opened: TokenStore, config: GLMConfig, vocabulary: TokenClasses, *, steps: int | None = None
) -> Budget:
    """Settle the batch and the length of the run. steps: settled before, what `train.hours` came to. Raises UserError
    where the settings cannot work together.
    """
    if opened.train.rows == 0:
        raise UserError("the store has no training rows", try_="more text, or a smaller data.validation_fraction")
    row_tokens = opened.row_tokens
    _check_workers(recipe, row_tokens)
    steps = _steps(recipe, row_tokens) if steps is None else steps
    _check_warmup(recipe, steps)
    rows = opened.train.read_group(0)
    _check_expansion(recipe, opened, rows, vocabulary)
    work = _useful_work(recipe, rows, config, vocabulary, width=opened.manifest["settings"]["row_width"])
    return _budget(recipe, config, steps, row_tokens, opened.train.rows, work)


def planned_budget(
    recipe: Recipe, config: GLMConfig, *, tokens: float, document_tokens: float, steps: int | None = None
) -> Budget:
    """An estimate of what `make_budget` will say of a store that is not there yet, from made-up text of its measures.

    tokens: of the whole corpus; document_tokens: of a document, on average. Raises UserError for what no store of these
    settings could change.
    """
    rows, vocabulary = _made_up(recipe, document_tokens)
    row_tokens = len(rows.tokens) / (len(rows.row_offsets) - 1)
    _check_workers(recipe, row_tokens, least=_LEAST_ROW)
    steps = _steps(recipe, row_tokens) if steps is None else steps
    _check_warmup(recipe, steps)
    work = _useful_work(recipe, rows, config, vocabulary, width=recipe.data.row_width)
    held_out = recipe.data.validation_fraction
    if held_out:  # a small corpus holds out more, up to a quarter (`pipelines.store.held_out`)
        held_out = max(held_out, min(recipe.data.validation_tokens / max(tokens, 1), 0.25))
    trained = tokens * (1 - held_out - recipe.data.test_fraction)
    return _budget(recipe, config, steps, row_tokens, max(1, round(trained / row_tokens)), work)


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


def _budget(
    recipe: Recipe, config: GLMConfig, steps: int, row_tokens: float, num_rows: int, work: tuple[float, float]
) -> Budget:
    """num_rows: of an epoch; work: as `_useful_work` gives it."""
    micro_rows, micro_batches = recipe.train.micro_rows, _micro_batches(recipe, row_tokens)
    return Budget(
        steps=steps,
        micro_rows=micro_rows,
        micro_batches=micro_batches,
        row_tokens=row_tokens,
        epoch_steps=num_rows / (micro_batches * micro_rows),
        expansion=work[0],
        parameters=num_parameters(config),
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
            try_=f"train.num_workers={micro_batches}, or "
            f"train.batch_tokens={int(train.max_workers * train.micro_rows * row_tokens) + 1}",
        )


def _check_warmup(recipe: Recipe, steps: int) -> None:
    try:
        recipe.optim.warmup(steps)
    except ValueError as error:
        raise UserError(str(error)) from error


def _useful_work(
    recipe: Recipe, rows: RowBatch, config: GLMConfig, vocabulary: TokenClasses, *, width: int
) -> tuple[float, float]:
    """(positions, useful operations) per source token, with the blanks of these rows in the first epoch."""
    mixture = resolve(recipe.blanks)
    blanks, _ = draw_rows(mixture, rows, vocabulary, seed=recipe.blanks.seed, epoch=0, width=width)
    form = mixture.form
    positions, predicted = form.positions(rows, blanks), form.targets(blanks)
    per_position = flops_per_token(
        config,
        segment_length=form.visible_pairs(rows, blanks).sum() / positions.sum(),
        density=1.0,  # the length is that of the visible pairs already
        blank_share=predicted.sum() / positions.sum(),
    )
    expansion = float(positions.sum() / len(rows.tokens))
    return expansion, float(per_position * expansion)


def _check_expansion(recipe: Recipe, opened: TokenStore, rows: RowBatch, vocabulary: TokenClasses) -> None:
    """Refuse a mixture that expands more than the store's rows have room for."""
    width = opened.manifest["settings"]["row_width"]
    mean, variance = moments(resolve(recipe.blanks), rows, vocabulary)
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


def _made_up(recipe: Recipe, document_tokens: float) -> tuple[RowBatch, TokenClasses]:
    """Rows of text that nobody wrote, cut and packed as a store's: documents of this length on average, exponentially
    spread, of sentences of 25 tokens. Raises UserError where a segment may not fit into a row.
    """
    length, width = recipe.data.sequence_length, recipe.data.row_width
    eos, cls, word, end = range(4)
    classes = np.array([0, 0, 0, HARD_END], np.uint8)
    vocabulary = TokenClasses(cls, eos, dict.fromkeys(("mask", "smask", "gmask"), word), classes)
    rng, sizes, ends, left = np.random.default_rng(0), [], [], _MADE_UP_ROWS * width
    while left > 0:
        text = min(1 + int(rng.exponential(document_tokens)), left)
        whole, rest = divmod(text, length - 2)
        of_document = [length] * whole + ([rest + 2] if rest else [])
        sizes += of_document
        ends += [False] * (len(of_document) - 1) + [True]
        left -= sum(of_document)
    offsets = offsets_of(np.array(sizes))
    tokens = np.full(offsets[-1], word, np.uint16)
    tokens[::_SENTENCE] = end
    tokens[offsets[1:][ends] - 1] = eos
    tokens[offsets[:-1]] = cls
    ids = np.arange(len(sizes)).astype(np.uint64)
    segments = Segments(tokens, offsets, ids, np.diff(offsets))
    rows = pack(*moments(resolve(recipe.blanks), segments, vocabulary), ids, width=width)
    return take_rows(segments, rows), vocabulary
