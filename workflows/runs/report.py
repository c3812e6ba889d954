"""What a run says of itself: on screen at its start and end, and in a page of examples."""

from collections.abc import Iterator

from glm_model import GLM
from infra import checkpoint, commands, storage, tracking
from infra.console import Console, counted, human, sparkline
from infra.tracking.mlflow_client import without_password
from pipelines.views.render import filled, html, view_examples
from workflows.runs import comparison
from workflows.runs.final_model import chosen
from workflows.runs.history import read_log
from workflows.runs.mlflow_views import FINETUNING, PRETRAINING, ways_to_compare
from workflows.runs.run import Run
from workflows.runs.setup import Setup
from workflows.runs.workers import workers_text
from workflows.settings.budget import epochs_text
from workflows.settings.cautions import cautions
from workflows.settings.shape import describe_growth, model_name
from workflows.training.initial_weights import initial_model
from workflows.training.trial import OTHERS, Outcome, Trial, draw_trial, held_out_texts, try_model

_EXAMPLES = 12
_WORDS, _WITH_WORDS = 500, 50e6  # of a trial; parameters of the largest model that is asked them: minutes on a CPU


def show_header(setup: Setup, run: Run, handle: tracking.RunHandle) -> None:
    """What begins, or goes on from its last checkpoint."""
    recipe, store, budget = setup.recipe, setup.store, setup.budget
    workers = workers_text(recipe, "GPU" if recipe.train.use_gpu else "CPU")
    rows = [
        ("store", f"{store.url}  {human(store.train.tokens)} tokens, {store.train.rows:,} rows"),
        (
            "budget",
            f"{human(budget.tokens)} tokens = {counted(budget.steps, 'step')} of {counted(budget.step_rows, 'row')} = "
            + epochs_text(budget, store),
        ),
        ("run", run.url),
    ]
    if handle.enabled:
        rows.append(("mlflow", without_password(handle.uri)))
    if last := checkpoint.latest(run.checkpoints_url):
        skipped = "".join(f"; {url} is incomplete and skipped" for url in last.skipped)
        rows.append(("continues", f"from step {last.step:,}{skipped}"))
    title = f"glm pretrain · {model_name(recipe)} {human(budget.parameters)} · {workers} · run {run.name}"
    setup.screen.header(title, rows)
    for text in cautions(budget, store, keep_at_tokens=recipe.train.keep_at_tokens):
        setup.screen.warn(text)
    if recipe.run.fresh:
        setup.screen.line("begun from scratch; the same command without --run.fresh continues it")
    if recipe.model.init_from and last is None:
        setup.screen.line(f"weights from {describe_growth(recipe.model.init_from, setup.shape)}")


def show_finished(run: Run, screen: Console) -> None:
    screen.header(f"glm pretrain · run {run.name} is finished", [("model", run.model_url)])
    show_next(run, screen)


def show_next(run: Run, screen: Console) -> None:
    """What the run came to, and commands to go on with."""
    validation = run.record.validation
    if validation and validation.first is not None and validation.last is not None:
        curve = sparkline([value for _, value in sorted(_validations(run).items())])
        change = f"{validation.first:.3f} {curve} {validation.last:.3f}"
        screen.line(f"validation: {change} bits per byte of the held-out text")
    text = "Ray is a [MASK] for [MASK]."
    steps = [("generate", commands.workflow("generate", "--model", run.model_url, "--text", text))]
    if storage.exists(_curves_url(run)):  # not of a run of an earlier version
        steps.append(("look", f"{_curves_url(run)}: the curves as a page"))
    if handle := run.record.tracking:
        steps += ways_to_compare(handle, PRETRAINING)
    longer = "a larger --train.tokens is a new run, from the start, on the same store; give it a --run.name of its own"
    steps.append(("train longer", longer))
    screen.next_steps(steps)


def show_next_finetuned(run: Run, screen: Console) -> None:
    """Commands to go on with after a fine-tuning."""
    predict = commands.workflow("predict", "--model", run.url)
    steps = [
        ("evaluate", commands.workflow("evaluate", "--models", run.url)),
        ("predict", f"{predict} --input <a table with the same columns> --to <folder>"),
    ]
    if handle := run.record.tracking:
        steps += ways_to_compare(handle, FINETUNING)
    screen.next_steps(steps)


def show_examples(setup: Setup, run: Run, handle: tracking.RunHandle) -> None:
    """Write `examples.html`: a few validation segments as the model is asked them; an artifact of the run."""
    store = setup.store
    split = store.validation if store.validation.rows else store.train
    examples = view_examples(split, setup.feed, setup.tokenizer, count=_EXAMPLES)
    page = html(examples, title=f"What {run.name} is asked")
    storage.write_bytes(storage.join(run.url, "examples.html"), page.encode())
    tracking.log_text(handle, page, "examples.html")


def write_curves(run: Run) -> None:
    """Write `curves.html`: what the run logged, over steps and over tokens."""
    figures = comparison.read_run(run.url)
    storage.write_bytes(_curves_url(run), comparison.page([figures], {}, []).encode())


def _curves_url(run: Run) -> str:
    return storage.join(run.url, "curves.html")


def _validations(run: Run) -> dict[int, float]:
    """Step -> bits per byte."""
    points = read_log(run.url)
    return {point.step: point.values["val/bits_per_byte"] for point in points if "val/bits_per_byte" in point.values}


def show_trial(setup: Setup, run: Run) -> None:
    """Show what the model writes, and wrote before, into blanks of held-out text."""
    screen, store = setup.screen, setup.store
    if screen.config.quiet:
        return
    words = _WORDS if setup.budget.parameters <= _WITH_WORDS else 0
    texts = held_out_texts(store.validation, setup.tokenizer)
    trial = draw_trial(texts, setup.tokenizer, positions=setup.shape.positions, words=words)
    if not trial.passages:
        return
    outcomes = {step: try_model(model, setup.tokenizer, trial) for step, model in _models(setup, run)}
    screen.line()
    screen.line("The model fills blanks of texts it has not seen:")
    for number, passage in enumerate(trial.passages):
        before, after = passage.text.split("[MASK]")
        screen.rich.print(filled((before, passage.truth, after), around=("[", "]")), soft_wrap=True)
        for step, outcome in outcomes.items():
            screen.line(f"    step {step:<6,} {outcome.written[number] or '∅'}")
    _show_figures(screen, trial, outcomes)


def _show_figures(screen: Console, trial: Trial, outcomes: dict[int, Outcome]) -> None:
    if not trial.words:
        return
    rows = [
        (f"{step:,}", f"{outcome.right:.1f} %", f"{outcome.rank:.1f}")
        for step, outcome in outcomes.items()
        if outcome.right is not None and outcome.rank is not None
    ]
    columns = ("step", f"exactly right of {len(trial.words)}", f"mean rank among {OTHERS + 1} words")
    screen.table("blanks of one word", columns, rows)


def _models(setup: Setup, run: Run) -> Iterator[tuple[int, GLM]]:
    """(step, model): as the run began, of the kept checkpoint that is nearest to its middle, and the exported one."""
    yield 0, initial_model(setup.shape, seed=setup.recipe.train.seed, init_from=setup.recipe.model.init_from).eval()
    last = chosen(setup, run)
    inside = [one for one in checkpoint.complete(run.checkpoints_url) if last.step < 4 * one.step < 3 * last.step]
    middle = sorted(inside, key=lambda one: abs(one.step - last.step / 2))[:1]
    for one in (*middle, last):
        model = GLM(setup.shape)
        model.load_state_dict(checkpoint.load(one.url).model)
        yield one.step, model.eval()
