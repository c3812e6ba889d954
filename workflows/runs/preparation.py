"""A store prepared from a script: what was made is shown at the end, and kept as a run in MLflow."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from glm_model.tokenizer import Tokenizer
from infra import config, storage, tracking
from infra.console import Console, duration, human, human_bytes
from pipelines.corpus.ledger import SourceBalance
from pipelines.estimate import check_readable
from pipelines.feed.examples import feed_settings
from pipelines.prepare import Preparation, find_store, preparation_of, prepare
from pipelines.stages import Runner
from pipelines.store.format import Split, TokenStore, read_manifest
from pipelines.store.tokenizer import load_tokenizer
from pipelines.store.unknown import share_text
from pipelines.views.render import terminal, view_examples
from workflows.runs.mlflow_views import PREPARATION, PREPARATIONS, offer_view
from workflows.runs.progress import Stages, preparation
from workflows.runs.shared_places import check_shared_data
from workflows.runs.tracked import store_dataset
from workflows.settings.identity import comparable_settings, recorded
from workflows.settings.recipe import Recipe

_EXAMPLES = 2


@dataclass(frozen=True)
class Prepared:
    """A recipe's store, and what was done for it now."""

    recipe: Recipe
    store: TokenStore
    stages: Stages
    """What came of each stage; empty where the store was there already."""
    began_at: float
    """Seconds since the epoch."""


def prepare_store(recipe: Recipe, work: Preparation, screen: Console) -> Prepared:
    """Open the recipe's store, or make it on the connected Ray, all of whose nodes have to see what they need.

    Warns of files that were listed and could not be found when they were to be read.
    """
    began_at = time.time()
    check_shared_data(work)
    stages: Stages = {}
    store = prepare(work, Runner(preparation(screen, stages)))
    for source in store.manifest.sources if stages else ():
        if count := source.dropped.get("vanished"):
            screen.warn(
                f"{count:,} files of {source.name!r} were gone when they were to be read, and the store is without "
                f"them: {store.url}/ledger.parquet names them, with the reason `vanished`"
            )
    return Prepared(recipe, store, stages, began_at)


def check_inputs(work: Preparation) -> None:
    """Refuse, where there is no store yet, what would end the preparation only once Ray has started: a tokenizer or an
    evaluation set that cannot be read, and sources whose first records all lack their field. Reads little.

    Raises UserError and DataError.
    """
    if find_store(work) is not None:
        return
    if given := work.config.tokenizer.url:
        load_tokenizer(given, lowercase=work.config.tokenizer.lowercase)
    work.selection  # noqa: B018 - reads the evaluation sets, once
    check_readable(work.config, work.inputs.files)


def store_maker(recipe: Recipe, screen: Console) -> Callable[[], TokenStore]:
    """What makes, or finds, the recipe's store once Ray is connected. What can be known without Ray is checked now:
    that there is something that can be read, and that data.select.exclude names documents. Raises as `check_inputs`.
    """
    work = preparation_of(recipe.data, recipe.blanks)
    check_inputs(work)
    return lambda: prepare_tracked(recipe, work, screen)


def prepare_tracked(recipe: Recipe, work: Preparation, screen: Console) -> TokenStore:
    """The recipe's store as `prepare_store` gives it; a store that is made is also a run in MLflow."""
    prepared = prepare_store(recipe, work, screen)
    if prepared.stages:
        track(prepared)
    return prepared.store


def show_store(prepared: Prepared, screen: Console) -> None:
    """What the store holds, every document that it does not, by reason, how long it took, and two examples."""
    store, manifest = prepared.store, prepared.store.manifest
    counts = manifest.documents
    splits = {"train": store.train, "validation": store.validation, "test": store.test}
    tokens = sum(split.tokens for split in splits.values())
    size = sum(info.size for info in storage.list_files(store.url))
    screen.header(
        f"token store {store.url}",
        [
            ("name", store.name),
            ("digest", store.digest),
            *((name, _describe(split)) for name, split in splits.items()),
            ("documents", f"read {counts.read:,} = kept {counts.kept:,} + dropped {counts.dropped:,}"),
            (
                "size",
                f"{human_bytes(size)} = {size / max(tokens, 1):.2f} bytes a token",
            ),
        ],
    )
    if count := manifest.held_out_ends:
        screen.warn(
            f"the corpus has too few documents to hold out whole ones: validation is the end of the {count} longest"
        )
    rows = []
    for source in manifest.sources:
        reasons = ", ".join(f"{reason} {human(count)}" for reason, count in _by_count(source.dropped)) or "none"
        repairs = ", ".join(f"{repair} {human(count)}" for repair, count in _by_count(source.repaired)) or "none"
        lost = human_bytes(source.lost_bytes) if source.lost_bytes else "none"
        counts = [source.read, source.kept, human_bytes(source.num_bytes), _unknown(source)]
        rows.append([source.name, *counts, reasons, lost, repairs])
    screen.table("sources", ["source", "read", "kept", "text", "unknown", "dropped", "lost", "repaired"], rows)
    if manifest.contamination:
        columns = ["evaluation set", "entries", "too short to check", "found", "in documents"]
        rows = [[one.name, one.entries, one.too_short, one.found, one.documents] for one in manifest.contamination]
        screen.table("contamination", columns, rows)
    if prepared.stages:
        rows = [[name, duration(stage.seconds), stage.text] for name, stage in prepared.stages.items()]
        screen.table("stages, as far as they ran now", ["stage", "took", "result"], rows)
    _show_examples(prepared, screen)


def track(prepared: Prepared) -> None:
    """Record the preparation as a run in MLflow; does nothing where tracking is off."""
    recipe, store, manifest = prepared.recipe, prepared.store, prepared.store.manifest
    values = recorded(recipe)
    handle = tracking.open_run(
        replace(recipe.tracking, required=False),  # what is prepared is not lost for want of a record
        name=f"prepare-{store.digest[:8]}",
        run_dir=store.url,
        params={key: text for key, text in comparable_settings(recipe).items() if key.startswith(("data.", "blanks."))},
        tags={
            "glm.phase": "prepare",
            "glm.store_digest": store.digest,
            "glm.tokenizer_digest": manifest.tokenizer_digest,
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=None,
        take_over=False,
        experiment_suffix=PREPARATIONS,
        began_at=prepared.began_at,
        default_root=recipe.run.storage_path,
    )
    offer_view(handle, PREPARATION)
    metrics: dict[str, float] = {f"data/documents_{name}": count for name, count in asdict(manifest.documents).items()}
    for source in manifest.sources:
        for reason, count in source.dropped.items():
            name = f"data/dropped_{re.sub(r'[^A-Za-z0-9_./ -]', '_', reason)}"  # a rule of the user's may say anything
            metrics[name] = metrics.get(name, 0) + count
    metrics["data/lost_bytes"] = sum(source.lost_bytes for source in manifest.sources)
    metrics["data/unknown_bytes"] = sum(source.unknown_bytes or 0 for source in manifest.sources)
    for name, split in (("train", store.train), ("validation", store.validation), ("test", store.test)):
        metrics[f"data/tokens_{name}"] = split.tokens
    metrics["data/utilisation"] = store.train.expected_fill
    metrics |= {f"data/seconds_{name.replace(' ', '_')}": stage.seconds for name, stage in prepared.stages.items()}
    tracking.log_values(handle, metrics)
    tracking.log_text(handle, config.to_yaml(values), "config.yaml")
    tracking.log_text(handle, json.dumps(read_manifest(store.url), indent=2), "manifest.json")
    tracking.link_dataset(handle, store_dataset(store), context="preparation")
    tokens, documents = human(store.train.tokens), f"{manifest.documents.kept:,}"
    note = f"**Preparation** of the token store `{store.url}`: {tokens} training tokens of {documents} documents."
    tracking.set_note(handle, note, {"glm.status": "finished"})
    tracking.finish(handle, "finished")


def _describe(split: Split) -> str:
    if split.rows == 0:
        return "nothing"
    fill = split.expected_fill
    return f"{split.tokens:,} tokens, {split.segments:,} segments in {split.rows:,} rows, {fill:.1%} full once laid out"


def _unknown(source: SourceBalance) -> str:
    return "not counted" if source.unknown_bytes is None else share_text(source.unknown_share)


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _show_examples(prepared: Prepared, screen: Console) -> None:
    store = prepared.store
    split = store.train if store.train.rows else store.validation
    if split.rows and not screen.config.quiet:
        tokenizer = Tokenizer.load(store.url)
        settings = feed_settings(store, tokenizer, prepared.recipe.blanks)
        for example in view_examples(split, settings, tokenizer, count=_EXAMPLES):
            screen.rich.print(terminal(example), soft_wrap=True)
