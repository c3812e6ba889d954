"""Metrics of written texts are what their packages say of all items together, and what their definitions say of few."""

import math

import pyarrow as pa
import pytest
import sacrebleu
from helpers.answered import table

from infra.errors import UserError
from pipelines.metrics.items import SCHEMA
from pipelines.metrics.known import METRICS
from pipelines.metrics.scores import check_metrics, score_written, scores

PAIRS = [  # written, right texts
    ("the cat sat on the mat .", ["The cat sat on a mat.", "A cat sat on the mat."]),
    ("it ran home", ["The dog ran home.", "It ran."]),
    ("", ["Go then.", "Go now."]),
    ("a mat, a cat and a dog", ["A mat, a cat and a dog.", "A cat."]),
]


def written(*pairs: tuple[str, list[str]], **columns) -> pa.Table:
    """Items of which each has these right texts, and what was written."""
    rows = [
        {
            "candidates": right,
            "logprobs": [-1.0] * len(right),
            "tokens": [1] * len(right),
            "gold": 0,
            "golds": list(range(len(right))),
            "written": text,
            "blanks": [{"right": right[0], "right_tokens": 1, "written": text, "tokens": 1, "ended": True}],
            **columns,
        }
        for text, right in pairs
    ]
    return table(*rows)


def value(name: str, *pairs: tuple[str, list[str]]) -> float:
    (score,) = scores(written(*pairs), (name,), classes=0)
    return score.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rouge1", 100 * (2 / 3 + 0.8) / 2),
        ("rouge2", 100 * (1 / 2 + 2 / 3) / 2),
        ("rougeL", 100 * (2 / 3 + 0.8) / 2),
        ("rougeLsum", 100 * (2 / 3 + 0.8) / 2),
    ],
)
def test_rouge_is_the_mean_of_f1_over_items(name, expected):
    """2 of 3 words and 1 of 2 pairs are shared; and of two right texts the nearer one shares 2 of 2 and 3 words."""
    assert value(name, ("the cat ran", ["the cat sat"]), ("dogs jumped", ["go", "Dog jumps home"])) == pytest.approx(
        expected
    )


def test_rouge_of_summaries_compares_sentences_whatever_their_order_and_case():
    swapped = ("dogs bark loudly . a cat sat .", ["A cat sat. Dogs bark loudly."])
    assert value("rougeLsum", swapped) == 100.0
    assert value("rougeL", swapped) == pytest.approx(50.0)
    (score,) = scores(written(swapped), ("rougeLsum",), classes=0)
    assert score.variant.startswith("rouge-score 0.1.2, F1, stemmer, nearest right text; sentences end at line breaks")


def test_texts_that_rouge_cannot_read_do_not_count():
    assert scores(written(("猫坐下", ["狗坐下"])), ("rouge1",), classes=0) == []
    several = written(("猫坐下", ["狗坐下"]), ("a cat", ["a cat"]), ("猫", ["猫", "cats"]))
    (score,) = scores(several, ("rouge1",), classes=0)
    assert (score.value, score.n) == (50.0, 2)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sacrebleu", sacrebleu.BLEU),
        ("sacrebleu_lc", lambda: sacrebleu.BLEU(lowercase=True)),
        ("chrf", sacrebleu.CHRF),
    ],
)
def test_bleu_and_chrf_are_those_of_the_whole_corpus(name, make):
    metric = make()
    streams = [[right[number] for _, right in PAIRS] for number in (0, 1)]
    expected = metric.corpus_score([text for text, _ in PAIRS], streams).score
    (score,) = scores(written(*PAIRS), (name,), classes=0)
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.variant == str(metric.get_signature())
    assert score.interval
    assert 0.0 <= score.interval.low <= score.value <= score.interval.high <= 100.0


def test_the_signature_says_that_right_texts_vary_in_number():
    (score,) = scores(written(("a", ["a"]), ("b", ["b", "c"])), ("sacrebleu",), classes=0)
    assert score.variant == f"nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_nothing_written_is_worth_nothing():
    for name in ("sacrebleu", "sacrebleu_lc", "sacrebleu_zh", "chrf", "rouge1", "rougeLsum", "char_f1"):
        assert value(name, ("", ["A cat sat on the mat."])) == 0.0
        assert value(name, ("A cat sat on the mat.", ["A cat sat on the mat."])) == pytest.approx(100.0)


def test_characters_are_counted_where_words_have_no_spaces():
    assert value("char_f1", ("北京 是首都", ["首都是北京市"])) == pytest.approx(100 * 10 / 11)
    assert value("char_f1", ("aab", ["abb"])) == pytest.approx(100 * 4 / 6)


def test_another_text_is_judged_in_the_place_of_what_was_written():
    items = written(("a dog", ["a cat"]), ("a cat", ["a cat"]))
    assert score_written("rouge1", items, ["a cat", "a cat"], [["a cat"], ["a cat"]]) == 100.0
    assert score_written("rouge1", items, ["x", "a"], [["x"], ["a"]]) == pytest.approx(100 * 2 / 3 / 2)


def test_metrics_of_texts_and_of_choices_are_not_mixed_up():
    check_metrics(["rougeLsum", "bits_per_byte"], classes=0, generates=True)
    with pytest.raises(UserError, match="accuracy is for choices, and this task generates texts"):
        check_metrics(["accuracy"], classes=0, generates=True)
    with pytest.raises(UserError, match="rouge1 is for texts that are generated, and this task chooses"):
        check_metrics(["rouge1"], classes=2)


def test_bits_leave_out_a_text_that_is_longer_than_the_model():
    items = written(("a", ["abcd"]), ("b", ["ef"]))
    number = SCHEMA.get_field_index("logprobs")
    items = items.set_column(
        number, SCHEMA.field(number), pa.array([[float("nan")], [-math.log(2)]], SCHEMA.field(number).type)
    )
    (score,) = scores(items, ("bits_per_byte",), classes=0)
    assert (score.value, score.n) == (pytest.approx(0.5), 1)
    assert METRICS["bits_per_byte"].needs == "likelihoods"


def test_exact_match_is_a_mean_over_blanks_and_its_n_counts_them():
    def item(*pairs: tuple[str, str]) -> dict:
        told = {"right_tokens": 1, "tokens": 1, "ended": True}
        return {"gold": 0, "blanks": [{"right": right, "written": text, **told} for right, text in pairs]}

    items = table(item(("Cat", "cat"), ("a", "the"), ("on", "o n")), item(("mat", "hat")))
    (score,) = scores(items, ("exact_match",), classes=0)
    assert (score.value, score.n) == (50.0, 4)
