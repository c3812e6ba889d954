"""Where each output lies: names made of inputs and settings, so that equal ones are made once."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines import readers
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig
from pipelines.corpus.decompress import MAX_WINDOW, codec_of
from pipelines.corpus.languages import VERSION as LANGUAGES_VERSION
from pipelines.corpus.records import Unit
from pipelines.corpus.sources import InputFile
from pipelines.corpus.units import VERSION as TEXT_VERSION
from pipelines.selection.select import VERSION as SELECTION_VERSION
from pipelines.selection.select import Selection
from pipelines.store.format import FORMAT
from pipelines.store.segments import VERSION as SEGMENTS_VERSION
from pipelines.store.shards import ShardSettings


@dataclass(frozen=True)
class StoreSettings:
    """The settings that decide what a store holds, as they stand in its manifest."""

    sequence_length: int
    row_width: int
    rows_per_group: int
    validation_fraction: float
    test_fraction: float
    validation_tokens: int
    shard_bytes: int
    seed: int
    blanks: dict[str, Any]
    """Mixture and settings of the objectives that rows are packed for."""
    text: int
    """Version of the cleaned text."""
    select: dict[str, Any]
    """Version and settings of the selection."""

    @property
    def of_shards(self) -> ShardSettings:
        """Those that decide a shard."""
        return ShardSettings(self.sequence_length, self.row_width, self.rows_per_group, self.blanks)


def content_settings(config: DataConfig, blanks: BlanksConfig, selection: Selection) -> StoreSettings:
    """The settings of a recipe's store."""
    return StoreSettings(
        sequence_length=config.sequence_length,
        row_width=config.row_width,
        rows_per_group=config.rows_per_group,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        validation_tokens=config.validation_tokens,
        shard_bytes=config.shard_bytes,
        seed=config.seed,
        # Packing reserves room for any draw, and what blanks look like takes no room: one store serves all ablations.
        blanks={"mixture": blanks.mixture, "settings": blanks.settings},
        text=TEXT_VERSION,
        select={"version": SELECTION_VERSION, **selection.settings},
    )


def text_url(config: DataConfig) -> str:
    """Folder of the cleaned text."""
    told = [LANGUAGES_VERSION] if config.clean.languages else []
    return storage.join(storage.absolute(config.root), "text", _key("text", TEXT_VERSION, asdict(config.clean), *told))


def selection_url(config: DataConfig, units: list[Unit], selection: Selection) -> str:
    """Folder of what a selection from these units leaves out."""
    return selection_place(storage.absolute(config.root), units, selection.settings)


def selection_place(root: str, units: list[Unit], settings: dict[str, Any]) -> str:
    """As `selection_url`, by data.root and the settings of the selection, which a manifest tells."""
    digests = [[unit.source, unit.path, unit.digest] for unit in units]
    return storage.join(root, "selections", _key(SELECTION_VERSION, settings, digests))


def store_url(config: DataConfig, units: list[Unit], tokenizer: Tokenizer, settings: StoreSettings) -> str:
    """Folder of the store that is made of these units."""
    special, digests = asdict(tokenizer.special), [[unit.source, unit.digest] for unit in units]
    key = _key(FORMAT, tokenizer.digest, special, asdict(settings), digests, SEGMENTS_VERSION)
    return storage.join(storage.absolute(config.root), "stores", key)


def trained_url(config: DataConfig, units: list[Unit]) -> str:
    """Folder of the tokenizer that is trained on these units."""
    digests = [unit.digest for unit in units]
    key = _key("tokenizer", TEXT_VERSION, asdict(config.tokenizer.train), config.seed, digests)
    return storage.join(storage.absolute(config.root), "tokenizers", key)


def unit_limit(config: DataConfig) -> int:
    """Bytes of text that a unit holds at most; a task that finds more makes several."""
    return 4 * int(config.unit_bytes)


def task_key(config: DataConfig, files: list[InputFile]) -> str:
    """`unit_key` of a task, by the limits in the settings."""
    return unit_key(files, most=unit_limit(config), max_window=int(config.max_window))


def unit_key(files: list[InputFile], *, most: int, max_window: int = MAX_WINDOW) -> str:
    """Names the outputs of a task: source, reader, its version and options, each file's path, size and version, the
    bytes of text from which on it begins another unit, and the largest window of compressed files that have one.
    """
    head = files[0]
    places = [[f.path, f.size, f.version, f.start, f.stop] for f in files]
    # Of other files the window is not asked for.
    windows = [max_window] if any(codec_of(f.path) in (".zst", ".xz") for f in files) else []
    version = getattr(readers.find(head.reader), "VERSION", None)
    return _key(head.source, head.reader, head.options, places, most, *windows, *([version] if version else []))


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
