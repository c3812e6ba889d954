"""Pretrain a GLM: prepare its token store if there is none yet, train, export, and fill a few blanks.

    python workflows/pretrain.py --config workflows/recipes/quickstart.yaml
    python workflows/pretrain.py --config workflows/recipes/wiki_mini.yaml --train.tokens 20M --plan
    ray job submit --working-dir . --runtime-env infra/deploy/runtime_env.yaml -- \\
        python workflows/pretrain.py --config ...

The same command continues an unfinished run from its last checkpoint.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from infra.console import Console
from infra.errors import UserError
from workflows.settings.command_line import read_recipe
from workflows.settings.identity import run_name
from workflows.settings.recipe import Recipe

_COMMON = (
    "data.sources",
    "data.tokenizer.url",
    "model.size",
    "train.tokens",
    "train.steps",
    "train.hours",
    "train.num_workers",
    "train.use_gpu",
    "run.name",
    "run.storage_path",
    "optim.name",
    "optim.lr",
)


def main() -> None:
    recipe, flags, recipe_name = read_recipe(
        Recipe,
        description="Pretrain a GLM with Ray Data, Ray Train and MLflow.",
        flags={
            "plan": "Print what the run would do and cost, and exit.",
            "calibrate": "With --plan: take a few steps on the workers, for a time that is measured.",
        },
        common=_COMMON,
    )
    if flags["calibrate"] and not flags["plan"]:
        raise UserError("--calibrate only works together with --plan", try_="--plan --calibrate")
    name, screen = run_name(recipe, recipe_name), Console(recipe.console)
    screen.line(f"run {name}: loading")
    # torch and pyarrow take 2 s of CPU time to load: here, so that --help, --print_config and misspelt settings do not
    # wait for them.
    from infra import storage
    from workflows.housekeeping.added import warn_of_added
    from workflows.runs.moved import check_finished, find_again, own_store
    from workflows.runs.plan import calibrate_run, plan_run
    from workflows.runs.preparation import store_maker
    from workflows.runs.pretraining import pretrain
    from workflows.runs.report import show_finished
    from workflows.runs.run import catch_up, has_begun, locked, open_run
    from workflows.runs.shared_places import check_shared
    from workflows.runs.workers import ray_for_workers
    from workflows.settings.budget import check_recipe

    check_recipe(recipe, begun=has_begun(recipe, name) and not flags["plan"])
    if flags["plan"]:
        (calibrate_run if flags["calibrate"] else plan_run)(recipe, name, screen)
        return
    storage.ensure_writable(recipe.run.storage_path)
    run = open_run(recipe, name)
    if run.record.finished:
        check_finished(run, recipe)
        catch_up(run, recipe, screen)
        warn_of_added(find_again(run.record, run.url, root=recipe.data.root), recipe, screen)
        show_finished(run, screen)
        return
    with locked(run):
        own = own_store(run, recipe)
        warn_of_added(own, recipe, screen)
        find_store = (lambda: own) if own else store_maker(recipe, screen)
        with ray_for_workers(recipe, screen, check_shared=lambda: check_shared(recipe)):
            pretrain(recipe, run, find_store(), screen)


if __name__ == "__main__":
    run_script(main)
