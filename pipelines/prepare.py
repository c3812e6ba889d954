"""Prepare a token store: the stages in order, each a Ray Data job over independent tasks, each resumable.

    text       units of raw files -> cleaned text, ledger             <root>/text/<settings>/<unit>.*
    tokenizer  loaded, or trained on a sample of the cleaned text     <root>/tokenizers/<key>/
    shards     pieces of text -> tokens -> segments -> packed rows    <root>/stores/<key>/train, validation, documents
    blanks     plans of the validation split and the first epochs     <root>/stores/<key>/plans
    manifest   published last

Names are keys of inputs and settings, so changed inputs make another store and equal ones are never made twice.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, NamedTuple

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import DataError, UserError
from pipelines import blanks, plans, store, text, tokens
from pipelines.blanks import BlanksConfig
from pipelines.data_config import (
    DataConfig,
    check,
    content_settings,
    store_url,
    text_url,
    trained_url,
    unit_key,
)
from pipelines.dataflow import run_tasks
from pipelines.sources import InputFile, estimated_bytes, group_inputs, list_inputs
from pipelines.tokenizer_training import train

Progress = Callable[[str, Iterable[dict[str, Any]], int], Iterable[dict[str, Any]]]
"""progress(stage, records, total) yields the records while it shows them."""


def prepare(config: DataConfig, blanks_config: BlanksConfig, *, progress: Progress) -> store.TokenStore:
    """The finished store of this configuration: opened when it exists, completed or made when it does not."""
    check(config, blanks_config)
    if config.store:
        return _open_given(config)
    units = prepare_text(config, progress=progress)
    tokenizer = prepare_tokenizer(config, units)
    settings = content_settings(config, blanks_config)
    url = store_url(config, units, tokenizer, settings)
    if not storage.exists(storage.join(url, "manifest.json")):
        tokenizer.save(url)
        shards = _build_shards(config, units, url, settings, progress)
        _publish(config, units, tokenizer, settings, url, shards)
    opened = store.TokenStore.open(url)
    prepare_plans(opened, config, blanks_config, progress=progress)
    return opened


class Estimate(NamedTuple):
    """What a preparation would take, from file sizes alone."""

    files: int
    stored_bytes: int
    tokens: float
    core_seconds: float
    store_bytes: float


def find_store(config: DataConfig, blanks_config: BlanksConfig) -> str | None:
    """URL of the finished store of this configuration, or None when it has to be made. Reads only listings and
    records.
    """
    check(config, blanks_config)
    if config.store:
        return store.TokenStore.open(config.store).url
    url = text_url(config)
    records = [storage.join(url, f"{unit_key(files)}.json") for files in _units(config)]
    if not all(storage.exists(record) for record in records):
        return None
    units = [storage.read_json(record) for record in records]
    if not config.tokenizer.url and not storage.exists(storage.join(trained_url(config, units), "tokenizer.json")):
        return None
    place = store_url(config, units, prepare_tokenizer(config, units), content_settings(config, blanks_config))
    return place if storage.exists(storage.join(place, "manifest.json")) else None


def estimate(config: DataConfig) -> Estimate:
    """Tokens, core time and size, at the usual 4.1 bytes per token and 3 MB/s of a core."""
    files = list_inputs(config.sources)
    text_bytes = sum(estimated_bytes(file) for file in files)
    return Estimate(len(files), sum(f.size for f in files), text_bytes / 4.1, text_bytes / 3e6, text_bytes / 4.1 * 1.8)


def prepare_text(config: DataConfig, *, progress: Progress) -> list[dict[str, Any]]:
    """Records of all units of cleaned text, in order; units that exist are not made again. Raises DataError when
    nothing is kept.
    """
    units = _units(config)
    url = text_url(config)
    storage.ensure_writable(url)
    places = [storage.join(url, unit_key(files)) for files in units]
    done = {info.url for info in storage.list_files(url)} if storage.exists(url) else set()
    todo = [index for index, place in enumerate(places) if f"{place}.json" not in done]
    clean_config = config.clean

    def task(item: dict[str, Any]) -> dict[str, Any]:
        files = [InputFile(**file) for file in item["files"]]
        return text.clean_unit(files, clean_config, item["out"])

    items = [{"files": [_file_fields(f) for f in units[i]], "out": places[i]} for i in todo]
    made = {record["path"]: record for record in progress("clean", run_tasks(task, items), len(items))}
    records = [made.get(storage.base_name(place)) or storage.read_json(f"{place}.json") for place in places]
    if not any(record["kept"] for record in records):
        raise _nothing_kept(records)
    return records


def prepare_tokenizer(config: DataConfig, units: list[dict[str, Any]]) -> Tokenizer:
    """Load the tokenizer, or train it on a sample of the cleaned text (once per text and settings)."""
    if config.tokenizer.url:
        return _load_tokenizer(config.tokenizer.url)
    url = trained_url(config, units)
    if not storage.exists(storage.join(url, "tokenizer.json")):
        train(_sample(config, units), config.tokenizer.train).save(url)
    return Tokenizer.load(url)


def prepare_plans(
    opened: store.TokenStore, config: DataConfig, blanks_config: BlanksConfig, *, progress: Progress
) -> str:
    """Draw and store the blanks of the validation split and of the first epochs where they are missing; returns the
    plan key.
    """
    mixture = blanks.resolve(blanks_config)
    width, seed, url = opened.manifest["settings"]["row_width"], blanks_config.seed, opened.url
    key = plans.plan_key(blanks_config, mixture, seed=seed, width=width)
    wanted = [("validation", 0), *(("train", epoch) for epoch in range(config.plan_epochs))]
    items = []
    for name, epoch in wanted:
        split = opened.validation if name == "validation" else opened.train
        for shard, entry in enumerate(split.shards):
            if not storage.exists(storage.join(url, plans.plan_path(key, name, epoch, entry.path))):
                items.append({"split": name, "shard": shard, "epoch": epoch})

    def task(item: dict[str, Any]) -> dict[str, Any]:
        here = store.TokenStore.open(url)
        split = here.validation if item["split"] == "validation" else here.train
        return plans.write_plan(
            url,
            split,
            item["shard"],
            blanks.resolve(blanks_config),
            tokens.tokenizer_of(url)[1],
            key=key,
            name=item["split"],
            seed=seed,
            epoch=item["epoch"],
            width=width,
        )

    redrawn = sum(record["redrawn_rows"] for record in progress("blanks", run_tasks(task, items), len(items)))
    if items:
        place = storage.join(url, "plans", key, "summary.json")
        storage.write_json(place, {"blanks": asdict(blanks_config), "redrawn_rows": redrawn, "width": width})
    return key


def validation_limits(units: list[dict[str, Any]], *, fraction: float, min_bytes: int) -> dict[str, int]:
    """Per source, the content key below which a document is held out.

    By the fraction, and further where that holds out less than the source's share of min_bytes; at most half of a
    source's documents, at least one where it has two.
    """
    if fraction == 0:
        return {}
    total = sum(unit["num_bytes"] for unit in units)
    limits = {}
    for source in dict.fromkeys(unit["source"] for unit in units):
        mine = [unit for unit in units if unit["source"] == source]
        documents, size = sum(u["kept"] for u in mine), sum(u["num_bytes"] for u in mine)
        need = min_bytes * size / max(total, 1)
        limit, held = int(fraction * 2**64), 0
        for count, (key, num_bytes) in enumerate(sorted(s for u in mine for s in u["smallest"]), start=1):
            if 2 * count > documents or (held >= need and count > 1):
                break
            limit, held = max(limit, key + 1), held + num_bytes
        limits[source] = limit if documents > 1 else 0
    return limits


def _units(config: DataConfig) -> list[list[InputFile]]:
    return group_inputs(list_inputs(config.sources), int(config.unit_bytes))


def _build_shards(
    config: DataConfig, units: list[dict[str, Any]], url: str, settings: dict[str, Any], progress: Progress
) -> list[dict[str, Any]]:
    limits = validation_limits(units, fraction=config.validation_fraction, min_bytes=4 * int(config.validation_tokens))
    sources, shard_settings, place = text_url(config), _shard_settings(settings), storage.absolute(url)
    pieces = [{"unit": u["path"], "source": u["source"], **piece} for u in units for piece in u["pieces"]]
    items = [
        {
            "name": f"shard-{number:05d}",
            "split": split,
            "pieces": assigned,
            "path": f"work/{split}-shard-{number:05d}.json",
        }
        for split in store.SPLITS
        for number, assigned in enumerate(_assign(pieces, limits, split, config))
    ]

    def task(item: dict[str, Any]) -> dict[str, Any]:
        return tokens.build_shard(
            item["name"],
            item["split"],
            item["pieces"],
            limits,
            text_url=sources,
            store_url=place,
            settings=shard_settings,
        )

    todo = [item for item in items if not storage.exists(storage.join(url, item["path"]))]
    for _ in progress("tokens", run_tasks(task, todo), len(todo)):
        pass
    return [storage.read_json(storage.join(url, item["path"])) for item in items]


def _assign(
    pieces: list[dict[str, Any]], limits: dict[str, int], split: str, config: DataConfig
) -> list[list[dict[str, Any]]]:
    """Pieces of each shard of a split. Validation documents have the smallest keys: only the first pieces hold any."""
    if split == "validation":
        wanted = [p for p in pieces if p["piece"] << 64 < limits.get(p["source"], 0) * text.PIECES]
        share = [min(1.0, limits[p["source"]] * text.PIECES / 2**64 - p["piece"]) for p in wanted]
        pieces = [{**p, "num_bytes": max(1, int(p["num_bytes"] * part))} for p, part in zip(wanted, share, strict=True)]
    return tokens.assign_pieces(pieces, shard_bytes=int(config.shard_bytes), seed=config.seed)


def _publish(
    config: DataConfig,
    units: list[dict[str, Any]],
    tokenizer: Tokenizer,
    settings: dict[str, Any],
    url: str,
    shards: list[dict[str, Any]],
) -> None:
    """Write the ledger and the manifest, after checking that every document that was read is accounted for (law 11)."""
    read, kept = sum(u["read"] for u in units), sum(u["kept"] for u in units)
    dropped: dict[str, dict[str, int]] = {}
    for unit in units:
        of_source = dropped.setdefault(unit["source"], {})
        for reason, count in unit["dropped"].items():
            of_source[reason] = of_source.get(reason, 0) + count
    num_dropped = sum(count for reasons in dropped.values() for count in reasons.values())
    in_store = sum(shard["documents"] for shard in shards)
    assert read == kept + num_dropped, f"{read} documents read, {kept} kept and {num_dropped} dropped"
    assert kept == in_store, f"{kept} documents kept and {in_store} in the shards"
    ledgers = [storage.join(text_url(config), f"{unit['path']}.ledger.parquet") for unit in units]
    listed = text.join_ledgers(ledgers, storage.join(url, "ledger.parquet"))
    assert listed == num_dropped, f"{num_dropped} documents dropped and {listed} in the ledger"
    store.publish(
        url,
        {
            "tokenizer_digest": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "dtype": store.token_dtype(tokenizer.vocab_size).str,
            "settings": settings,
            "sources": [_source_summary(units, source, dropped) for source in dropped],
            "documents": {"read": read, "kept": kept, "dropped": num_dropped},
            "without_tokens": sum(shard["without_tokens"] for shard in shards),
            "text_digests": [unit["digest"] for unit in units],
        },
        {name: [store.shard_of(s["shard"]) for s in shards if s["split"] == name] for name in store.SPLITS},
    )


def _source_summary(units: list[dict[str, Any]], source: str, dropped: dict[str, dict[str, int]]) -> dict[str, Any]:
    mine = [unit for unit in units if unit["source"] == source]
    repaired: dict[str, int] = {}
    for unit in mine:
        for repair, count in unit["repaired"].items():
            repaired[repair] = repaired.get(repair, 0) + count
    return {
        "name": source,
        "read": sum(u["read"] for u in mine),
        "kept": sum(u["kept"] for u in mine),
        "num_bytes": sum(u["num_bytes"] for u in mine),
        "dropped": dict(sorted(dropped[source].items())),
        "repaired": dict(sorted(repaired.items())),
    }


def _sample(config: DataConfig, units: list[dict[str, Any]]) -> Iterable[str]:
    """Cleaned documents of random pieces, up to tokenizer.train.sample_bytes; the same for the same text."""
    url, left = text_url(config), int(config.tokenizer.train.sample_bytes)
    pieces = [{"unit": u["path"], "source": u["source"], **piece} for u in units for piece in u["pieces"]]
    shards = tokens.assign_pieces(pieces, shard_bytes=int(config.shard_bytes), seed=config.seed)
    for piece in (piece for shard in shards for piece in shard):
        table = text.read_pieces(storage.join(url, f"{piece['unit']}.parquet"), [piece["group"]], ["text"])
        for document in table["text"].to_pylist():
            yield document
            left -= len(document.encode())
            if left <= 0:
                return


def _shard_settings(settings: dict[str, Any]) -> tokens.ShardSettings:
    return tokens.ShardSettings(**{name: settings[name] for name in tokens.ShardSettings._fields})


def _open_given(config: DataConfig) -> store.TokenStore:
    """data.store as it is. Raises UserError when data.tokenizer.url is another tokenizer than the store's."""
    assert config.store is not None
    opened = store.TokenStore.open(config.store)
    if config.tokenizer.url and _load_tokenizer(config.tokenizer.url).digest != opened.manifest["tokenizer_digest"]:
        raise UserError(
            f"data.tokenizer.url={config.tokenizer.url} is not the tokenizer of data.store={config.store}",
            why="the store holds ids of its own tokenizer, which mean other text to this one",
            try_="leave out data.tokenizer.url: a store brings its tokenizer; or prepare a store with this one",
        )
    return opened


def _load_tokenizer(url: str) -> Tokenizer:
    try:
        return Tokenizer.load(url)
    except ValueError as error:
        raise UserError(f"data.tokenizer.url: {error}") from error


def _nothing_kept(records: list[dict[str, Any]]) -> DataError:
    reasons: dict[str, int] = {}
    for record in records:
        for reason, count in record["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    told = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    return DataError(
        f"the corpus is empty: of {sum(r['read'] for r in records):,} documents none was kept",
        why=f"dropped: {told}" if told else "the files hold no document",
        try_="another reader for these files, or data.clean.preset=off to keep every document",
    )


def _file_fields(file: InputFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in InputFile.__dataclass_fields__}
