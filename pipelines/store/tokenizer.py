"""The tokenizer of a corpus: given, or trained once on a sample of its cleaned text."""

import contextlib
import functools
import warnings
from collections.abc import Iterator

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.console import Console
from infra.errors import UserError
from pipelines.corpus.records import Unit, buckets_of
from pipelines.corpus.units import read_bucket
from pipelines.stages import Runner
from pipelines.store.shards import keyed_order
from pipelines.store.tokenizer_process import train_apart
from pipelines.store.tokenizer_training import TokenizerTraining


def load_tokenizer(url: str, *, lowercase: bool | None) -> Tokenizer:
    """The tokenizer of data.tokenizer.url and lowercase. Raises UserError when there is none."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            tokenizer = Tokenizer.load(url, lowercase=lowercase)
    except ValueError as error:  # it names the file, the reason and the remedy
        raise UserError(f"data.tokenizer.url: {error}") from error
    for warning in caught:
        _warn_once(f"data.tokenizer.url: {warning.message}")
    return tokenizer


@functools.cache
def _warn_once(message: str) -> None:
    Console().warn(message)


def train_once(
    url: str, units: list[Unit], training: TokenizerTraining, *, text_url: str, seed: int, runner: Runner | None = None
) -> Tokenizer:
    """The tokenizer in the folder `url`, trained on a sample of these units' cleaned text if it is not there yet.

    runner: shows the seconds that pass. Ctrl-C ends the training.
    """
    if not storage.exists(storage.join(url, "tokenizer.json")):
        texts = sample(units, text_url, most_bytes=int(training.sample_bytes), seed=seed)
        with contextlib.closing(train_apart(texts, training)) as outcomes:
            for outcome in (runner or Runner()).progress("tokenizer", outcomes, 1):
                if isinstance(outcome, Tokenizer):
                    save_tokenizer(outcome, url)
    return Tokenizer.load(url)


def save_tokenizer(tokenizer: Tokenizer, url: str) -> None:
    """Whole or not at all, unlike `Tokenizer.save`: the next run takes what is there."""
    storage.write_bytes(storage.join(url, "tokenizer.json"), tokenizer.to_json().encode())


def sample(units: list[Unit], text_url: str, *, most_bytes: int, seed: int) -> Iterator[str]:
    """Cleaned documents of random buckets, up to the one that fills most_bytes; the same for the same text."""
    left = most_bytes
    for place in keyed_order(buckets_of(units), seed=seed):
        for document in read_bucket(text_url, place.unit, place.bucket, ["text"])["text"].to_pylist():
            yield document
            left -= len(document.encode())
            if left <= 0:
                return
