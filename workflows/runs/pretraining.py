"""A pretraining from a finished store to the exported model."""

from infra.console import Console
from pipelines.store.format import TokenStore
from workflows.runs import report
from workflows.runs.final_model import export
from workflows.runs.launch import launch
from workflows.runs.pace import resolve_length
from workflows.runs.run import Run, check_init_from, finish, give_up, start
from workflows.runs.setup import resolve_setup
from workflows.runs.workers import check_memory
from workflows.settings.recipe import Recipe


def pretrain(recipe: Recipe, run: Run, store: TokenStore, screen: Console) -> Run:
    """Train on a finished store, export the model, show what it learned; returns the finished run. Needs a connected
    Ray. Raises Interrupted when the run was stopped, and what its workers raise.
    """
    run = check_init_from(run, recipe.model.init_from)
    setup = resolve_setup(recipe, store, screen, shape=run.record.model, steps=run.record.steps)
    check_memory(recipe, setup.shape)
    setup = resolve_length(setup, run)
    run, handle = start(setup, run)
    try:
        report.show_header(setup, run, handle)
        report.show_examples(setup, run, handle)
        launch(setup, run, handle)
        validated = export(setup, run, handle)
    except BaseException as error:
        give_up(run, handle, error)
        raise
    run = finish(run, handle, validated, screen)
    report.write_curves(run)
    report.show_trial(setup, run)
    report.show_next(run, screen)
    return run
