"""Law 17: bits and perplexities are what their definitions say of the recorded log-probabilities."""

import math

import pytest
from helpers.answered import table

from pipelines.metrics.known import shown, shown_interval
from pipelines.metrics.scores import scores

NAMES = ("bits", "bits_per_byte", "perplexity", "word_perplexity")


def test_each_text_counts_by_its_bytes_tokens_and_words():
    rows = table(
        {"candidates": ["né a"], "logprobs": [-6.0], "tokens": [3], "gold": 0},
        {"candidates": ["x", "a b c"], "logprobs": [-9.0, -2.0], "tokens": [1, 5], "gold": 1, "words": 4},
    )
    found = scores(rows, NAMES, classes=0)
    assert [score.value for score in found] == pytest.approx(
        [8 / math.log(2) / 2, 8 / math.log(2) / (5 + 5), math.exp(8 / 8), math.exp(8 / (2 + 4))]
    )
    assert [(score.one_answer, score.majority, score.n) for score in found] == [((), None, 2)] * 4
    assert all(score.interval and score.interval.low <= score.value <= score.interval.high for score in found)


def test_of_a_word_that_is_written_chance_is_not_known():
    rows = table(
        {"candidates": ["mat"], "logprobs": [-1.0], "tokens": [1], "gold": 0, "choice": 0},
        {"candidates": ["dog"], "logprobs": [-3.0], "tokens": [2], "gold": 0, "choice": None},
    )
    accuracy, bits = scores(rows, ("accuracy", "bits"), classes=0)
    assert (accuracy.value, accuracy.majority) == (50.0, None)
    assert bits.value == pytest.approx(2 / math.log(2))


def test_values_are_shown_with_the_digits_of_their_metric():
    assert [shown(name, 1.23456) for name in ("accuracy", *NAMES)] == ["1.2", "1.23", "1.235", "1.23", "1.23"]
    assert shown_interval("bits_per_byte", 1.0, 1.5) == "1.000 to 1.500"
    assert shown_interval("accuracy", None, None) == "-"
