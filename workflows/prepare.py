"""Prepare a token store from raw text: read, clean, tokenise, segment, pack, draw the first blanks. Continues where it
stopped.

    python workflows/prepare.py --config workflows/recipes/wiki_mini.yaml --data.sources='[{reader: text, url: /texts}]'
    python workflows/prepare.py --config ... --plan
"""

import sys

from infra import cluster, config
from infra.console import Console, human, human_bytes
from infra.errors import run_main
from pipelines.data_config import check
from pipelines.prepare import find_store, prepare
from pipelines.store import TokenStore
from workflows import runs
from workflows.plan import show_plan
from workflows.progress import preparation
from workflows.recipe import Recipe, run_name, settle_paths


def main() -> None:
    recipe, flags = config.parse(
        Recipe,
        description="Prepare the token store of a recipe with Ray Data.",
        flags={"plan": "print what there is to do and what it would cost, and exit"},
    )
    settle_paths(recipe, in_job=cluster.inside_job())
    screen = Console(recipe.console)
    if flags["plan"]:
        show_plan(recipe, run_name(recipe, runs.recipe_name(sys.argv)), screen)
        return
    check(recipe.data, recipe.blanks)
    ready = find_store(recipe.data, recipe.blanks)
    ray = cluster.connect(recipe.cluster, say=screen.line)
    try:
        opened = prepare(recipe.data, recipe.blanks, progress=preparation(screen))
    finally:
        cluster.shutdown(ray)
    if ready:
        screen.line("the store was there already: nothing to prepare")
    show_store(opened, screen)
    screen.next_steps([("train", f"python workflows/pretrain.py --config <recipe> --data.store {opened.url}")])


def show_store(opened: TokenStore, screen: Console) -> None:
    """What the store holds, and every document that it does not, by reason."""
    manifest, train = opened.manifest, opened.train
    fill = sum(shard.expected_fill * shard.rows for shard in train.shards) / max(train.rows, 1)
    size = sum(shard.tokens for shard in train.shards)
    screen.header(
        f"token store {opened.url}",
        [
            ("digest", opened.digest),
            (
                "train",
                f"{size:,} tokens, {train.segments:,} segments in {train.rows:,} rows, {fill:.1%} full once laid out",
            ),
            ("validation", f"{opened.validation.tokens:,} tokens in {opened.validation.rows:,} rows"),
            ("documents", "read {read:,} = kept {kept:,} + dropped {dropped:,}".format(**manifest["documents"])),
        ],
    )
    rows = []
    for source in manifest["sources"]:
        reasons = ", ".join(f"{reason} {human(count)}" for reason, count in source["dropped"].items()) or "none"
        repairs = ", ".join(f"{repair} {human(count)}" for repair, count in source["repaired"].items()) or "none"
        rows.append(
            [source["name"], source["read"], source["kept"], human_bytes(source["num_bytes"]), reasons, repairs]
        )
    screen.table("sources", ["source", "read", "kept", "text", "dropped", "repaired"], rows)


if __name__ == "__main__":
    run_main(main)
