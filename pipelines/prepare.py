"""Prepare a token store: the stages in order, each a Ray Data job over independent tasks, each resumable.

    text       units of raw files -> cleaned text, ledger             <root>/text/<settings>/<unit>.*
    selection  duplicates, evaluation sets, exclusions                <root>/selections/<key>/
    tokenizer  loaded, or trained on a sample of the cleaned text     <root>/tokenizers/<key>/
    shards     buckets of text -> tokens -> segments -> packed rows   <root>/stores/<key>/train, validation, documents
    blanks     those of the validation split and the first epochs     <root>/stores/<key>/plans
    manifest   published last

Names are keys of inputs and settings, so changed inputs make another store and equal ones are never made twice.
"""

import functools
from dataclasses import asdict, dataclass, replace
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import Console, counted, human_bytes
from pipelines import readers
from pipelines.blanks import mixture
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, check, made_with
from pipelines.corpus import ledger
from pipelines.corpus.marks import describe_holes, describe_marks
from pipelines.corpus.records import Unit
from pipelines.corpus.sources import InputFile, Inputs, Source, estimated_bytes, group_inputs, list_sources
from pipelines.corpus.units import around_path, clean_files, read_units
from pipelines.feed import stored_blanks
from pipelines.feed.examples import feed_settings
from pipelines.names import (
    StoreSettings,
    content_settings,
    selection_url,
    store_url,
    task_key,
    text_url,
    trained_url,
    unit_limit,
)
from pipelines.selection import exclusion, select
from pipelines.selection.dropped import documents_by_key, drop_files
from pipelines.selection.exclusion import Exclusions
from pipelines.selection.select import Selected, Selection
from pipelines.stages import Runner, run_stage
from pipelines.store import format, held_out
from pipelines.store.format import TokenStore
from pipelines.store.held_out import Cuts
from pipelines.store.manifest import Manifest
from pipelines.store.mix import mix
from pipelines.store.shards import BuiltShard, ShardJob, assign_buckets, build_shard, read_built, tokenizer_of
from pipelines.store.single_sentences import warn_of_single_sentences
from pipelines.store.tokenizer import load_tokenizer, save_tokenizer, train_once
from pipelines.store.unknown import count_unknown

_LARGE_UNITS = 8  # units' worth of text in one file, from which on a user is warned


@dataclass(frozen=True)
class Preparation:
    """What a store is made of: the settings, checked, and the sources, listed."""

    config: DataConfig
    blanks: BlanksConfig
    inputs: Inputs
    """Empty where data.store or data.mix is given."""
    exclude: Exclusions
    """What data.select.exclude names of the inputs."""

    @property
    def given(self) -> bool:
        """Whether a finished store is named: there is nothing to make."""
        return bool(self.config.store or self.config.mix)

    @functools.cached_property
    def selection(self) -> Selection:
        """Reads the evaluation sets when it is first asked for."""
        return select.resolve(self.config.select, preset=self.config.clean.preset, exclude=self.exclude)


def preparation_of(config: DataConfig, blanks: BlanksConfig) -> Preparation:
    """Check the settings and list the sources, once for all that follows. Raises UserError for settings that cannot
    work and for exclusions that name nothing, DataError for sources that hold nothing to read.

    Whether an id is one of a document is known here once the text is cleaned, and else when it is (`prepare`).
    """
    check(config, blanks)
    if config.store or config.mix:
        return Preparation(config, blanks, Inputs([], []), Exclusions())
    inputs = list_sources(config.sources)
    exclude = exclusion.find_excluded(config.select.exclude, inputs.files)
    if exclude.ids and (units := _cleaned_units(config, inputs)) is not None:
        exclusion.check_ids(exclude.ids, units, text_url(config))
    return Preparation(config, blanks, inputs, exclude)


def find_store(preparation: Preparation) -> str | None:
    """URL of the finished store of this preparation, or None when it has to be made. Reads listings, records, the
    tokenizer and the evaluation sets; no text.
    """
    config = preparation.config
    if preparation.given:
        return open_given(config).url
    units = _cleaned_units(config, preparation.inputs)
    if units is None:
        return None
    if not config.tokenizer.url and not storage.exists(storage.join(trained_url(config, units), "tokenizer.json")):
        return None
    settings = content_settings(config, preparation.blanks, preparation.selection)
    place = store_url(config, units, prepare_tokenizer(config, units), settings)
    return place if format.is_whole(place) else None


def prepare(preparation: Preparation, runner: Runner) -> TokenStore:
    """The finished store: opened when it exists, completed or made when it does not."""
    config = preparation.config
    if preparation.given:
        return open_given(config)
    selection = preparation.selection
    units = prepare_text(config, preparation.inputs, runner)
    tokenizer = prepare_tokenizer(config, units, runner)
    settings = content_settings(config, preparation.blanks, selection)
    url = store_url(config, units, tokenizer, settings)
    if not format.is_whole(url):
        exclusion.check_ids(preparation.exclude.ids, units, text_url(config))
        selected = select.select(selection, units, text_url(config), selection_url(config, units, selection), runner)
        save_tokenizer(tokenizer, url)
        new = NewStore(url, settings, tokenizer, selected, _cuts(config, selected), made_with(config))
        _publish(new, _build_shards(new, runner), config)
    store = TokenStore.open(url)
    prepare_blanks(store, preparation.blanks, epochs=config.plan_epochs, runner=runner)
    return store


def open_given(config: DataConfig) -> TokenStore:
    """data.store or data.mix as it is."""
    return mix(config.mix, config.root) if config.mix else TokenStore.open(str(config.store))


# --- cleaned text, and the tokenizer ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CleanJob:
    """Read and clean some files. out: URL that what it writes is named by, and `key` its last part."""

    key: str
    files: list[InputFile]
    out: str


@dataclass(frozen=True)
class Cleaned:
    """What came of a CleanJob: the units that the files make."""

    key: str
    units: list[Unit]


def prepare_text(config: DataConfig, inputs: Inputs, runner: Runner) -> list[Unit]:
    """All units of cleaned text, in order; units that exist are not made again. Raises DataError when nothing is kept
    of a source, or too much of it is malformed.
    """
    for source, paths in inputs.ignored:
        _warn_of_ignored_files(source, paths)
    tasks, url, most, max_window = _tasks(config, inputs), text_url(config), unit_limit(config), int(config.max_window)
    storage.ensure_writable(url)
    clean_config = config.clean
    jobs = [CleanJob(key, files, storage.join(url, key)) for files in tasks for key in [task_key(config, files)]]
    there = _names_in(url)
    todo = [job for job in jobs if f"{job.key}.json" not in there]
    _warn_of_large_files([file for job in todo for file in job.files], config)

    def task(job: CleanJob) -> Cleaned:
        units = clean_files(job.files, clean_config, job.out, unit_bytes=most, max_window=max_window)
        return Cleaned(job.key, units)

    made = {cleaned.key: cleaned.units for cleaned in run_stage(runner, "clean", task, todo)}
    old = [job for job in jobs if job.key not in made]
    made |= zip([job.key for job in old], read_units([job.out for job in old]), strict=True)
    # The files may have moved since a unit was made, which is no reason to make it again.
    units = [replace(unit, around=around_path(job.files[0])) for job in jobs for unit in made[job.key]]
    ledger.check_kept(units, url)
    ledger.check_malformed(units, url, limit=config.max_malformed)
    own_readers = {file.source: file.reader for file in inputs.files}
    for warning in [*ledger.describe_losses(units, url), *describe_marks(units, own_readers)]:
        Console().warn(warning)
    for sentence in describe_holes(units):
        Console().line(sentence)
    return units


def prepare_tokenizer(config: DataConfig, units: list[Unit], runner: Runner | None = None) -> Tokenizer:
    """The tokenizer that is given, or one trained on a sample of the cleaned text, once per text and settings."""
    if config.tokenizer.url:
        return load_tokenizer(config.tokenizer.url, lowercase=config.tokenizer.lowercase)
    url = trained_url(config, units)
    return train_once(url, units, config.tokenizer.train, text_url=text_url(config), seed=config.seed, runner=runner)


def _cleaned_units(config: DataConfig, inputs: Inputs) -> list[Unit] | None:
    """The units of cleaned text; None where some are not made yet."""
    url = text_url(config)
    keys = [task_key(config, files) for files in _tasks(config, inputs)]
    if not {f"{key}.json" for key in keys} <= _names_in(url):
        return None
    return [unit for of_task in read_units([storage.join(url, key) for key in keys]) for unit in of_task]


def _tasks(config: DataConfig, inputs: Inputs) -> list[list[InputFile]]:
    return group_inputs(inputs.files, int(config.unit_bytes))


def _names_in(url: str) -> set[str]:
    return {info.path for info in storage.list_files(url)} if storage.exists(url) else set()


def _warn_of_ignored_files(source: Source, paths: list[str]) -> None:
    some, takes = ", ".join(paths[:3]), ", ".join(readers.find(source.reader).SUFFIXES)
    own = "is unpacked" if storage.is_archive(paths[0]) else "is read whatever its name"
    told = f"{counted(len(paths), 'file')} of {source.url} by their names, such as {some}"
    Console().warn(f"the reader {source.reader!r} takes {takes} and leaves out {told}; one given by its own URL {own}")


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


# --- shards and manifest ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewStore:
    """A store that is being made."""

    url: str
    settings: StoreSettings
    tokenizer: Tokenizer
    selected: Selected
    cuts: Cuts
    data: dict[str, Any]
    """The settings that it is made with, for the manifest."""


def _cuts(config: DataConfig, selected: Selected) -> Cuts:
    return held_out.cut(
        selected.units,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        min_bytes=4 * int(config.validation_tokens),
        documents=functools.partial(documents_by_key, selected.text),
    )


def _build_shards(new: NewStore, runner: Runner) -> list[BuiltShard]:
    """Build the shards that are missing; returns all of them."""
    cuts, settings, text, url = new.cuts, new.settings.of_shards, new.selected.text, storage.absolute(new.url)
    buckets = held_out.buckets_of_splits(new.selected.units, cuts)
    assigned = functools.partial(assign_buckets, shard_bytes=int(new.settings.shard_bytes), seed=new.settings.seed)
    jobs = [
        ShardJob(split, f"shard-{number:05d}", own)
        for split in format.SPLITS
        for number, own in enumerate(assigned(buckets[split]))
    ]

    def task(job: ShardJob) -> BuiltShard:
        return build_shard(job, cuts, settings, text=text, store_url=url)

    there = _names_in(new.url)
    run_stage(runner, "tokens", task, [job for job in jobs if not set(job.files) <= there])
    return read_built(new.url, jobs)


def _publish(new: NewStore, shards: list[BuiltShard], config: DataConfig) -> None:
    """Write the ledger and the manifest, after checking that every document that was read is accounted for."""
    selected, tokenizer = new.selected, new.tokenizer
    trained = not config.tokenizer.url
    balance = count_unknown(ledger.balance(selected.units), shards, limit=config.max_unknown, trained=trained)
    warn_of_single_sentences(shard.sentences for shard in shards)
    in_store = sum(shard.documents for shard in shards)
    assert balance.documents.kept == in_store, f"{balance.documents.kept} documents kept and {in_store} in the shards"
    ledgers = [ledger.ledger_url(selected.text.url, unit) for unit in selected.units]
    if selected.text.selection:
        ledgers += drop_files(selected.text.selection)
        if selected.contamination:
            report = storage.read_bytes(storage.join(selected.text.selection, "contamination.parquet"))
            storage.write_bytes(storage.join(new.url, "contamination.parquet"), report)
    listed, dropped = ledger.join_ledgers(ledgers, storage.join(new.url, "ledger.parquet")), balance.documents.dropped
    assert listed == dropped, f"{dropped} documents dropped and {listed} in the ledger"
    manifest = Manifest(
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        dtype=format.token_dtype(tokenizer.vocab_size).str,
        settings=asdict(new.settings),
        documents=balance.documents,
        sources=balance.sources,
        contamination=tuple(selected.contamination),
        held_out_ends=len(new.cuts.tails),
        without_tokens=sum(shard.without_tokens for shard in shards),
        text_digests=tuple(unit.digest for unit in selected.units),
        data=new.data,
    )
    splits = {name: [built.shard for built in shards if built.split == name] for name in format.SPLITS}
    format.publish(new.url, manifest, splits)


# --- blanks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlanksJob:
    """Draw the blanks of one shard of a split for one epoch."""

    split: str
    shard: int
    epoch: int


def prepare_blanks(store: TokenStore, blanks: BlanksConfig, *, epochs: int, runner: Runner) -> str:
    """Draw and store the blanks of the validation split and of the first epochs where they are missing; returns the
    key that names them.
    """
    width, url = store.manifest.row_width, store.url
    key = stored_blanks.blanks_key(mixture.resolve(blanks), seed=blanks.seed, width=width)
    jobs = []
    for name, epoch in [("validation", 0), *(("train", epoch) for epoch in range(epochs))]:
        for shard, entry in enumerate(getattr(store, name).shards):
            if not storage.exists(storage.join(url, stored_blanks.blanks_path(key, name, epoch, entry.path))):
                jobs.append(BlanksJob(name, shard, epoch))

    def task(job: BlanksJob) -> stored_blanks.StoredBlanks:
        here = TokenStore.open(url)
        tokenizer, classes = tokenizer_of(url)
        settings = feed_settings(here, tokenizer, blanks, split=job.split, blanks_key=key, token_classes=classes)
        return stored_blanks.write_blanks(url, getattr(here, job.split), job.shard, settings, epoch=job.epoch)

    run_stage(runner, "blanks", task, jobs)
    summary = storage.join(url, "plans", key, "summary.json")
    if jobs or not storage.exists(summary):
        redrawn = stored_blanks.redrawn_rows(storage.join(url, "plans", key))
        storage.write_json(summary, {"blanks": asdict(blanks), "redrawn_rows": redrawn, "width": width})
    return key
