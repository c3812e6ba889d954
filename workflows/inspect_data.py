"""See what the model is asked: examples in colours or as a page, histograms of the blanks, and laid out as Parquet.

python workflows/inspect_data.py --config workflows/recipes/quickstart.yaml
python workflows/inspect_data.py --config ... --inspect.objective=document --inspect.count=3 --inspect.epoch=7
python workflows/inspect_data.py --config ... --inspect.html=examples.html
python workflows/inspect_data.py --config ... --inspect.export=examples.parquet --inspect.export_rows=1000
python workflows/inspect_data.py --run runs/<name> --step=1200            # the batch of a step of a run, rebuilt
python workflows/inspect_data.py --run <id in MLflow> --document=<id>     # the steps that saw a document
"""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from glm_model.tokenizer import Tokenizer
from infra import config, storage
from infra.cluster import connect
from infra.console import Console
from infra.errors import DataError, UserError, nearest, run_main
from pipelines.feed.examples import FeedSettings, feed_settings
from pipelines.prepare import find_store, preparation_of
from pipelines.store.format import Split, TokenStore
from pipelines.views import render
from pipelines.views.export import export
from pipelines.views.statistics import split_histograms
from workflows.runs import history
from workflows.settings.places import settle_paths
from workflows.settings.recipe import Recipe


@dataclass
class InspectConfig:
    count: int = 4
    """Examples to show."""
    objective: str | None = None
    """Only examples of this objective."""
    split: Literal["train", "validation"] = "train"
    epoch: int = 0
    """Each epoch has other blanks."""
    groups: int = 8
    """Row groups that the histograms are made of."""
    html: str | None = None
    """Write the examples and histograms to this file instead of the screen."""
    export: str | None = None
    """Write laid-out rows to this Parquet file, for other trainers: a column per array, a row per packed row."""
    export_rows: int | None = None
    """Rows to export; default: the whole split."""


@dataclass
class InspectRecipe(Recipe):
    inspect: InspectConfig = field(default_factory=InspectConfig)


def main() -> None:
    if any(word.partition("=")[0] == "--run" for word in sys.argv[1:]):
        history.main()
        return
    recipe = config.parse(
        InspectRecipe,
        description="Show what a model is asked on a recipe's store; for a run: --run RUN --help.",
        common=tuple(f"inspect.{field.name}" for field in fields(InspectConfig)),
    ).config
    settle_paths(recipe, in_job=connect.inside_job())
    url = find_store(preparation_of(recipe.data, recipe.blanks))
    if url is None:
        raise DataError(
            "the store of this recipe is not prepared yet", try_="python workflows/prepare.py --config <recipe>"
        )
    opened, wanted, screen = TokenStore.open(url), recipe.inspect, Console(recipe.console)
    split = opened.train if wanted.split == "train" else opened.validation
    tokenizer = Tokenizer.load(url)
    settings = feed_settings(opened, tokenizer, recipe.blanks)
    if wanted.export:
        rows = export(split, settings, wanted.export, epoch=wanted.epoch, rows=wanted.export_rows)
        screen.line(f"wrote {rows:,} rows to {wanted.export}")
        return
    examples = _examples(wanted, split, settings, tokenizer)
    charts = split_histograms(split, settings, groups=wanted.groups, epoch=wanted.epoch)
    if wanted.html:
        page = render.html(examples, title=f"What a model is asked on {storage.base_name(url)}", histograms=charts)
        Path(wanted.html).write_text(page, encoding="utf-8")
        screen.line(f"wrote {wanted.html}")
        return
    for example in examples:
        screen.rich.print(render.terminal(example), soft_wrap=True)
    for chart in charts:
        screen.rich.print(render.bars(chart))


def _examples(
    wanted: InspectConfig, split: Split, settings: FeedSettings, tokenizer: Tokenizer
) -> list[render.ExampleView]:
    names = settings.mixture.names
    if wanted.objective is not None and wanted.objective not in names:
        raise UserError(f"the mixture has no objective {wanted.objective!r}{nearest(wanted.objective, names)}")
    only = (wanted.objective,) if wanted.objective else names
    return render.view_examples(split, settings, tokenizer, count=wanted.count, epoch=wanted.epoch, objectives=only)


if __name__ == "__main__":
    run_main(main)
