"""What a run says of itself on screen: at its start, and with commands to go on with at its end."""

import os
import shutil
import sys
from pathlib import Path

from glm_model.tokenizer import Tokenizer
from infra import checkpoint, storage, tracking
from infra.console import Console, human
from pipelines.feed.examples import feed_settings
from pipelines.store.format import TokenStore
from pipelines.views.render import html, view_examples
from workflows.runs import run as runs
from workflows.runs.run import Run
from workflows.settings.budget import Budget, epochs_text
from workflows.settings.recipe import Recipe
from workflows.settings.shape import model_name


def show_header(
    recipe: Recipe, run: Run, opened: TokenStore, budget: Budget, handle: tracking.RunHandle, screen: Console
) -> None:
    """What begins, or goes on from its last checkpoint."""
    workers = f"{workers_text(recipe)} {'GPU' if recipe.train.use_gpu else 'CPU'} workers"
    found = checkpoint.latest(run.checkpoints_url)
    rows = [
        ("store", f"{opened.url}  {human(opened.train.tokens)} tokens, {opened.train.rows:,} rows"),
        (
            "budget",
            f"{human(budget.tokens)} tokens = {budget.steps:,} steps of {budget.step_rows} rows = "
            + epochs_text(budget, opened),
        ),
        ("run", run.url),
    ]
    if handle.enabled:
        rows.append(("mlflow", handle.uri))
    if found:
        rows.append(
            (
                "continues",
                f"from step {found.step:,}" + "".join(f"; {url} is incomplete and skipped" for url in found.skipped),
            )
        )
    screen.header(f"glm pretrain · {model_name(recipe)} {human(budget.parameters)} · {workers} · run {run.name}", rows)


def show_finished(run: Run, screen: Console) -> None:
    screen.header(f"glm pretrain · run {run.name} is finished", [("model", run.model_url)])
    show_next(run, None, screen)


def show_next(run: Run, handle: tracking.RunHandle | None, screen: Console) -> None:
    validation = run.record.get("validation") or {}
    if len(validation) == 2:
        first, last = validation["first"], validation["last"]
        screen.line(f"validation: {first:.3f} -> {last:.3f} bits per byte of the held-out text")
    uri = handle.uri if handle else run.record.get("tracking_uri", "")
    python, mlflow = _command("python"), _command("mlflow")
    generate = f'{python} workflows/generate.py --model {run.model_url} --text "Ray is a [MASK] for [MASK]."'
    steps = [("generate", generate)]
    if uri:
        steps.append(("compare runs", f"{mlflow} ui --backend-store-uri {uri}"))
        if experiment := run.record.get("experiment_id"):
            page = f"http://127.0.0.1:5000/#/experiments/{experiment}?workflowType=machine_learning"
            steps.append(("", f"then {page}"))
    longer = "a larger --train.tokens is a new run, from the start, on the same store; give it a --run.name of its own"
    steps.append(("train longer", longer))
    screen.next_steps(steps)


def workers_text(recipe: Recipe) -> str:
    """How many workers the recipe asks for, in words."""
    least, most = recipe.train.min_workers, recipe.train.max_workers
    return str(most) if least == most else f"{least} to {most}"


def _command(name: str) -> str:
    """How to call a program of this environment from here: by its path where it is not active."""
    ours = Path(sys.executable).parent / name
    if shutil.which(name) == str(ours) or not ours.exists():
        return name
    return os.path.relpath(ours) if ours.is_relative_to(Path.cwd()) else str(ours)


_EXAMPLES = 12


def show_examples(
    recipe: Recipe, run: runs.Run, opened: TokenStore, tokenizer: Tokenizer, handle: tracking.RunHandle
) -> None:
    """Write `examples.html`: a few validation segments as the model is asked them; an artifact of the run."""
    split = opened.validation if opened.validation.rows else opened.train
    examples = view_examples(split, feed_settings(opened, tokenizer, recipe.blanks), tokenizer, count=_EXAMPLES)
    page = html(examples, title=f"What {run.name} is asked")
    storage.write_bytes(storage.join(run.url, "examples.html"), page.encode())
    tracking.log_text(handle, page, "examples.html")
