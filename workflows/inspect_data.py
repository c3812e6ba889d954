"""See what the model is asked: examples in colours or as a page, histograms of the blanks, and laid out as Parquet.

python workflows/inspect_data.py --config workflows/recipes/quickstart.yaml
python workflows/inspect_data.py --config ... --inspect.objective=document --inspect.count=3 --inspect.epoch=7
python workflows/inspect_data.py --config ... --inspect.html=examples.html
python workflows/inspect_data.py --config ... --inspect.export=examples.parquet --inspect.export_rows=1000

What a run was shown is looked up with inspect_run.py.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from dataclasses import dataclass, field, fields
from typing import Literal

from infra import commands
from infra.console import Console, counted
from infra.errors import DataError, UserError, nearest
from workflows.settings.command_line import read_recipe
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


_OF_A_RUN = f"{commands.workflow('inspect_run')} --run <run> "  # what this command did too in earlier versions


def main() -> None:
    recipe = read_recipe(
        InspectRecipe,
        description="Show what a model is asked on a recipe's store; inspect_run.py shows what a run was asked.",
        common=tuple(f"inspect.{field.name}" for field in fields(InspectConfig)),
        moved={
            "run": f"{_OF_A_RUN}--step K, or --document ID",
            "step": f"{_OF_A_RUN}--step K",
            "document": f"{_OF_A_RUN}--document ID",
        },
    ).config
    # pyarrow takes a fifth of a second of CPU time to load: here, when the settings are read.
    from glm_model.tokenizer import Tokenizer
    from infra import storage
    from pipelines.feed.examples import feed_settings
    from pipelines.prepare import find_store, preparation_of
    from pipelines.store.format import TokenStore
    from pipelines.views import render
    from pipelines.views.export import export
    from pipelines.views.statistics import split_histograms

    url = find_store(preparation_of(recipe.data, recipe.blanks))
    if url is None:
        raise DataError(
            "the store of this recipe is not prepared yet", try_=f"{commands.workflow('prepare')} --config <recipe>"
        )
    store, options, screen = TokenStore.open(url), recipe.inspect, Console(recipe.console)
    split = store.train if options.split == "train" else store.validation
    tokenizer = Tokenizer.load(url)
    settings = feed_settings(store, tokenizer, recipe.blanks)
    if options.export:
        rows = export(split, settings, options.export, epoch=options.epoch, rows=options.export_rows)
        screen.line(f"wrote {counted(rows, 'row')} to {options.export}")
        return
    objectives = _objectives(options.objective, settings.mixture.names)
    examples = render.view_examples(
        split, settings, tokenizer, count=options.count, epoch=options.epoch, objectives=objectives
    )
    charts = split_histograms(split, settings, groups=options.groups, epoch=options.epoch)
    if options.html:
        page = render.html(examples, title=f"What a model is asked on {storage.base_name(url)}", histograms=charts)
        storage.write_bytes(options.html, page.encode())
        screen.line(f"wrote {options.html}")
        return
    for example in examples:
        screen.rich.print(render.terminal(example), soft_wrap=True)
    for chart in charts:
        screen.rich.print(render.bars(chart))


def _objectives(wanted: str | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those to show examples of: the one that is wanted, or all of the mixture."""
    if wanted is None:
        return names
    if wanted not in names:
        raise UserError(f"the mixture has no objective {wanted!r}{nearest(wanted, names)}")
    return (wanted,)


if __name__ == "__main__":
    run_script(main)
