"""Prepare a token store from raw text: read, clean, tokenise, segment, pack, draw the first blanks.

python workflows/prepare.py --config workflows/recipes/wiki_mini.yaml --data.sources='[{reader: text, url: /texts}]'
python workflows/prepare.py --config ... --plan
python workflows/prepare.py --config ... --verify

The same command continues a preparation where it stopped.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from infra import commands
from infra.console import Console
from workflows.settings.command_line import read_recipe
from workflows.settings.identity import run_name
from workflows.settings.recipe import Recipe

_COMMON = (
    "data.sources",
    "data.root",
    "data.tokenizer.url",
    "data.clean.preset",
    "data.select.duplicates",
    "data.sequence_length",
    "blanks.mixture",
    "cluster.local_cpus",
)


def main() -> None:
    recipe, flags, recipe_name = read_recipe(
        Recipe,
        description="Prepare the token store of a recipe with Ray Data.",
        flags={
            "plan": "Print what there is to do and what it would cost, and exit.",
            "verify": "Read the finished store and compare its content with its digests.",
        },
        common=_COMMON,
    )
    screen = Console(recipe.console)
    screen.line("preparation: loading")
    # torch and pyarrow take 2 s of CPU time to load: here, when the settings are read.
    from infra.cluster import connect
    from pipelines.prepare import preparation_of
    from pipelines.stages import Runner
    from pipelines.store.verify import verify
    from workflows.runs.plan import show_plan
    from workflows.runs.preparation import check_inputs, prepare_store, show_store, track
    from workflows.runs.progress import preparation
    from workflows.settings.budget import check_given_tokenizer

    work = preparation_of(recipe.data, recipe.blanks)
    if flags["plan"]:
        show_plan(recipe, work, run_name(recipe, recipe_name), screen)
        return
    check_given_tokenizer(recipe)
    check_inputs(work)  # what is wrong with readers, tokenizer and evaluation sets is said before Ray starts
    ray = connect.connect(recipe.cluster, say=screen.line)
    try:
        prepared = prepare_store(recipe, work, screen)
        if flags["verify"]:
            verify(prepared.store, Runner(preparation(screen)))
    finally:
        connect.shutdown(ray)
    if prepared.stages:
        track(prepared)
    else:
        screen.line("the store was there already: nothing to prepare")
    show_store(prepared, screen)
    url = prepared.store.url
    screen.next_steps([("train", f"{commands.workflow('pretrain', '--data.store', url)} --config <recipe>")])


if __name__ == "__main__":
    run_script(main)
