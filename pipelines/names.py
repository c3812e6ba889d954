"""Where each output lies: names made of inputs and settings, so that equal ones are made once."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig
from pipelines.corpus import units as text
from pipelines.corpus.sources import InputFile
from pipelines.selection import select as selection
from pipelines.store import format as store


def content_settings(config: DataConfig, blanks_config: BlanksConfig, selected: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a store holds; selected: those of the selection."""
    # Packing reserves room for any draw, and what blanks look like takes no room: one store serves all ablations.
    packed_for = {"mixture": blanks_config.mixture, "settings": blanks_config.settings}
    names = (
        "sequence_length",
        "row_width",
        "rows_per_group",
        "validation_fraction",
        "test_fraction",
        "validation_tokens",
        "shard_bytes",
        "seed",
    )
    values = {name: getattr(config, name) for name in names}
    return values | {"blanks": packed_for, "text": text.VERSION, "select": {"version": selection.VERSION, **selected}}


def text_url(config: DataConfig) -> str:
    return storage.join(storage.absolute(config.root), "text", _key("text", text.VERSION, asdict(config.clean)))


def selection_url(config: DataConfig, units: list[dict[str, Any]], selected: dict[str, Any]) -> str:
    digests = [[unit["source"], unit["path"], unit["digest"]] for unit in units]
    return storage.join(storage.absolute(config.root), "selections", _key(selection.VERSION, selected, digests))


def store_url(config: DataConfig, units: list[dict[str, Any]], tokenizer: Tokenizer, settings: dict[str, Any]) -> str:
    special = asdict(tokenizer.special)
    key = _key(store.FORMAT, tokenizer.digest, special, settings, [[unit["source"], unit["digest"]] for unit in units])
    return storage.join(storage.absolute(config.root), "stores", key)


def trained_url(config: DataConfig, units: list[dict[str, Any]]) -> str:
    digests = [unit["digest"] for unit in units]
    key = _key("tokenizer", text.VERSION, asdict(config.tokenizer.train), config.seed, digests)
    return storage.join(storage.absolute(config.root), "tokenizers", key)


def unit_limit(config: DataConfig) -> int:
    """Bytes of text that a unit holds at most; a task that finds more makes several."""
    return 4 * int(config.unit_bytes)


def unit_key(files: list[InputFile], *, most: int) -> str:
    """Names the outputs of a task: source, reader and options, each file's path, size and version, and the bytes of
    text from which on it begins another unit.
    """
    head = files[0]
    places = [[f.path, f.size, f.version, f.start, f.stop] for f in files]
    return _key(head.source, head.reader, head.options, places, most)


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
