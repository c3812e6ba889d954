"""`--plan`: what a run would do and cost, before anyone pays for it."""

from collections.abc import Callable

from glm_model.config import GLMConfig, num_parameters
from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import Console, duration, human, human_bytes
from pipelines import blanks
from pipelines.estimate import estimate
from pipelines.prepare import find_store
from pipelines.store import TokenStore
from pipelines.vocabulary import Vocabulary
from workflows.budget import BYTES_PER_PARAMETER, Budget, epochs_text, has_length, make_budget, model_config, model_name
from workflows.calibration import MANY_STEPS, Pace
from workflows.recipe import Recipe
from workflows.run_report import workers_text

# Sustained rates (FLOP/s) that hours are quoted at, with their assumption said beside them.
_RATES = {"H100/H200 at 45 % MFU": 0.45 * 989e12, "A100 at 45 % MFU": 0.45 * 312e12, "CPU core, fp32": 0.1e12}


def show_plan(
    recipe: Recipe,
    name: str,
    screen: Console,
    *,
    pace: Callable[[TokenStore, GLMConfig, Vocabulary], Pace] | None = None,
) -> None:
    """Print the plan of a run. Exact where the store exists; from file sizes, and saying so, where it does not.

    pace: times a few steps of a model of this shape; None: the hours are those of assumed rates.
    """
    mixture = blanks.resolve(recipe.blanks)
    shares = ", ".join(
        f"{objective} {share:.0%}" for objective, share in zip(mixture.names, mixture.shares, strict=True)
    )
    rows = [("objectives", f"{shares} of the segments; masks: {', '.join(mixture.masks)}")]
    url = find_store(recipe.data, recipe.blanks)
    if url is None:
        rows += _estimated_rows(recipe)
        screen.header(f"plan · {name}", rows)
        return
    opened = TokenStore.open(url)
    rows += _store_rows(opened)
    if not has_length(recipe):  # a recipe for prepare.py alone
        screen.header(f"plan · {name}", rows)
        return
    tokenizer = Tokenizer.load(url)
    shape = model_config(recipe, opened, tokenizer)
    vocabulary, train = Vocabulary.of(tokenizer), recipe.train
    measured, steps = pace(opened, shape, vocabulary) if pace else None, None
    if train.hours is not None:
        steps = measured.steps_in(train.hours, train.eval_every) if measured else MANY_STEPS
    budget = make_budget(recipe, opened, shape, vocabulary, steps=steps)
    rows += _run_rows(recipe, budget, opened, num_parameters(shape), measured)
    screen.header(f"plan · {name}", rows)


def _estimated_rows(recipe: Recipe) -> list[tuple[str, str]]:
    guess = estimate(recipe.data)
    by = "" if guess.measured else ", at 4.1 bytes a token (the tokenizer is to be trained yet)"
    return [
        ("store", "not prepared yet; the following is extended from a sample"),
        ("sources", f"{guess.files:,} files, {human_bytes(guess.stored_bytes)} as stored"),
        (
            "documents",
            f"about {human(guess.documents)}, {guess.kept_share:.1%} kept by cleaning "
            f"(duplicates not counted); {human_bytes(guess.text_bytes)} of text",
        ),
        ("tokens", f"about {human(guess.tokens)}{by}"),
        (
            "preparation",
            f"about {duration(guess.core_seconds)} of one core as fast as this one, "
            f"{human_bytes(guess.task_bytes)} of memory a task, {human_bytes(guess.disk_bytes)} of disk",
        ),
        ("next", "python workflows/prepare.py --config <recipe>   # then --plan is exact"),
    ]


def _store_rows(opened: TokenStore) -> list[tuple[str, str]]:
    return [
        ("store", f"{opened.url}"),
        (
            "tokens",
            f"{opened.train.tokens:,} in {opened.train.rows:,} rows, {opened.train.expected_fill:.1%} full once laid "
            f"out; {opened.validation.tokens:,} held out",
        ),
    ]


def _run_rows(
    recipe: Recipe, budget: Budget, opened: TokenStore, parameters: int, pace: Pace | None
) -> list[tuple[str, str]]:
    held = f"{human_bytes(parameters * BYTES_PER_PARAMETER)} per worker with gradients and optimizer"
    used = f"{human_bytes(pace.memory_bytes)} at the most, measured" if pace else "activations not counted"
    rows = [
        ("model", f"{model_name(recipe)}: {parameters:,} parameters"),
        ("memory", f"{held}, {used}"),
        (
            "batch",
            f"{budget.step_rows} rows = {budget.micro_batches} micro-batches of {budget.micro_rows} = "
            f"{budget.step_tokens:,.0f} tokens",
        ),
    ]
    if recipe.train.hours is not None and pace is None:
        told = f"what {recipe.train.hours:g} hours hold; the run times a few steps first, and --plan --calibrate does"
        return [*rows, ("budget", told)]
    total = budget.tokens * budget.flops_per_token
    return [
        *rows,
        ("budget", f"{budget.steps:,} steps = {human(budget.tokens)} tokens = {epochs_text(budget, opened)}"),
        ("compute", f"{total:.2e} FLOP, {budget.flops_per_token / 1e6:,.0f} MFLOP per token"),
        ("time", _time_text(recipe, budget, pace)),
        (
            "disk",
            f"{human_bytes(12 * parameters * (recipe.train.keep_checkpoints + 2))} of checkpoints in "
            f"{storage.absolute(recipe.run.storage_path)}",
        ),
    ]


def _time_text(recipe: Recipe, budget: Budget, pace: Pace | None) -> str:
    workers = f"with {workers_text(recipe)} workers"
    if pace:
        every = recipe.train.eval_every
        seconds = budget.steps * pace.step_s + (2 + (budget.steps // every if every else 0)) * pace.validation_s
        each = f"{pace.step_s:.3g} s a step, {pace.validation_s:.3g} s a validation"
        return f"{duration(seconds)} {workers}: {each}, measured here"
    total = budget.tokens * budget.flops_per_token
    hours = (f"{duration(total / rate / recipe.train.max_workers)} ({what})" for what, rate in _RATES.items())
    return f"{', '.join(hours)}, {workers}; assumed rates, --calibrate measures"
