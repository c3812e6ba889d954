"""Fine-tune a GLM on labelled data: your own file, or a task of pipelines/tasks.

python workflows/finetune.py --model.init_from runs/<run> --task.data reviews.csv --task.text body --task.label stars
python workflows/finetune.py --model.init_from runs/<run> --task.name rte --task.data RTE --train.epochs 20
python workflows/finetune.py --config recipe.yaml --plan     # what the run would do and cost
ray job submit --working-dir . --runtime-env infra/deploy/runtime_env.yaml -- python workflows/finetune.py --config ...

The same command continues an unfinished run from its last checkpoint.
"""

try:
    from infra.errors import quiet_until_main, run_main

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

import functools

from infra import config
from infra.cluster import connect
from infra.console import Console
from infra.errors import UserError
from workflows.settings.finetune import FinetuneRecipe
from workflows.settings.places import resolve_finetune_paths

_COMMON = (
    "task.name",
    "task.data",
    "task.text",
    "task.label",
    "task.words",
    "task.pattern",
    "model.init_from",
    "optim.lr",
    "train.epochs",
    "train.batch",
    "train.num_workers",
    "train.use_gpu",
    "train.select_on",
    "run.name",
)


def main() -> None:
    recipe, flags, recipe_name = config.parse(
        FinetuneRecipe,
        description="Fine-tune a GLM on labelled data with Ray Train and MLflow.",
        flags={
            "plan": "Print what the run would do and cost, and exit.",
            "calibrate": "With --plan: take a few steps on the workers, for a time that is measured.",
        },
        common=_COMMON,
        settle=lambda recipe, places: resolve_finetune_paths(recipe, in_job=connect.inside_job()),
    )
    if flags["calibrate"] and not flags["plan"]:
        raise UserError("--calibrate only works together with --plan", try_="--plan --calibrate")
    # torch and pyarrow take 2 s of CPU time to load: here, so that --help and misspelt settings do not wait for them.
    from infra import storage
    from workflows.finetuning.plan import calibrate_finetuning, plan_finetuning
    from workflows.finetuning.run import catch_up, finetune
    from workflows.finetuning.setup import open_finetuning, resolve_finetune
    from workflows.runs.report import show_next_finetuned
    from workflows.runs.run import locked
    from workflows.runs.shared_places import check_shared_finetuning
    from workflows.runs.workers import check_memory, ray_for_workers

    screen = Console(recipe.console)
    setup = resolve_finetune(recipe, screen)
    run = open_finetuning(setup, recipe_name)
    if flags["plan"]:
        (calibrate_finetuning if flags["calibrate"] else plan_finetuning)(setup, run, screen)
        return
    storage.ensure_writable(recipe.run.storage_path)
    if run.record.finished:
        catch_up(setup, run)
        screen.header(f"glm finetune · run {run.name} is finished", [("model", run.model_url)])
    else:
        shared = functools.partial(check_shared_finetuning, recipe)
        with locked(run), ray_for_workers(recipe, screen, check_shared=shared):
            check_memory(recipe, setup.shape)
            run = finetune(setup, run)
    show_next_finetuned(run, screen)


if __name__ == "__main__":
    run_main(main)
