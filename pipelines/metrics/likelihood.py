"""Metrics of how likely the right answers are, whatever is chosen: of a word, or of a text that is read.

bits             mean of -log2 p of an item's right answer: the last word of LAMBADA
bits_per_byte    -log2 p for each byte of UTF-8 of the answers' texts: the same for every tokenizer
perplexity       exp of the mean of -log p over tokens: of two tokenizers it says nothing
word_perplexity  exp of -log p for each word, as the file counts words, where it says so

They are not on 0 to 100, and lower is better.
"""

import math
from collections.abc import Callable

import numpy as np

from pipelines.metrics.metric import Answers, Metric, sum_by_group

_NATS, _ITEMS, _BYTES, _TOKENS, _WORDS = range(5)


def _sums(answers: Answers, groups: np.ndarray) -> np.ndarray:
    rows = answers.items.select(["candidates", "logprobs", "tokens", "gold", "words", "blanks"]).to_pylist()
    counted = np.zeros((len(rows), 5))
    for number, row in enumerate(rows):
        gold = row["gold"]
        if math.isnan(row["logprobs"][gold]):  # a right text that is longer than the model
            continue
        blanks = row["blanks"]  # where a text is filled only these are predicted
        text = "".join(blank["right"] for blank in blanks) if blanks else row["candidates"][gold]
        words = len(text.split()) if row["words"] is None else row["words"]
        counted[number] = (-row["logprobs"][gold], 1, len(text.encode()), row["tokens"][gold], words)
    return sum_by_group(counted, groups)


def _rate(unit: int) -> Callable[[np.ndarray], np.ndarray]:
    """Sums [..., 5] -> nats for each of something [...]; NaN where there is none of it."""

    def rate(sums: np.ndarray) -> np.ndarray:
        count = sums[..., unit]
        return np.divide(sums[..., _NATS], count, out=np.full(np.shape(count), np.nan), where=count > 0)

    return rate


def _bits(unit: int) -> Callable[[np.ndarray], np.ndarray]:
    rate = _rate(unit)
    return lambda sums: rate(sums) / math.log(2)


def _perplexity(unit: int) -> Callable[[np.ndarray], np.ndarray]:
    rate = _rate(unit)
    return lambda sums: np.exp(rate(sums))


def _metric(value: Callable[[np.ndarray], np.ndarray], digits: int) -> Metric:
    """A metric of the items whose right answer the model can read."""
    return Metric(_sums, value, needs="likelihoods", digits=digits, counted=lambda sums: int(sums[_ITEMS]))


METRICS = {
    "bits": _metric(_bits(_ITEMS), 2),
    "bits_per_byte": _metric(_bits(_BYTES), 3),
    "perplexity": _metric(_perplexity(_TOKENS), 2),
    "word_perplexity": _metric(_perplexity(_WORDS), 2),
}
