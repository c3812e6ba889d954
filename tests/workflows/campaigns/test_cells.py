"""Which cells a campaign has: the whole list for a small one, and what cannot be one."""

from pathlib import Path

import pytest

from infra import config
from infra.errors import UserError
from workflows.campaigns.cells import campaign_name, list_cells
from workflows.settings.campaign import CampaignRecipe

SST2 = Path(__file__).resolve().parents[3] / "workflows" / "recipes" / "tasks" / "sst2.yaml"
SWEEP = ("--run.name=sweep", "--run.storage_path=/runs", "--model.init_from=/model")


def read(*flags: str) -> CampaignRecipe:
    return config.parse(CampaignRecipe, description="", argv=[*SWEEP, *flags]).config


def names(*flags: str) -> list[str]:
    return [cell.name for cell in list_cells(read(*flags), "sweep")]


def test_cells_are_the_tasks_by_the_settings_by_the_seeds_in_that_order():
    tasks = f"--campaign.tasks={{cb: /data/CB, {SST2}: /data/sst2}}"
    cells = list_cells(read(tasks, "--campaign.lr=[1e-5, 2e-5]", "--campaign.seeds=[1, 2]"), "sweep")
    expected = [
        (f"sweep-{task}-lr={lr}-seed={seed}", task, (("lr", lr),), seed)
        for task in ("cb", "sst2")
        for lr in ("1e-05", "2e-05")
        for seed in (1, 2)
    ]
    assert [(one.name, one.task, one.chosen, one.seed) for one in cells] == expected
    last = cells[-1].recipe
    assert (last.run.name, last.train.seed, last.optim.lr) == ("sweep-sst2-lr=2e-05-seed=2", 2, 2e-5)
    assert (last.task.name, last.task.data, last.task.columns) == ("classification", "/data/sst2", ["text", "label"])
    assert (cells[0].recipe.task.name, cells[0].recipe.task.data) == ("cb", "/data/CB")


def test_any_setting_differs_by_its_name():
    grid = "--campaign.grid={train.items: [100, null], optim.betas: [[0.9, 0.98], [0.9, 0.999]]}"
    cells = list_cells(read(grid, "--task.data=/data"), "sweep")
    assert [one.name for one in cells] == [
        "sweep-items=100-betas=0.9_0.98",
        "sweep-items=100-betas=0.9_0.999",
        "sweep-items=null-betas=0.9_0.98",
        "sweep-items=null-betas=0.9_0.999",
    ]
    assert [(one.recipe.train.items, one.recipe.optim.betas) for one in cells][1:3] == [
        (100, (0.9, 0.999)),
        (None, (0.9, 0.98)),
    ]
    assert {(one.task, one.seed) for one in cells} == {("classification", 1234)}


def test_settings_whose_last_words_are_equal_keep_their_whole_names():
    assert names("--campaign.grid={optim.name: [adamw], task.name: [cb]}") == ["sweep-optim.name=adamw-task.name=cb"]


def test_tasks_find_their_data_in_a_folder_and_other_data_to_be_asked(tmp_path):
    for folder in ("few/CB", "few/RTE", "full/CB", "full/RTE"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train.jsonl").write_text("{}\n")
    places = [f"--campaign.data={tmp_path}/few", f"--campaign.eval_data={tmp_path}/full"]
    cells = list_cells(read("--campaign.tasks", "cb", "rte", *places), "sweep")
    assert [(one.name, one.recipe.task.data, one.eval_data) for one in cells] == [
        ("sweep-cb", f"{tmp_path}/few/CB", f"{tmp_path}/full/CB"),
        ("sweep-rte", f"{tmp_path}/few/RTE", f"{tmp_path}/full/RTE"),
    ]


def test_more_values_and_seeds_are_the_same_campaign_and_other_settings_another():
    def name(*flags: str) -> str:
        return campaign_name(read("--run.name=null", "--task.data=/data", *flags), "few")

    one = name("--campaign.seeds=[1, 2]", "--campaign.lr=[1e-5]")
    assert one.startswith("few-")
    assert name("--campaign.seeds=[1, 2, 3]", "--campaign.lr=[1e-5, 1e-4]", "--train.num_workers=2") == one
    others = (["--train.epochs=9"], ["--task.data=/other"], ["--model.init_from=/other"])
    assert len({one, *(name("--campaign.seeds=[1]", "--campaign.lr=[1e-5]", *more) for more in others)}) == 4
    assert campaign_name(read("--campaign.seeds=[1]"), "few") == "sweep"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--campaign.seeds=[1, 2, 1]"], "two cells of the campaign 'sweep' would be sweep-seed=1"),
        (["--campaign.lr=[1e-5, 0.00001]"], "two cells of the campaign 'sweep' would be sweep-lr=1e-05"),
        (["--campaign.grid={task.pattern: ['a b', 'a/b']}"], "would be sweep-pattern=a_b"),
        (["--campaign.grid={optim.lrr: [1]}"], "unknown key 'optim.lrr' in campaign.grid; did you mean 'lr'?"),
        (["--campaign.grid={optim.lr: [fast]}"], "optim.lr in campaign.grid: expected a number, got 'fast'"),
        (["--campaign.grid={train.items: []}"], "campaign.grid.train.items has no values"),
        (["--campaign.lr=[1]", "--campaign.grid={optim.lr: [2]}"], "campaign.grid names optim.lr, which has a list"),
        (["--campaign.grid={train.seed: [2]}"], "campaign.grid names train.seed, which has a list"),
        (["--campaign.tasks", "cb", "cb"], "campaign.tasks names a task twice"),
        (["--campaign.tasks", "cb"], "campaign.data is missing: where the data of cb lie is not known"),
        (["--campaign.tasks={nowhere.yaml: /data}"], "cannot read the recipe nowhere.yaml"),
    ],
)
def test_cells_that_cannot_be_are_refused(flags, told):
    with pytest.raises(UserError) as caught:
        names("--task.data=/data", *flags)
    assert told in caught.value.message


def test_settings_of_a_campaign_that_is_none_are_refused():
    with pytest.raises(UserError, match=r"campaign\.split does nothing here"):
        read("--campaign.split=test")
    assert not read().is_campaign
    assert read("--campaign.seeds=[1]").is_campaign
    assert not hasattr(read("--campaign.seeds=[1]").single, "campaign")
