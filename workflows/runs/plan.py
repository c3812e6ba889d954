"""`--plan`: what a run would do and cost, before anyone pays for it."""

from collections.abc import Callable
from dataclasses import replace

from glm_model.config import GLMConfig
from infra import checkpoint, commands
from infra.console import Console, counted, duration, human, human_bytes
from infra.errors import UserError
from pipelines.blanks.mixture import resolve
from pipelines.corpus.sources import InputFile
from pipelines.estimate import Estimate, check_kept, estimate
from pipelines.prepare import Preparation, find_store, preparation_of
from pipelines.store.format import TokenStore
from pipelines.store.tokenizer import load_tokenizer
from pipelines.store.unknown import WARNED, share_text
from workflows.runs.moved import check_finished, own_store
from workflows.runs.pace import disk_text, measure_pace, memory_text, time_text
from workflows.runs.run import Run, open_run
from workflows.runs.setup import Setup, resolve_setup
from workflows.runs.shared_places import check_shared
from workflows.runs.workers import check_memory, check_room, ray_for_workers
from workflows.settings.budget import MANY_STEPS, Budget, epochs_text, has_length, planned_budget
from workflows.settings.cautions import cautions
from workflows.settings.recipe import Recipe
from workflows.settings.shape import model_name, planned_config
from workflows.settings.synthetic import synthetic_rows
from workflows.training.messages import Pace

_DROPS_WIDTH, _TEXT_WIDTH = 40, 60  # characters


def plan_run(recipe: Recipe, name: str, screen: Console) -> None:
    """Print what the run would do and cost, how far it has come, and refuse what this machine, or the Ray that is
    named, could not hold. Starts no Ray.
    """
    run = open_run(recipe, name)  # refused here too where its settings are another run's
    if run.record.finished:
        check_finished(run, recipe)
    if own := own_store(run, recipe):  # its text may be gone
        recipe = replace(recipe, data=replace(recipe.data, store=own.url, mix=[]))
    shape = show_plan(recipe, preparation_of(recipe.data, recipe.blanks), name, screen)
    if run.record.finished:
        screen.line(f"the run {name} is finished")
    elif not recipe.run.fresh and (last := checkpoint.latest(run.checkpoints_url)):
        screen.line(f"the run {name} has come to step {last.step:,}, and goes on from there")
    if shape:
        check_room(recipe, shape, screen)


def calibrate_run(recipe: Recipe, name: str, screen: Console) -> None:
    """Print the plan of the run with times that are measured, by a few steps on the workers. Needs the token store."""
    open_run(recipe, name)
    work = preparation_of(recipe.data, recipe.blanks)
    if find_store(work) is None:
        raise UserError("--calibrate needs the token store", try_=f"{commands.workflow('prepare')} --config <recipe>")

    def pace(setup: Setup) -> Pace:
        check_memory(recipe, setup.shape)
        return measure_pace(setup, Run.of(recipe, name))

    with ray_for_workers(recipe, screen, check_shared=lambda: check_shared(recipe)):
        show_plan(recipe, work, name, screen, pace=pace)


def show_plan(
    recipe: Recipe, work: Preparation, name: str, screen: Console, *, pace: Callable[[Setup], Pace] | None = None
) -> GLMConfig | None:
    """Print the plan of a run. Exact where the store exists; from a sample, and saying so, where it does not.

    work: the preparation of the recipe's store. pace: times a few steps; None: the hours are those of assumed rates.
    Returns the model's shape, None for a recipe without the length of a run. Raises UserError for what cannot run
    wherever it is started.
    """
    mixture = resolve(recipe.blanks)
    shares = ", ".join(
        f"{objective} {share:.0%}" for objective, share in zip(mixture.names, mixture.shares, strict=True)
    )
    rows = [("objectives", f"{shares} of the segments; masks: {', '.join(mixture.masks)}")]
    url = find_store(work)
    if url is None:
        return _show_estimated(recipe, work.inputs.files, name, screen, rows)
    store = TokenStore.open(url)
    rows += _store_rows(store)
    if not has_length(recipe):  # a recipe for prepare.py alone
        screen.header(f"plan · {name}", rows)
        return None
    setup = resolve_setup(recipe, store, screen)
    measured = pace(setup) if pace else None
    if measured and recipe.train.hours is not None:
        setup = setup.with_steps(measured.steps_in(recipe.train.hours, recipe.train.eval_every))
    rows += _run_rows(recipe, setup.budget, epochs_text(setup.budget, store), measured)
    screen.header(f"plan · {name}", rows)
    for text in cautions(setup.budget, store, keep_at_tokens=recipe.train.keep_at_tokens):
        screen.warn(text)
    return setup.shape


def _show_estimated(
    recipe: Recipe, files: list[InputFile], name: str, screen: Console, rows: list[tuple[str, str]]
) -> GLMConfig | None:
    """The plan without a store. files: what its sources hold; rows: those that need none."""
    guess, shape, warnings = estimate(recipe.data, files), None, list[str]()
    check_kept(guess.sources)
    rows = rows + _estimated_rows(guess)
    if has_length(recipe):
        url = recipe.data.tokenizer.url
        if url is None:
            most = recipe.data.tokenizer.train.vocab_size
            rows.append(("vocabulary", f"taken to have the {most:,} entries of data.tokenizer.train.vocab_size"))
        shape = planned_config(recipe, load_tokenizer(url, lowercase=recipe.data.tokenizer.lowercase) if url else None)
        synthetic = synthetic_rows(recipe, guess.tokens / max(guess.documents * guess.kept_share, 1))
        steps = None if recipe.train.hours is None else MANY_STEPS
        budget = planned_budget(recipe, shape, synthetic, tokens=guess.tokens, steps=steps)
        epochs = f"{budget.epochs:.2f} epochs of {human(budget.epoch_steps * budget.step_tokens)} tokens"
        rows += _run_rows(recipe, budget, epochs, None, about="about ")
        warnings = cautions(budget, None, keep_at_tokens=recipe.train.keep_at_tokens)
    next_ = ("next", f"{commands.workflow('prepare')} with the same settings; then --plan is exact")
    screen.header(f"plan · {name}", [*rows, next_])
    _show_sources(guess, recipe, screen)
    for text in warnings:
        screen.warn(text)
    return shape


def _show_sources(guess: Estimate, recipe: Recipe, screen: Console) -> None:
    """What the sample of each source says, with one of its texts; and what will stop the preparation."""
    rows = []
    for source in guess.sources:
        dropped = ", ".join(f"{reason} {count / source.sampled:.1%}" for reason, count in source.dropped.items())
        documents = f"{'' if source.is_counted else 'about '}{human(source.documents)}"
        text = " ".join(source.text.split())
        rows.append(
            [
                source.name,
                source.files,
                documents,
                f"{source.kept_share:.1%}",
                _shortened(dropped, _DROPS_WIDTH) or "none",
                _shortened(text, _TEXT_WIDTH),
            ]
        )
    screen.table("sources", ["source", "files", "documents", "kept", "dropped", "one text"], rows)
    for source in guess.sources:
        if source.mark:
            screen.warn(source.mark)
        malformed = sum(source.malformed.values())
        if malformed > recipe.data.max_malformed * source.sampled:
            reason = next(iter(source.malformed))
            screen.warn(
                f"{malformed:,} of the {source.sampled:,} records of {source.name!r} that were looked at are "
                f"malformed, and preparation will stop (data.max_malformed={recipe.data.max_malformed:g}): {reason}, "
                f"{source.first_drops[reason]}"
            )
        if source.unknown_share >= WARNED:
            stops = ", and preparation will stop" if source.unknown_share >= recipe.data.max_unknown < 1 else ""
            screen.warn(
                f"the tokenizer does not know {source.unknown_share:.1%} of the text of {source.name!r}{stops} "
                f"(data.max_unknown={recipe.data.max_unknown:g})"
            )


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _estimated_rows(guess: Estimate) -> list[tuple[str, str]]:
    about = "" if guess.is_counted else "about "
    unknown = max(source.unknown_share for source in guess.sources)
    by = "" if guess.measured else ", at 4.1 bytes a token (the tokenizer is to be trained yet)"
    return [
        ("store", "not prepared yet; " + ("all text was read" if guess.is_counted else "extended from a sample")),
        ("sources", f"{counted(guess.files, 'file')}, {human_bytes(guess.stored_bytes)} as stored"),
        (
            "documents",
            f"{about}{human(guess.documents)}, {guess.kept_share:.1%} kept by cleaning "
            f"(duplicates not counted); {human_bytes(guess.text_bytes)} of text",
        ),
        ("tokens", f"about {human(guess.tokens)}{by}"),
        *((("unknown", f"{share_text(unknown)} of the text"),) if guess.measured else ()),
        (
            "preparation",
            f"about {duration(guess.core_seconds)} of one core as fast as this one, "
            f"{human_bytes(guess.task_bytes)} of memory a task, {human_bytes(guess.disk_bytes)} of disk",
        ),
    ]


def _store_rows(store: TokenStore) -> list[tuple[str, str]]:
    return [
        ("store", store.url),
        (
            "tokens",
            f"{store.train.tokens:,} in {store.train.rows:,} rows, {store.train.expected_fill:.1%} full once laid "
            f"out; {store.validation.tokens:,} held out",
        ),
    ]


def _run_rows(
    recipe: Recipe, budget: Budget, epochs: str, pace: Pace | None, *, about: str = ""
) -> list[tuple[str, str]]:
    """epochs: how often the run reads what there is; about: said before what is estimated."""
    parameters = budget.parameters
    batch = f"{budget.micro_batches} micro-batches of {budget.micro_rows} = {budget.step_tokens:,.0f} tokens"
    rows = [
        ("model", f"{model_name(recipe)}: {parameters:,} parameters"),
        ("memory", memory_text(parameters, pace)),
        ("batch", f"{about}{counted(budget.step_rows, 'row')} = {batch}"),
    ]
    when = " once there is a store" if about else ""
    per_token = f"{about}{budget.flops_per_token / 1e6:,.0f} MFLOP per token"
    if recipe.train.hours is not None and pace is None:
        hours = f"what {recipe.train.hours:g} h hold; the run times a few steps first, and --plan --calibrate does"
        return [*rows, ("budget", hours), ("compute", per_token)]
    total = budget.tokens * budget.flops_per_token
    return [
        *rows,
        ("budget", f"{about}{counted(budget.steps, 'step')} = {human(budget.tokens)} tokens = {epochs}"),
        ("compute", f"{about}{total:.2e} FLOP, {per_token}"),
        ("time", about + time_text(recipe, budget.steps, total, pace, every=recipe.train.eval_every) + when),
        ("disk", disk_text(parameters, recipe.train.keep_checkpoints, recipe.run.storage_path)),
    ]
