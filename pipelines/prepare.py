"""Prepare a token store: the stages in order, each a Ray Data job over independent tasks, each resumable.

    text       units of raw files -> cleaned text, ledger             <root>/text/<settings>/<unit>.*
    selection  duplicates, evaluation sets, exclusions                <root>/selections/<key>/
    tokenizer  loaded, or trained on a sample of the cleaned text     <root>/tokenizers/<key>/
    shards     pieces of text -> tokens -> segments -> packed rows    <root>/stores/<key>/train, validation, documents
    blanks     plans of the validation split and the first epochs     <root>/stores/<key>/plans
    manifest   published last

Names are keys of inputs and settings, so changed inputs make another store and equal ones are never made twice.
"""

import functools
from dataclasses import asdict
from typing import Any, NamedTuple

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import Console, human_bytes
from infra.errors import DataError, UserError
from pipelines import readers
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.config import DataConfig, check
from pipelines.corpus import ledger
from pipelines.corpus import units as text
from pipelines.corpus.sources import InputFile, Source, estimated_bytes, group_inputs, list_inputs
from pipelines.feed import stored_blanks
from pipelines.feed.examples import feed_settings
from pipelines.names import content_settings, selection_url, store_url, text_url, trained_url, unit_key, unit_limit
from pipelines.selection import dropped, select
from pipelines.stages import Progress, run_stage
from pipelines.store import format, held_out, mix
from pipelines.store import shards as tokens
from pipelines.store.tokenizer import load_tokenizer, prepare_tokenizer, save_tokenizer

_LARGE_UNITS = 8  # units' worth of text in one file, from which on a user is warned


def prepare(config: DataConfig, blanks_config: BlanksConfig, *, progress: Progress) -> format.TokenStore:
    """The finished store of this configuration: opened when it exists, completed or made when it does not."""
    check(config, blanks_config)
    if config.store or config.mix:
        return _open_given(config)
    plan = select.resolve(config.select, preset=config.clean.preset)
    read = prepare_text(config, progress=progress)
    tokenizer = prepare_tokenizer(config, read)
    settings = content_settings(config, blanks_config, plan.settings)
    url = store_url(config, read, tokenizer, settings)
    if not format.is_whole(url):
        selected = selection_url(config, read, plan.settings)
        units = select.select(plan, read, text_url(config), selected, progress=progress)
        if unknown := select.unmatched(plan, units):
            Console().warn(f"data.select.exclude names no document: {', '.join(unknown)}")
        save_tokenizer(tokenizer, url)
        cuts = _held_out(config, units)
        shards = _build_shards(config, units, cuts, url, settings, progress)
        _publish(config, units, cuts, tokenizer, settings, url, shards)
    opened = format.TokenStore.open(url)
    prepare_plans(opened, config, blanks_config, progress=progress)
    return opened


def verify(opened: format.TokenStore, *, progress: Progress) -> None:
    """Compare the content of every shard with its digest. Raises DataError naming those that differ."""
    items = [
        {"url": storage.join(split.base(number), shard.path), "digest": shard.digest}
        for split in opened.splits
        for number, shard in enumerate(split.shards)
    ]

    def task(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "wrong": format.verify_shard(item["url"], item["digest"])}

    wrong = [record for record in run_stage("verify", task, items, progress) if record["wrong"]]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(items)} shards of {opened.url} are damaged",
            why="\n".join(f"{record['url']}: {record['wrong']}" for record in wrong[:5]),
            try_="remove these files and run workflows/prepare.py again: it makes missing shards again; or copy them "
            "again where the store is a copy",
        )


def find_store(config: DataConfig, blanks_config: BlanksConfig) -> str | None:
    """URL of the finished store of this configuration, or None when it has to be made. Reads only listings and
    records.
    """
    check(config, blanks_config)
    if config.store or config.mix:
        return _open_given(config).url
    url = text_url(config)
    keys = [unit_key(files, most=unit_limit(config)) for files in _units(config)]
    if not {f"{key}.json" for key in keys} <= _names_in(url):
        return None
    records = _records(url, keys)
    units = [unit for key in keys for unit in records[key]]
    if not config.tokenizer.url and not storage.exists(storage.join(trained_url(config, units), "tokenizer.json")):
        return None
    plan = select.resolve(config.select, preset=config.clean.preset)
    settings = content_settings(config, blanks_config, plan.settings)
    place = store_url(config, units, prepare_tokenizer(config, units), settings)
    return place if format.is_whole(place) else None


def prepare_text(config: DataConfig, *, progress: Progress) -> list[dict[str, Any]]:
    """Records of all units of cleaned text, in order; units that exist are not made again. Raises DataError when
    nothing is kept of a source, or too much of it is malformed.
    """
    units = _units(config, ignored=_warn_of_ignored_files)
    url = text_url(config)
    storage.ensure_writable(url)
    clean_config, most = config.clean, unit_limit(config)
    keys = [unit_key(files, most=most) for files in units]
    done = _names_in(url)
    todo = [index for index, key in enumerate(keys) if f"{key}.json" not in done]
    _warn_of_large_files([file for i in todo for file in units[i]], config)

    def task(item: dict[str, Any]) -> dict[str, Any]:
        files = [InputFile(**file) for file in item["files"]]
        return {"key": item["key"], "units": text.clean_files(files, clean_config, item["out"], unit_bytes=most)}

    items = [
        {"key": keys[i], "files": [_file_fields(f) for f in units[i]], "out": storage.join(url, keys[i])} for i in todo
    ]
    made = {record["key"]: record["units"] for record in run_stage("clean", task, items, progress)}
    made |= _records(url, [key for key in keys if key not in made])
    records = [made[key] for key in keys]
    # The files may have moved since a unit was made, which is no reason to make it again.
    places = [text.around_path(files[0]) for files in units]
    found = [unit | {"around": around} for around, of_task in zip(places, records, strict=True) for unit in of_task]
    ledger.check_kept(found, url)
    ledger.check_malformed(found, url, limit=config.max_malformed)
    return found


def prepare_plans(
    opened: format.TokenStore, config: DataConfig, blanks_config: BlanksConfig, *, progress: Progress
) -> str:
    """Draw and store the blanks of the validation split and of the first epochs where they are missing; returns the
    plan key.
    """
    mixture = resolve(blanks_config)
    width, seed, url = opened.manifest["settings"]["row_width"], blanks_config.seed, opened.url
    key = stored_blanks.blanks_key(mixture, seed=seed, width=width)
    wanted = [("validation", 0), *(("train", epoch) for epoch in range(config.plan_epochs))]
    items = []
    for name, epoch in wanted:
        split = opened.validation if name == "validation" else opened.train
        for shard, entry in enumerate(split.shards):
            if not storage.exists(storage.join(url, stored_blanks.blanks_path(key, name, epoch, entry.path))):
                items.append({"split": name, "shard": shard, "epoch": epoch})

    def task(item: dict[str, Any]) -> dict[str, Any]:
        here = format.TokenStore.open(url)
        split = here.validation if item["split"] == "validation" else here.train
        tokenizer, classes = tokens.tokenizer_of(url)
        settings = feed_settings(
            here, tokenizer, blanks_config, split=item["split"], blanks_key=key, token_classes=classes
        )
        return asdict(stored_blanks.write_blanks(url, split, item["shard"], settings, epoch=item["epoch"]))

    run_stage("blanks", task, items, progress)
    summary = storage.join(url, "plans", key, "summary.json")
    if items or not storage.exists(summary):
        redrawn = stored_blanks.redrawn_rows(storage.join(url, "plans", key))
        storage.write_json(summary, {"blanks": asdict(blanks_config), "redrawn_rows": redrawn, "width": width})
    return key


def _names_in(url: str) -> set[str]:
    return {info.path for info in storage.list_files(url)} if storage.exists(url) else set()


def _records(text: str, keys: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Key of a task -> records of the units that it made."""
    read = storage.read_jsons([storage.join(text, f"{key}.json") for key in keys])
    return dict(zip(keys, read, strict=True))


def _units(config: DataConfig, **listing: Any) -> list[list[InputFile]]:
    return group_inputs(list_inputs(config.sources, **listing), int(config.unit_bytes))


class Cuts(NamedTuple):
    """How documents are split: content keys per split and source, and the documents of which a part is held out."""

    ranges: dict[str, dict[str, tuple[int, int]]]
    tails: dict[int, float]


def _held_out(config: DataConfig, units: list[dict[str, Any]]) -> Cuts:
    min_bytes = 4 * int(config.validation_tokens)
    documents = functools.partial(dropped.documents_by_key, text_url(config))
    limits = held_out.validation_limits(
        units, fraction=config.validation_fraction, min_bytes=min_bytes, documents=documents
    )
    tails = held_out.tails(units, limits, min_bytes=min_bytes, documents=documents)
    return Cuts(held_out.key_ranges(units, limits, test_fraction=config.test_fraction), tails)


def _build_shards(
    config: DataConfig,
    units: list[dict[str, Any]],
    cuts: Cuts,
    url: str,
    settings: dict[str, Any],
    progress: Progress,
) -> list[dict[str, Any]]:
    sources, shard_settings, place = text_url(config), _shard_settings(settings), storage.absolute(url)
    pieces = {split: held_out.pieces_within(text.pieces(units), cuts.ranges[split]) for split in format.SPLITS}
    pieces["validation"] += held_out.pieces_of(text.pieces(units), cuts.tails, but=pieces["validation"])
    items = [
        {"name": f"shard-{number:05d}", "split": split, "pieces": assigned}
        for split in format.SPLITS
        for number, assigned in enumerate(
            tokens.assign_pieces(pieces[split], shard_bytes=int(config.shard_bytes), seed=config.seed)
        )
    ]

    def task(item: dict[str, Any]) -> dict[str, Any]:
        return tokens.build_shard(
            item["name"],
            item["split"],
            item["pieces"],
            cuts.ranges[item["split"]],
            tails=cuts.tails,
            text_url=sources,
            store_url=place,
            settings=shard_settings,
        )

    files = [format.shard_files(item["split"], item["name"]) for item in items]
    there = {info.path for info in storage.list_files(url)}
    todo = [item for item, paths in zip(items, files, strict=True) if not set(paths) <= there]
    run_stage("tokens", task, todo, progress)
    return storage.read_jsons([storage.join(url, paths.record) for paths in files])


def _publish(
    config: DataConfig,
    units: list[dict[str, Any]],
    cuts: Cuts,
    tokenizer: Tokenizer,
    settings: dict[str, Any],
    url: str,
    shards: list[dict[str, Any]],
) -> None:
    """Write the ledger and the manifest, after checking that every document that was read is accounted for (law 11)."""
    balance = ledger.balance(units)
    kept, num_dropped = balance["documents"]["kept"], balance["documents"]["dropped"]
    in_store = sum(shard["documents"] for shard in shards)
    assert kept == in_store, f"{kept} documents kept and {in_store} in the shards"
    ledgers = [storage.join(text_url(config), f"{unit['path']}.ledger.parquet") for unit in units]
    chosen = units[0].get("selection") if units else None
    ledgers += dropped.drop_files(chosen) if chosen else []
    contamination = storage.read_json(storage.join(chosen, "record.json"))["contamination"] if chosen else []
    if contamination:
        report = storage.read_bytes(storage.join(str(chosen), "contamination.parquet"))
        storage.write_bytes(storage.join(url, "contamination.parquet"), report)
    listed = ledger.join_ledgers(ledgers, storage.join(url, "ledger.parquet"))
    assert listed == num_dropped, f"{num_dropped} documents dropped and {listed} in the ledger"
    format.publish(
        url,
        {
            "tokenizer_digest": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "dtype": format.token_dtype(tokenizer.vocab_size).str,
            "settings": settings,
            **balance,
            "without_tokens": sum(shard["without_tokens"] for shard in shards),
            "text_digests": [unit["digest"] for unit in units],
            "contamination": contamination,
            "held_out_ends": len(cuts.tails),
        },
        {name: [format.shard_of(s["shard"]) for s in shards if s["split"] == name] for name in format.SPLITS},
    )


def _shard_settings(settings: dict[str, Any]) -> tokens.ShardSettings:
    return tokens.ShardSettings(**{name: settings[name] for name in tokens.ShardSettings._fields})


def _open_given(config: DataConfig) -> format.TokenStore:
    """data.store or data.mix as it is. Raises UserError when data.tokenizer.url is another tokenizer than its own."""
    opened = mix.mix(config.mix, config.root) if config.mix else format.TokenStore.open(str(config.store))
    if config.tokenizer.url and load_tokenizer(config.tokenizer.url).digest != opened.manifest["tokenizer_digest"]:
        raise UserError(
            f"data.tokenizer.url={config.tokenizer.url} is not the tokenizer of "
            f"{'data.mix' if config.mix else f'data.store={config.store}'}",
            why="the store holds ids of its own tokenizer, which mean other text to this one",
            try_="leave out data.tokenizer.url: a store brings its tokenizer; or prepare a store with this one",
        )
    return opened


def _warn_of_ignored_files(source: Source, paths: list[str]) -> None:
    shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    takes = ", ".join(readers.find(source.reader).SUFFIXES)
    Console().warn(
        f"{len(paths):,} files of {source.url} are not read, by their names: {shown}. The reader {source.reader!r} "
        f"takes {takes}; a file that is named itself is read whatever its name"
    )


def _warn_of_large_files(files: list[InputFile], config: DataConfig) -> None:
    large = [file for file in files if estimated_bytes(file) > _LARGE_UNITS * config.unit_bytes]
    if not large:
        return
    largest = max(large, key=estimated_bytes)
    more = f", and {len(large) - 1} more files are large" if len(large) > 1 else ""
    Console().warn(
        f"{largest.url} holds about {human_bytes(estimated_bytes(largest))} of text{more}. One task reads it, on one "
        "core; smaller files are read side by side, and so are uncompressed files of lines, whatever their size"
    )


def _file_fields(file: InputFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in InputFile.__dataclass_fields__}
