"""What decides a token store: its configuration, and the names (keys of inputs and settings) of what is made from
it.
"""

from dataclasses import dataclass, field

from infra import storage
from infra.config import Count
from infra.errors import UserError
from infra.storage.disk_cache import DiskCache
from pipelines.blanks import mixture
from pipelines.blanks.mixture import BlanksConfig
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import Source
from pipelines.selection.select import SelectConfig
from pipelines.store.mix import Member
from pipelines.store.tokenizer_training import TokenizerTraining


@dataclass
class TokenizerConfig:
    url: str | None = None
    """A tokenizer.json, a BERT vocab.txt, or GPT-2's vocab.json + merges.txt: a local path or a URL. None: train
    one.
    """
    train: TokenizerTraining = field(default_factory=TokenizerTraining)
    """How to train one on the corpus when no url is given."""


@dataclass
class DataConfig:
    sources: list[Source] = field(default_factory=list)
    """Where raw text comes from: a list of {reader, url}, with optional name and options."""
    root: str = "./runs/data"
    """Folder or URL for everything that preparation makes: cleaned text, tokenizers, stores."""
    store: str | None = None
    """An existing token store to train on; sources are ignored then."""
    mix: list[Member] = field(default_factory=list)
    """Existing token stores to train on together, as {store, weight}; sources are ignored then."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Which documents are repaired or dropped."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Which documents are left out: duplicates, evaluation sets, your list."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    sequence_length: int = 512
    """Longest segment in tokens, [CLS] and eos included. It needs position tables of at least this size."""
    row_width: int = 8192
    """Positions of a packed row."""
    rows_per_group: int = 64
    """Rows of a Parquet row group: what is read and decoded at once."""
    validation_fraction: float = 0.005
    """Share of the documents that is held out to watch training, chosen by a hash of their content."""
    test_fraction: float = 0.005
    """Share of the documents that is held out for good; of sources of 64 documents and more."""
    validation_tokens: Count = Count(50_000)
    """Held out at least, by estimate, where the corpus allows."""
    unit_bytes: Count = Count(16_000_000)
    """Raw text that one task reads and cleans."""
    max_malformed: float = 0.01
    """Share of a source's records that may be malformed (broken lines, not text); more end the preparation."""
    shard_bytes: Count = Count(64_000_000)
    """Cleaned text that one shard holds."""
    plan_epochs: int = 1
    """Epochs whose blanks are drawn in advance; the others are drawn while training, with the same result."""
    seed: int = 1234
    """Decides how documents are shuffled into shards."""
    cache: str | None = None
    """Folder of each training machine that keeps what is read of a store on S3 and the like; default: nothing is."""
    cache_bytes: Count = Count(100_000_000_000)
    """Most that the folder holds; less than the store is of little use."""


def check(config: DataConfig, blanks_config: BlanksConfig) -> None:
    """Refuse settings that cannot work, before anything runs."""
    if config.store and config.mix:
        raise UserError("data.store and data.mix are both given", try_="name the store in data.mix, with its weight")
    if not config.store and not config.mix and not config.sources:
        raise UserError(
            "there is nothing to prepare: data.sources is empty",
            try_="--data.sources='[{reader: text, url: /path/to/texts}]', or data.store=<an existing store>",
        )
    for source in config.sources:
        if source.url and storage.join(storage.absolute(config.root), "").startswith(
            storage.join(storage.absolute(source.url), "")
        ):
            raise UserError(
                f"data.root={config.root} lies inside the source {source.url}",
                why="what preparation writes there would be read as text the next time",
                try_="a data.root beside the source",
            )
    if config.cache and not storage.is_local(config.cache):
        raise UserError(f"data.cache={config.cache} is on another machine", try_="a folder on a disk of each worker's")
    for name, least in (("unit_bytes", 1), ("shard_bytes", 1), ("rows_per_group", 1), ("plan_epochs", 0)):
        if getattr(config, name) < least:
            raise UserError(f"data.{name}={getattr(config, name)} is below {least}")
    if config.tokenizer.train.sample_bytes < 1:
        raise UserError("data.tokenizer.train.sample_bytes=0 is below 1", try_="30M, the default")
    if not 0 <= config.max_malformed <= 1:
        raise UserError(f"data.max_malformed={config.max_malformed:g} is outside [0, 1]")
    if config.sequence_length < 8:
        raise UserError(
            f"data.sequence_length={config.sequence_length} leaves no room for text",
            try_="at least 8; the paper uses 512",
        )
    if config.row_width < config.sequence_length + 2:
        raise UserError(
            f"data.row_width={config.row_width} cannot hold a segment of data.sequence_length={config.sequence_length}",
            try_=f"data.row_width={4 * config.sequence_length}",
        )
    for name in ("validation_fraction", "test_fraction"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"data.{name}={getattr(config, name)} is outside [0, 1)")
    if config.validation_fraction + config.test_fraction >= 1:
        raise UserError("data.validation_fraction and data.test_fraction leave nothing to train on")
    mixture.resolve(blanks_config)


def cache_of(config: DataConfig) -> DiskCache | None:
    """Where a training keeps what it reads of the store, on this machine."""
    return DiskCache(config.cache, max_bytes=int(config.cache_bytes)) if config.cache else None
