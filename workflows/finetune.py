"""Fine-tune a GLM on labelled data: your own file, or a task of pipelines/tasks.

python workflows/finetune.py --model.init_from runs/<run> --task.data reviews.csv --task.text body --task.label stars
python workflows/finetune.py --model.init_from runs/<run> --task.name rte --task.data RTE --train.epochs 20
python workflows/finetune.py --config recipe.yaml --plan     # what the run would do and cost
python workflows/finetune.py --campaign.tasks cb rte --campaign.data=<folder> --campaign.seeds='[1, 2]' ...  # several
ray job submit --working-dir . --runtime-env infra/deploy/runtime_env.yaml -- python workflows/finetune.py --config ...

The same command continues an unfinished run from its last checkpoint, and a campaign with what is not finished.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

import functools

from infra import config
from infra.cluster import connect
from infra.console import Console
from infra.errors import UserError
from workflows.settings.campaign import CampaignRecipe
from workflows.settings.places import resolve_campaign_paths

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
    "campaign.tasks",
    "campaign.data",
    "campaign.seeds",
    "campaign.lr",
    "campaign.grid",
)


def main() -> None:
    recipe, flags, recipe_name = config.parse(
        CampaignRecipe,
        description="Fine-tune a GLM on labelled data with Ray Train and MLflow.",
        flags={
            "plan": "Print what the run would do and cost, and exit.",
            "calibrate": "With --plan: take a few steps on the workers, for a time that is measured.",
        },
        common=_COMMON,
        settle=lambda recipe, places: resolve_campaign_paths(recipe, in_job=connect.inside_job()),
    )
    if flags["calibrate"] and not flags["plan"]:
        raise UserError("--calibrate only works together with --plan", try_="--plan --calibrate")
    (_campaign if recipe.is_campaign else _finetune)(recipe, flags, recipe_name)


def _finetune(given: CampaignRecipe, flags: dict[str, bool], recipe_name: str) -> None:
    # torch and pyarrow take 2 s of CPU time to load: here, so that --help and misspelt settings do not wait for them.
    from infra import storage
    from workflows.finetuning.plan import calibrate_finetuning, plan_finetuning
    from workflows.finetuning.run import catch_up, finetune
    from workflows.finetuning.setup import open_finetuning, resolve_finetune
    from workflows.runs.report import show_next_finetuned
    from workflows.runs.run import locked
    from workflows.runs.shared_places import check_shared_finetuning
    from workflows.runs.workers import check_memory, ray_for_workers

    recipe = given.single
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


def _campaign(recipe: CampaignRecipe, flags: dict[str, bool], recipe_name: str) -> None:
    from workflows.campaigns.campaign import open_campaign, run_campaign
    from workflows.campaigns.plan import calibrate_campaign, plan_campaign
    from workflows.runs.workers import ray_for_workers

    screen = Console(recipe.console)
    campaign = open_campaign(recipe, recipe_name, screen)
    if flags["calibrate"]:
        with ray_for_workers(recipe, screen):
            calibrate_campaign(recipe, campaign.name, campaign.cells, screen)
    elif flags["plan"]:
        plan_campaign(recipe, campaign.name, campaign.cells, screen)
    else:
        run_campaign(campaign)


if __name__ == "__main__":
    run_script(main)
