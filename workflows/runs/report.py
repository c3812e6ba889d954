"""What a run says of itself: on screen at its start and end, and in a page of examples."""

from infra import checkpoint, commands, storage, tracking
from infra.console import Console, counted, human
from infra.tracking.mlflow_client import without_password
from pipelines.views.render import html, view_examples
from workflows.runs.mlflow_views import PRETRAINING, ways_to_compare
from workflows.runs.run import Run
from workflows.runs.setup import Setup
from workflows.runs.workers import workers_text
from workflows.settings.budget import epochs_text
from workflows.settings.shape import describe_growth, model_name

_EXAMPLES = 12
_FEW_STEPS = 20  # fewer are a trial of the machinery, or a mistake about the size of a step


def show_header(setup: Setup, run: Run, handle: tracking.RunHandle) -> None:
    """What begins, or goes on from its last checkpoint."""
    recipe, store, budget = setup.recipe, setup.store, setup.budget
    workers = f"{workers_text(recipe)} {'GPU' if recipe.train.use_gpu else 'CPU'} worker"
    workers += "s" if recipe.train.max_workers > 1 else ""
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
    if budget.steps < _FEW_STEPS:
        setup.screen.warn(
            f"{counted(budget.steps, 'step')} of {human(budget.step_tokens)} tokens teach the model next to nothing: "
            "give a larger --train.tokens or a smaller --train.batch_tokens"
        )
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
        change = f"{validation.first:.3f} -> {validation.last:.3f}"
        screen.line(f"validation: {change} bits per byte of the held-out text")
    text = "Ray is a [MASK] for [MASK]."
    steps = [("generate", commands.workflow("generate", "--model", run.model_url, "--text", text))]
    if handle := run.record.tracking:
        steps += ways_to_compare(handle, PRETRAINING)
    longer = "a larger --train.tokens is a new run, from the start, on the same store; give it a --run.name of its own"
    steps.append(("train longer", longer))
    screen.next_steps(steps)


def show_next_finetuned(run: Run, screen: Console) -> None:
    """Commands to go on with after a fine-tuning."""
    steps = [("evaluate", commands.workflow("evaluate", "--models", run.model_url) + " --task.data=<labelled data>")]
    if uri := run.record.tracking_uri:
        steps.append(("compare runs", commands.command(commands.program("mlflow"), "ui", "--backend-store-uri", uri)))
    screen.next_steps(steps)


def show_examples(setup: Setup, run: Run, handle: tracking.RunHandle) -> None:
    """Write `examples.html`: a few validation segments as the model is asked them; an artifact of the run."""
    store = setup.store
    split = store.validation if store.validation.rows else store.train
    examples = view_examples(split, setup.feed, setup.tokenizer, count=_EXAMPLES)
    page = html(examples, title=f"What {run.name} is asked")
    storage.write_bytes(storage.join(run.url, "examples.html"), page.encode())
    tracking.log_text(handle, page, "examples.html")
