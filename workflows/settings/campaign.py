"""The recipe of a campaign: a fine-tuning, and which of its settings differ from cell to cell."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from annotated_types import Ge

from infra.errors import UserError
from workflows.settings.finetune import FinetuneRecipe


@dataclass
class CampaignConfig:
    """Several fine-tunings by one command: each combination of tasks, settings and seeds is a run of its own."""

    tasks: list[str] | dict[str, str] = field(default_factory=list)
    """Tasks by name, or recipe files that describe one (.yaml), each with its files in a folder of `campaign.data` that
    is called like it; or each with its place: {cb: superglue/CB}. Default: the recipe's own.
    """
    data: str | None = None
    """The folder that holds a folder, or a file, for each of `campaign.tasks`."""
    lr: list[float] = field(default_factory=list)
    """Values of optim.lr."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Values of other settings, by their names: {train.items: [100, 1000], task.head: [false, true]}."""
    seeds: list[int] = field(default_factory=list)
    """Values of train.seed: cells that differ in it alone are told together, by their mean and spread."""
    split: str = "dev"
    """What the models are asked in the end."""
    eval_data: str | None = None
    """The folder that holds the data of that split for each task, where it is not that of training."""
    at_once: Annotated[int, Ge(1)] | None = None
    """At most so many cells side by side. Default: as many as Ray has CPUs or GPUs for, and this machine memory."""


@dataclass
class CampaignRecipe(FinetuneRecipe):
    campaign: CampaignConfig = field(default_factory=CampaignConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        campaign, default = self.campaign, CampaignConfig()
        if self.is_campaign:
            return
        for one in fields(CampaignConfig):
            if getattr(campaign, one.name) != getattr(default, one.name):
                raise UserError(
                    f"campaign.{one.name} does nothing here",
                    why="one fine-tuning is not a campaign",
                    try_="--campaign.seeds='[1, 2, 3]', --campaign.tasks, --campaign.lr or --campaign.grid",
                )

    @property
    def is_campaign(self) -> bool:
        """Whether there is anything that differs from cell to cell."""
        campaign = self.campaign
        return bool(campaign.tasks or campaign.lr or campaign.grid or campaign.seeds)

    @property
    def single(self) -> FinetuneRecipe:
        """The fine-tuning that is the same in all cells."""
        return FinetuneRecipe(**{one.name: getattr(self, one.name) for one in fields(FinetuneRecipe)})
