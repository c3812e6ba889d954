"""The settings that decide a token store, and their checks."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le, Lt

from infra import storage
from infra.config import Count, plain
from infra.errors import UserError
from infra.storage.disk_cache import DiskCache
from pipelines.blanks import mixture
from pipelines.blanks.mixture import BlanksConfig
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import Source, source_name
from pipelines.selection.config import SelectConfig, duplicates_of
from pipelines.store.config import Member
from pipelines.store.tokenizer_training import TokenizerTraining


@dataclass
class TokenizerConfig:
    url: str | None = None
    """A tokenizer.json, a BERT vocab.txt, GPT-2's vocab.json + merges.txt or a SentencePiece .model: path or URL.
    Default: one is trained.
    """
    lowercase: bool | None = None
    """Whether a vocab.txt belongs to an uncased model. Default: as the tokenizer_config.json beside it says, else as
    its pieces do.
    """
    train: TokenizerTraining = field(default_factory=TokenizerTraining)
    """How to train a tokenizer on the corpus when no url is given."""


@dataclass
class DataConfig:
    sources: list[Source] = field(default_factory=list)
    """Where raw text comes from: a list of {reader, url}, with an optional name and options."""
    root: str = "./runs/data"
    """Folder or URL for everything that preparation makes: cleaned text, tokenizers, stores."""
    store: str | None = None
    """An existing token store to train on; sources are ignored then."""
    mix: list[Member] = field(default_factory=list)
    """Existing token stores to train on together, as {store, weight}; sources are ignored then."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Which documents are repaired or dropped."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Which documents are left out: duplicates, texts of evaluation sets, those on your list."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    sequence_length: int = 512
    """Maximum number of tokens of a segment, [CLS] and eos included. The model's position tables must be as large."""
    row_width: int = 8192
    """Number of positions in a packed row."""
    rows_per_group: Annotated[int, Ge(1)] = 64
    """Number of rows in a Parquet row group: what is read and decoded at once."""
    validation_fraction: Annotated[float, Ge(0), Lt(1)] = 0.005
    """Share of the documents that is held out for validation, chosen by a hash of their content."""
    test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.005
    """Share of the documents that is held out as a test set, from sources of at least 64 documents."""
    validation_tokens: Count = Count(50_000)
    """Minimum number of tokens in the validation split, by estimate, where the corpus allows."""
    unit_bytes: Annotated[Count, Ge(1)] = Count(16_000_000)
    """Bytes of raw text that one task reads and cleans."""
    max_malformed: Annotated[float, Ge(0), Le(1)] = 0.01
    """Share of a source's records that may be malformed (broken lines, not text), and of its files' bytes that may be
    lost with them or where a file breaks off; if more are, preparation stops."""
    max_window: Annotated[Count, Ge(1024), Le(1 << 31)] = Count(1 << 27)
    """Maximum window of a .zst file, in bytes, rounded up to a power of two. Reading such a file takes as much memory,
    a .xz file up to twice as much. 2G reads all that zstd writes."""
    max_unknown: Annotated[float, Ge(0), Le(1)] = 0.1
    """Share of a source's bytes that the tokenizer may not know ([UNK]); from here on, preparation stops."""
    shard_bytes: Annotated[Count, Ge(1)] = Count(64_000_000)
    """Bytes of cleaned text in one shard."""
    plan_epochs: Annotated[int, Ge(0)] = 1
    """Number of epochs whose blanks are drawn in advance; others are drawn while training, with the same result."""
    seed: int = 1234
    """Random seed for shuffling documents into shards."""
    cache: str | None = None
    """Folder on each training machine that keeps what is read of a remote store. Default: nothing is kept."""
    cache_bytes: Count = Count(100_000_000_000)
    """Maximum size of that folder; a cache smaller than the store is of little use."""


_OF_MAKING = ("unit_bytes", "max_malformed", "max_window", "max_unknown", "plan_epochs")  # in effect where it is made
# Settings that a run has whatever its store holds.
OWN = ("root", "store", "mix", "cache", "cache_bytes", *_OF_MAKING)
_LENGTHS = ("sequence_length", "row_width")  # known of every store


def effective_settings(config: DataConfig) -> dict[str, Any]:
    """The settings of data that have an effect, as a recipe has them. On a finished store they are what its manifest
    says (`workflows.settings.given_store`), and of one that does not say what it is made of, what differs from the
    defaults and the lengths.
    """
    values = plain(config)
    left_out = [*_OF_MAKING, *(() if config.mix else ("root",))] if config.store or config.mix else []
    if left_out and not config.sources:
        default = plain(DataConfig())
        left_out += [key for key in values if key not in (*OWN, *_LENGTHS) and values[key] == default[key]]
    if not config.cache:
        left_out.append("cache_bytes")
    del values["tokenizer"]["train" if config.tokenizer.url else "lowercase"]
    values["select"]["duplicates"] = duplicates_of(config.select, config.clean.preset)
    if values["select"]["duplicates"] != "near":
        del values["select"]["similarity"]
    if not config.select.decontaminate:
        del values["select"]["contaminated"]
    return {key: value for key, value in values.items() if key not in left_out}


def made_with(config: DataConfig) -> dict[str, Any]:
    """The settings of data that decide what a store holds, for its manifest: with the names of sources and evaluation
    sets, not their places.
    """
    values = {key: value for key, value in effective_settings(config).items() if key not in OWN}
    values["sources"] = [
        {"reader": source.reader, "name": source_name(source), "options": source.options} for source in config.sources
    ]
    sets = [{**plain(one), "name": one.name or storage.base_name(one.url)} for one in config.select.decontaminate]
    values["select"]["decontaminate"] = [{key: one[key] for key in one if key != "url"} for one in sets]
    return values


def check(config: DataConfig, blanks_config: BlanksConfig) -> None:
    """Refuse settings that cannot work together, before anything runs; numbers out of range are refused earlier."""
    if config.store and config.mix:
        raise UserError("data.store and data.mix are both given", try_="name the store in data.mix, with its weight")
    if not config.store and not config.mix and not config.sources:
        raise UserError(
            "there is nothing to prepare: data.sources is empty",
            try_="--data.sources='[{reader: text, url: /path/to/texts}]', or data.store=<an existing store>",
        )
    if config.tokenizer.lowercase is not None and config.tokenizer.url is None:
        raise UserError(
            "data.tokenizer.lowercase is given without data.tokenizer.url",
            why="it tells how to read a vocab.txt",
            try_="--data.tokenizer.train.lowercase=true, if the tokenizer that is trained should be uncased",
        )
    for source in config.sources:
        if source.url and storage.join(storage.absolute(config.root), "").startswith(
            storage.join(storage.absolute(source.url), "")
        ):
            raise UserError(
                f"data.root={config.root} lies inside the source {source.url}",
                why="what preparation writes there would be read as text the next time",
                try_="choose a data.root beside the source",
            )
    if config.cache and not storage.is_local(config.cache):
        raise UserError(
            f"data.cache={config.cache} is on another machine",
            try_="name a folder on a disk that every training machine has",
        )
    if config.sequence_length < 8:
        raise UserError(
            f"data.sequence_length must be at least 8, got {config.sequence_length}",
            why="a shorter segment leaves no room for text",
            try_="--data.sequence_length=512, as in the paper",
        )
    if config.row_width < config.sequence_length + 2:
        raise UserError(
            f"data.row_width={config.row_width} cannot hold a segment of data.sequence_length={config.sequence_length}",
            try_=f"--data.row_width={4 * config.sequence_length}",
        )
    if config.validation_fraction + config.test_fraction >= 1:
        raise UserError(
            "data.validation_fraction and data.test_fraction leave nothing to train on",
            try_="lower them: by default each is 0.005",
        )
    mixture.resolve(blanks_config)


def cache_of(config: DataConfig) -> DiskCache | None:
    """Where a training keeps what it reads of the store, on this machine."""
    return DiskCache(config.cache, max_bytes=int(config.cache_bytes)) if config.cache else None
