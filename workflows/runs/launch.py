"""Start the workers of a pretraining, show what they post, and stop them."""

from collections.abc import Callable

from infra import checkpoint, commands, storage
from infra.errors import Interrupted
from infra.tracking import RunHandle
from pipelines.feed.stored_blanks import blanks_key
from workflows.runs.progress import training
from workflows.runs.run import Run
from workflows.runs.setup import Setup
from workflows.runs.workers import Messages, WorkerWait, run_group
from workflows.training.health import Patience
from workflows.training.job import Job
from workflows.training.loop import train_worker
from workflows.training.pretraining import Pretraining
from workflows.training.zero_shot import zero_shot_of


def launch(
    setup: Setup, run: Run, handle: RunHandle, *, on_messages: Callable[[Messages], None] = lambda messages: None
) -> None:
    """Run the train workers from the last checkpoint, or the start, to the last step. Needs a connected Ray.

    on_messages: also gets what the workers post. Raises Interrupted when they were stopped early, and what they raise.
    """
    screen, budget = setup.screen, setup.budget
    name = run.attempt_name()
    before = checkpoint.latest(run.checkpoints_url)

    def warn_of_stop(reason: str) -> None:
        screen.line(f"{reason}: stopping after this step and writing a checkpoint (Ctrl-C again: at once, without one)")

    with training(screen, budget.steps, start=before.step if before else 0) as view:

        def show(messages: Messages) -> None:
            view.show(messages)
            on_messages(messages)

        run_group(
            train_worker,
            job_of(setup, run, handle, link=f"glm-{run.name}-{name}"),
            WorkerWait(setup.recipe, screen.line),
            name=name,
            storage_path=storage.join(run.url, "ray"),
            on_messages=show,
            on_stop=warn_of_stop,
        )
    reached = checkpoint.latest(run.checkpoints_url)
    if reached is None or not is_over(reached, budget.steps, setup.recipe.train.patience):
        raise Interrupted(
            f"stopped at step {reached.step:,} of {budget.steps:,}; checkpoint written"
            if reached
            else "stopped before the first checkpoint",
            try_=f"run {commands.same_command(is_fresh=setup.recipe.run.fresh)}: it continues from there",
        )
    if reached.step < budget.steps:
        waited = setup.recipe.train.patience
        screen.line(f"ended at step {reached.step:,} of {budget.steps:,}: no better for {waited} validations")


def is_over(reached: checkpoint.Checkpoint, steps: int, patience: int | None) -> bool:
    """Whether a run that has come to this checkpoint is at its end: its last step, or that of its patience."""
    return reached.step >= steps or Patience.of(checkpoint.read_state(reached.url), patience).is_over


def job_of(setup: Setup, run: Run, handle: RunHandle, *, link: str | None) -> Job:
    """All that a worker of this run needs. link: as `Job` has it."""
    recipe, store, feed, steps = setup.recipe, setup.store, setup.feed, setup.budget.steps
    key = blanks_key(feed.mixture, seed=feed.seed, width=feed.width)
    asked = zero_shot_of(
        recipe.train.eval_tasks, setup.tokenizer, positions=setup.shape.positions, limit=recipe.train.eval_items
    )
    return Job(
        Pretraining(recipe, setup.budget, setup.shape, store.url, key, run.url, asked),
        steps,
        run.checkpoints_url,
        run.url,
        train=recipe.train,
        optim=recipe.optim,
        tracking=handle,
        link=link,
        record={
            "identity": run.record.identity,
            "store_digest": store.digest,
            "mlflow_run_id": handle.run_id,
        },
        keep_steps=frozenset(setup.budget.first_step(tokens) for tokens in recipe.train.keep_at_tokens),
    )
