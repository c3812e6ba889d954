"""The tokenizer of a corpus: given, or trained once on a sample of its cleaned text."""

from collections.abc import Iterable
from typing import Any

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import UserError
from pipelines.config import DataConfig
from pipelines.corpus import units as text
from pipelines.names import text_url, trained_url
from pipelines.store import shards
from pipelines.store.tokenizer_training import train


def prepare_tokenizer(config: DataConfig, units: list[dict[str, Any]]) -> Tokenizer:
    """Load the tokenizer, or train it on a sample of the cleaned text (once per text and settings)."""
    if config.tokenizer.url:
        return load_tokenizer(config.tokenizer.url)
    url = trained_url(config, units)
    if not storage.exists(storage.join(url, "tokenizer.json")):
        save_tokenizer(train(_sample(config, units), config.tokenizer.train), url)
    return Tokenizer.load(url)


def load_tokenizer(url: str) -> Tokenizer:
    """That of data.tokenizer.url. Raises UserError when there is none."""
    try:
        return Tokenizer.load(url)
    except ValueError as error:  # it names the file, the reason and the remedy
        raise UserError(f"data.tokenizer.url: {error}") from error


def save_tokenizer(tokenizer: Tokenizer, url: str) -> None:
    """Whole or not at all, unlike `Tokenizer.save`: the next run takes what is there."""
    storage.write_bytes(storage.join(url, "tokenizer.json"), tokenizer.to_json().encode())


def _sample(config: DataConfig, units: list[dict[str, Any]]) -> Iterable[str]:
    """Cleaned documents of random pieces, up to tokenizer.train.sample_bytes; the same for the same text."""
    url, left = text_url(config), int(config.tokenizer.train.sample_bytes)
    for piece in shards.keyed_order(text.pieces(units), seed=config.seed):
        table = text.read_pieces(storage.join(url, f"{piece['unit']}.parquet"), [piece["group"]], ["text"])
        for document in table["text"].to_pylist():
            yield document
            left -= len(document.encode())
            if left <= 0:
                return
