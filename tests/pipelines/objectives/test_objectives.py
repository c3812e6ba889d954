"""Objectives (law 14): their statistics against the authors' and theory, their shapes, and how they are found."""

import itertools
import json
import math

import numpy as np
import pytest
from helpers import small

from infra.errors import UserError
from pipelines import objectives, plugins
from pipelines.objectives import SegmentBatch, document, sentence, token

CLASSES = small.golden_classes()
SEGMENTS = 20_000  # as many as the authors' figures come from
LEVEL = 4.5  # standard errors: two-sided 7e-6 per comparison; the seed is fixed, so a pass stays a pass


def segments(count: int, length: int, *, eos: bool, seed: int = 1) -> SegmentBatch:
    """`count` segments of `length` tokens in all; the token objective reads none of them."""
    tokens = np.full((count, length), 100, np.uint16)
    tokens[:, 0] = CLASSES.cls
    if eos:
        tokens[:, -1] = CLASSES.eos
    keys = np.random.default_rng(seed).integers(0, 1 << 64, count, dtype=np.uint64)
    return SegmentBatch(tokens.ravel(), np.arange(count + 1) * length, keys, CLASSES)


def sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum over each segment; every segment has at least one blank."""
    return np.add.reduceat(values, offsets[:-1])


@pytest.fixture(scope="module")
def sample() -> dict[str, np.ndarray]:
    """Blanks of 512-token segments under the paper's settings, in text order."""
    batch = segments(SEGMENTS, 512, eos=True)
    spans, offsets = token.spans(batch, token.Config())
    segment = np.repeat(np.arange(SEGMENTS), np.diff(offsets))
    order = np.lexsort((spans[:, 0], segment))
    return {"spans": spans, "ordered": spans[order], "offsets": offsets, "segment": segment}


@pytest.fixture(scope="module")
def theirs(shared) -> dict:
    path = shared / "reference" / "golden" / "objective_stats.json"
    if not path.exists():
        pytest.skip("the authors' statistics are not here (objective_stats.json is absent)")
    return json.loads(path.read_text())["bert_eos"]  # 512 tokens, the last one eos


def assert_same_mean(ours: np.ndarray, theirs: dict, what: str) -> None:
    error = math.hypot(ours.std() / math.sqrt(len(ours)), theirs["se_of_mean"])
    assert abs(ours.mean() - theirs["mean"]) < LEVEL * error, (what, ours.mean(), theirs["mean"], error)


def assert_same_histogram(ours: np.ndarray, counts: dict[str, int], what: str) -> None:
    """Two-sample chi-square over the values that both have 20 of; the rest is one cell."""
    top = max(int(max(map(int, counts))), int(ours.max())) + 1
    b = np.array([counts.get(str(value), 0) for value in range(top)], float)
    a = np.bincount(ours, minlength=top).astype(float)
    common = (a >= 20) & (b >= 20)
    a = np.append(a[common], a[~common].sum())
    b = np.append(b[common], b[~common].sum())
    ratio = math.sqrt(b.sum() / a.sum())
    cells = (a + b) > 0
    statistic = float((((ratio * a - b / ratio) ** 2)[cells] / (a + b)[cells]).sum())
    freedom = int(cells.sum()) - 1
    assert statistic < freedom + LEVEL * math.sqrt(2 * freedom), (what, statistic, freedom)


def test_token_blanks_have_the_authors_statistics(sample, theirs):
    offsets, spans = sample["offsets"], sample["ordered"]
    sizes, count = spans[:, 1] - spans[:, 0], np.diff(offsets)
    masked = sums(sizes, offsets)
    assert_same_mean(count, theirs["n_spans"], "number of blanks")
    assert_same_mean(sizes, theirs["span_length"], "blank length")
    assert_same_mean(masked, theirs["masked_tokens"], "masked tokens")
    assert_same_mean(masked / 512, theirs["masked_fraction"], "masked share")
    assert_same_mean(512 + 2 * count, theirs["total_len"], "expanded length")
    assert_same_mean(masked + count, theirs["loss_tokens"], "targets")
    first, last = offsets[:-1], offsets[1:] - 1
    assert_same_mean(spans[first, 0], theirs["first_span_start"], "start of the first blank")
    assert_same_mean(spans[last, 1], theirs["last_span_end"], "end of the last blank")
    assert_same_mean(sizes[first], theirs["length_of_leftmost_span"], "length of the first blank")
    assert_same_mean(sizes[last], theirs["length_of_rightmost_span"], "length of the last blank")
    assert_same_histogram(count, theirs["n_spans"]["counts"], "number of blanks")
    assert_same_histogram(sizes, theirs["span_length"]["counts"], "blank lengths")
    assert_same_histogram(masked, theirs["masked_tokens"]["counts"], "masked tokens")


def test_every_place_is_masked_as_often_as_by_the_authors(sample, theirs):
    change = np.zeros(513)
    np.add.at(change, sample["spans"][:, 0], 1)
    np.add.at(change, sample["spans"][:, 1], -1)
    ours = np.cumsum(change)[:512] / SEGMENTS
    expected = np.array(theirs["mask_prob_per_position_len512"])
    assert ours[0] == ours[511] == 0  # [CLS] and eos
    error = np.sqrt(2 * expected[1:511] * (1 - expected[1:511]) / SEGMENTS)
    assert (np.abs(ours[1:511] - expected[1:511]) < LEVEL * error).all()


def test_token_blanks_match_theory(sample):
    """Zero-truncated Poisson(3): mean 3 / (1 - e^-3) = 3.157; the sum stops at or behind 76 = int(0.15 * 512)."""
    sizes = sample["spans"][:, 1] - sample["spans"][:, 0]
    masked = sums(sizes, sample["offsets"])
    assert (masked >= 76).all()
    assert (masked < 76 + 39).all()
    p = token.length_probabilities(3.0, 39)
    assert p.shape == (40,)
    assert p @ np.arange(40) == pytest.approx(3 / (1 - math.exp(-3)), abs=1e-9)
    assert p[1:4].tolist() == pytest.approx(
        [math.exp(-3) * 3**k / math.factorial(k) / (1 - math.exp(-3)) for k in (1, 2, 3)]
    )
    assert p[10:].sum() == pytest.approx(0.0012, abs=5e-5)  # glm_facts section 1.3


def test_at_least_one_token_stays_between_two_token_blanks(sample):
    spans, segment = sample["ordered"], sample["segment"]
    gap = spans[1:, 0] - spans[:-1, 1]
    assert gap[segment[1:] == segment[:-1]].min() == 1


def test_the_order_of_prediction_is_uniform(sample):
    """The rank, from left to right, of the blank that is predicted first (the paper shuffles blanks)."""
    starts, offsets = sample["spans"][:, 0], sample["offsets"]
    first = starts[offsets[:-1]]
    before = np.add.reduceat(starts < np.repeat(first, np.diff(offsets)), offsets[:-1])
    rank = before / np.maximum(np.diff(offsets) - 1, 1)
    assert abs(rank.mean() - 0.5) < LEVEL * rank.std() / math.sqrt(SEGMENTS)
    count = np.diff(offsets)
    same = count == 24
    places = np.bincount(before[same], minlength=24)
    expected = same.sum() / 24
    assert ((places - expected) ** 2 / expected).sum() < 23 + LEVEL * math.sqrt(2 * 23)


@pytest.mark.parametrize(("ratio", "mean_length"), [(0.15, 3.0), (0.3, 10.0), (0.05, 1.0)])
def test_the_number_of_token_blanks_has_the_moments_that_packing_reserves_for(ratio, mean_length):
    config = token.Config(ratio=ratio, mean_length=mean_length)
    batch = segments(SEGMENTS, 512, eos=False, seed=2)
    _, offsets = token.spans(batch, config)
    count = np.diff(offsets)
    mean, variance = token.blank_moments(batch, config)
    assert len(set(mean)) == len(set(variance)) == 1
    assert abs(count.mean() - mean[0]) < LEVEL * math.sqrt(variance[0] / SEGMENTS)
    assert abs(count.var() - variance[0]) < LEVEL * variance[0] * math.sqrt(3 / SEGMENTS)


def moments_of(targets: list[int], **settings) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the blanks of segments of which so many tokens are to be blanked: all of their text."""
    rows = small.numbers(targets, [False] * len(targets))
    batch = SegmentBatch(rows.tokens, rows.offsets, rows.ids, CLASSES)
    return token.blank_moments(batch, token.Config(ratio=1.0, **settings))


def test_blank_moments_are_the_renewal_moments():
    """Against a plain simulation of lengths, and against the exact values of a tiny case."""
    p = token.length_probabilities(2.0, 3)
    mean, variance = moments_of([1, 2, 3], mean_length=2.0, max_length=3)
    # Sum reaches 1 with the first length; it reaches 2 with the first unless that is 1; 3 by hand likewise.
    two, three = 1 + p[1], 1 + p[1] * (1 + p[1]) + p[2]
    assert mean.tolist() == pytest.approx([1, two, three])
    assert variance[0] == pytest.approx(0)
    assert variance[1] == pytest.approx(p[1] * (1 - p[1]))
    rng = np.random.default_rng(5)
    lengths = rng.choice(40, (20_000, 60), p=token.length_probabilities(3.0, 39))
    targets = [1, 5, 20, 76]
    for target, mean, variance in zip(targets, *moments_of(targets), strict=True):
        count = (np.cumsum(lengths, axis=1) < target).sum(axis=1) + 1
        assert abs(count.mean() - mean) <= LEVEL * math.sqrt(variance / 20_000)
        assert abs(count.var() - variance) <= LEVEL * variance * math.sqrt(3 / 20_000)


def test_token_blanks_leave_something_to_read_in_short_segments():
    for text in range(2, 80):
        batch = segments(50, text + 1, eos=False, seed=text)
        spans, _ = token.spans(batch, token.Config())
        assert (spans[:, 1] - spans[:, 0]).max() <= max(text // 2, 1)


def test_a_full_ratio_blanks_all_text_of_a_segment():
    batch = segments(200, 30, eos=True)
    spans, offsets = token.spans(batch, token.Config(ratio=1.0))
    assert (sums(spans[:, 1] - spans[:, 0], offsets) == 28).all()


def test_document_blanks_have_the_papers_lengths_and_two_forms():
    batch = segments(SEGMENTS, 102, eos=True)  # 100 tokens of text
    spans, offsets = document.spans(batch, document.Config())
    assert offsets.tolist() == list(range(SEGMENTS + 1))
    suffix = spans[:, 1] == 102
    text = spans[:, 1] - spans[:, 0] - suffix  # eos is part of the suffix form and no text
    assert sorted(set(text.tolist())) == list(range(50, 101))
    assert abs(text.mean() - 75) < LEVEL * text.std() / math.sqrt(SEGMENTS)
    assert abs(suffix.mean() - 0.5) < LEVEL * 0.5 / math.sqrt(SEGMENTS)
    inside = spans[~suffix]
    assert (inside[:, 0].min(), inside[:, 1].max()) == (1, 101)
    sixty = inside[text[~suffix] == 60]
    assert sorted(set(sixty[:, 0].tolist())) == list(range(1, 42))  # every place that holds 60 tokens
    assert document.blank_moments(batch, document.Config())[0].tolist() == [1.0] * SEGMENTS


def test_the_gpt_settings_blank_everything_behind_cls():
    config = document.Config(min_ratio=1.0, suffix_share=1.0)
    for eos in (True, False):
        spans, _ = document.spans(segments(20, 12, eos=eos), config)
        assert spans.tolist() == [[1, 12]] * 20


def sentences_of(*, ratio: float, seed: int = 0):
    """[CLS] and sentences of 4, 3 and 2 tokens and a tail of 3, then eos: (spans of 300 draws)."""
    text = [100, 101, 102, 10, 103, 104, 11, 105, 12, 106, 107, 108]
    tokens = np.tile([1, *text, 0], 300).astype(np.uint16)
    keys = np.random.default_rng(seed).integers(0, 1 << 64, 300, dtype=np.uint64)
    batch = SegmentBatch(tokens, np.arange(301) * 14, keys, CLASSES)
    spans, offsets = sentence.spans(batch, sentence.Config(ratio=ratio))
    return [tuple(map(tuple, spans[a:b].tolist())) for a, b in itertools.pairwise(offsets)]


SENTENCES = {(1, 5), (5, 8), (8, 10), (10, 13)}


def test_sentence_blanks_are_whole_sentences_and_a_tail_is_one():
    few = sentences_of(ratio=0.01)
    assert {spans for spans in few if len(spans) != 1} == set()
    assert {spans[0] for spans in few} == SENTENCES


def test_sentences_are_taken_until_the_ratio_is_covered():
    for spans in sentences_of(ratio=0.3):  # int(0.3 * 14) = 4 tokens
        sizes = [b - a for a, b in spans]
        assert set(spans) <= SENTENCES
        assert sum(sizes) >= 4
        assert sum(sizes[:-1]) < 4, "no more than needed"


def test_never_all_sentences_and_in_random_order():
    orders = sentences_of(ratio=1.0)
    assert {len(spans) for spans in orders} == {3}
    assert len(set(orders)) == 24  # 4 * 3 * 2 ordered choices, all of them seen
    batch = SegmentBatch(np.array([1, 100, 101, 10, 0]), np.array([0, 5]), np.array([7], np.uint64), CLASSES)
    spans, _ = sentence.spans(batch, sentence.Config())
    assert spans.tolist() == [[1, 4]], "a single sentence is blanked as a whole"


def test_sentence_moments_are_those_of_the_draws_or_above():
    """On texts of random sentences packing may reserve too much, and must not reserve too little."""
    rows = small.numbers([510] * 1000, [True] * 1000, ends=0.05, seed=9)
    batch = SegmentBatch(rows.tokens, rows.offsets, rows.ids, CLASSES)
    _, offsets = sentence.spans(batch, sentence.Config())
    count = np.diff(offsets)
    mean, variance = sentence.blank_moments(batch, sentence.Config())
    assert count.mean() <= mean.mean() <= 1.3 * count.mean()
    assert ((count - mean) ** 2).mean() <= variance.mean()


def test_objectives_are_found_by_name_and_by_dotted_name():
    assert {"document", "sentence", "token"} <= set(plugins.names(objectives))
    assert objectives.find("token") is token
    assert objectives.find("pipelines.objectives.token") is token
    with pytest.raises(UserError, match=r"unknown objective 'tokn'; did you mean 'token'\?"):
        objectives.find("tokn")
    with pytest.raises(UserError, match=r"cannot import the objective 'no_such.objective'(.|\n)*PYTHONPATH"):
        objectives.find("no_such.objective")


def test_a_batch_tells_where_its_text_ends():
    batch = SegmentBatch(np.array([1, 5, 6, 0, 1, 7]), np.array([0, 4, 6]), np.zeros(2, np.uint64), CLASSES)
    assert len(batch) == 2
    assert batch.lengths.tolist() == [4, 2]
    assert batch.has_eos.tolist() == [True, False]
    assert batch.text_ends.tolist() == [3, 2]
