"""What a preparation made: shown at its end, and kept as a run in MLflow."""

import json
import re
from dataclasses import replace
from pathlib import Path

from glm_model.tokenizer import Tokenizer
from infra import config, storage, tracking
from infra.console import Console, duration, human, human_bytes
from pipelines.feed.examples import feed_settings
from pipelines.prepare import Preparation, preparation_of, prepare
from pipelines.stages import Runner
from pipelines.store.format import Split, TokenStore
from pipelines.views.render import terminal, view_examples
from workflows.runs.progress import Stages, preparation
from workflows.settings.places import check_shared_data
from workflows.settings.recipe import Recipe

_EXAMPLES = 2


def show_store(opened: TokenStore, stages: Stages, recipe: Recipe, screen: Console) -> None:
    """What the store holds, every document that it does not, by reason, how long it took, and two examples."""
    manifest = opened.manifest
    splits = {"train": opened.train, "validation": opened.validation, "test": opened.test}
    tokens = sum(split.tokens for split in splits.values())
    size = sum(info.size for info in storage.list_files(opened.url))
    screen.header(
        f"token store {opened.url}",
        [
            ("digest", opened.digest),
            *((name, _told(split)) for name, split in splits.items()),
            ("documents", "read {read:,} = kept {kept:,} + dropped {dropped:,}".format(**manifest["documents"])),
            (
                "size",
                f"{human_bytes(size)} = {size / max(tokens, 1):.2f} bytes a token",
            ),
        ],
    )
    if count := manifest["held_out_ends"]:
        screen.warn(
            f"the corpus has too few documents to hold out whole ones: validation is the end of the {count} longest"
        )
    rows = []
    for source in manifest["sources"]:
        reasons = ", ".join(f"{reason} {human(count)}" for reason, count in _by_count(source["dropped"])) or "none"
        repairs = ", ".join(f"{repair} {human(count)}" for repair, count in _by_count(source["repaired"])) or "none"
        rows.append(
            [source["name"], source["read"], source["kept"], human_bytes(source["num_bytes"]), reasons, repairs]
        )
    screen.table("sources", ["source", "read", "kept", "text", "dropped", "repaired"], rows)
    if manifest["contamination"]:
        columns = ["evaluation set", "entries", "too short to check", "found", "in documents"]
        names = ("name", "entries", "too_short", "found", "documents")
        screen.table("contamination", columns, [[found[name] for name in names] for found in manifest["contamination"]])
    if stages:
        rows = [[stage, duration(told.seconds), told.text] for stage, told in stages.items()]
        screen.table("stages", ["stage", "took", "result"], rows)
    _show_examples(opened, recipe, screen)


def track(opened: TokenStore, stages: Stages, recipe: Recipe) -> None:
    """The preparation as a run in MLflow; nothing where tracking is off."""
    manifest = opened.manifest
    handle = tracking.open_run(
        replace(recipe.tracking, required=False),  # what is prepared is not lost for want of a record
        name=f"prepare-{opened.digest[:8]}",
        run_dir=opened.url,
        params={
            key: value for key, value in config.flatten(recipe).items() if key.partition(".")[0] in ("data", "blanks")
        },
        tags={
            "glm.phase": "prepare",
            "glm.store_digest": opened.digest,
            "glm.tokenizer_digest": manifest["tokenizer_digest"],
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=None,
        take_over=False,
        default_root=recipe.run.storage_path,
    )
    metrics: dict[str, float] = {f"data/documents_{name}": count for name, count in manifest["documents"].items()}
    for source in manifest["sources"]:
        for reason, count in source["dropped"].items():
            name = f"data/dropped_{re.sub(r'[^A-Za-z0-9_./ -]', '_', reason)}"  # a rule of the user's may say anything
            metrics[name] = metrics.get(name, 0) + count
    for name, split in (("train", opened.train), ("validation", opened.validation), ("test", opened.test)):
        metrics[f"data/tokens_{name}"] = split.tokens
    metrics["data/utilisation"] = opened.train.expected_fill
    metrics |= {f"data/seconds_{stage.replace(' ', '_')}": told.seconds for stage, told in stages.items()}
    tracking.log_values(handle, metrics)
    tracking.log_text(handle, config.to_yaml(recipe), "config.yaml")
    tracking.log_text(handle, json.dumps(manifest, indent=2), "manifest.json")
    tracking.log_store_input(handle, manifest, opened.url, opened.digest)
    tracking.finish(handle, "FINISHED")


def _told(split: Split) -> str:
    if split.rows == 0:
        return "nothing"
    fill = split.expected_fill
    return f"{split.tokens:,} tokens, {split.segments:,} segments in {split.rows:,} rows, {fill:.1%} full once laid out"


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _show_examples(opened: TokenStore, recipe: Recipe, screen: Console) -> None:
    split = opened.train if opened.train.rows else opened.validation
    if split.rows and not screen.config.quiet:
        tokenizer = Tokenizer.load(opened.url)
        settings = feed_settings(opened, tokenizer, recipe.blanks)
        for example in view_examples(split, settings, tokenizer, count=_EXAMPLES):
            screen.rich.print(terminal(example), soft_wrap=True)


def prepared(work: Preparation, stages: Stages, screen: Console) -> TokenStore:
    """The store, opened, or made on a connected Ray all of whose nodes see what they need; fills `stages`.

    Warns of files that were listed and could not be found when they were to be read.
    """
    check_shared_data(work)
    opened = prepare(work, Runner(preparation(screen, stages)))
    for source in opened.manifest.get("sources", []) if stages else []:
        if count := source["dropped"].get("vanished"):
            screen.warn(
                f"{count:,} files of {source['name']!r} were gone when they were to be read, and the store is without "
                f"them: {opened.url}/ledger.parquet names them, with the reason `vanished`"
            )
    return opened


def _prepared(recipe: Recipe, screen: Console) -> TokenStore:
    stages: Stages = {}
    opened = prepared(preparation_of(recipe.data, recipe.blanks), stages, screen)
    if stages:
        track(opened, stages, recipe)
    return opened
