"""What decides a token store: its configuration, and the names (keys of inputs and settings) of what is made from
it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.config import Count
from infra.errors import UserError
from pipelines import blanks, store, text
from pipelines.blanks import BlanksConfig
from pipelines.clean import CleanConfig
from pipelines.sources import InputFile, Source
from pipelines.tokenizer_training import TokenizerTraining


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
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Which documents are repaired or dropped."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    sequence_length: int = 512
    """Longest segment in tokens, [CLS] and eos included. It needs position tables of at least this size."""
    row_width: int = 8192
    """Positions of a packed row."""
    rows_per_group: int = 64
    """Rows of a Parquet row group: what is read and decoded at once."""
    validation_fraction: float = 0.005
    """Share of the documents that is held out, chosen by a hash of their content."""
    validation_tokens: Count = Count(50_000)
    """Held out at least, by estimate, where the corpus allows."""
    unit_bytes: Count = Count(16_000_000)
    """Raw text that one task reads and cleans."""
    shard_bytes: Count = Count(64_000_000)
    """Cleaned text that one shard holds."""
    plan_epochs: int = 1
    """Epochs whose blanks are drawn in advance; the others are drawn while training, with the same result."""
    seed: int = 1234
    """Decides how documents are shuffled into shards."""


def check(config: DataConfig, blanks_config: BlanksConfig) -> None:
    """Refuse settings that cannot work, before anything runs."""
    if not config.store and not config.sources:
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
    if not 0 <= config.validation_fraction < 1:
        raise UserError(f"data.validation_fraction={config.validation_fraction} is outside [0, 1)")
    blanks.resolve(blanks_config)


def content_settings(config: DataConfig, blanks_config: BlanksConfig) -> dict[str, Any]:
    """The settings that decide what a store holds."""
    # Packing reserves room for any draw, and what blanks look like takes no room: one store serves all ablations.
    packed_for = {"mixture": blanks_config.mixture, "settings": blanks_config.settings}
    names = (
        "sequence_length",
        "row_width",
        "rows_per_group",
        "validation_fraction",
        "validation_tokens",
        "shard_bytes",
        "seed",
    )
    return {name: getattr(config, name) for name in names} | {"blanks": packed_for, "text": text.VERSION}


def text_url(config: DataConfig) -> str:
    return storage.join(storage.absolute(config.root), "text", _key("text", text.VERSION, asdict(config.clean)))


def store_url(config: DataConfig, units: list[dict[str, Any]], tokenizer: Tokenizer, settings: dict[str, Any]) -> str:
    special = asdict(tokenizer.special)
    key = _key(store.FORMAT, tokenizer.digest, special, settings, [[unit["source"], unit["digest"]] for unit in units])
    return storage.join(storage.absolute(config.root), "stores", key)


def trained_url(config: DataConfig, units: list[dict[str, Any]]) -> str:
    digests = [unit["digest"] for unit in units]
    key = _key("tokenizer", text.VERSION, asdict(config.tokenizer.train), config.seed, digests)
    return storage.join(storage.absolute(config.root), "tokenizers", key)


def unit_key(files: list[InputFile]) -> str:
    """Names a unit's outputs: its source, reader and options, and each file's path, size and version."""
    head = files[0]
    return _key(head.source, head.reader, head.options, [[f.path, f.size, f.version] for f in files])


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
