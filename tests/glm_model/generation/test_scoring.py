"""Scores of answers and texts: shared contexts change nothing, what counts, windows that tile. Parity is elsewhere."""

import numpy as np
import pytest
import torch
from helpers.letters import CLS, EOP, MARKS, MASK, Letters, decided_model

from glm_model import layout
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill_batch
from glm_model.generation.scoring import (
    Scored,
    score,
    score_batch,
    score_examples,
    score_text,
    score_tokens,
    text_windows,
)
from glm_model.model import GLM

WINDOWS = {"cls": CLS, "mask": MASK, "marks": MARKS}


@pytest.fixture
def model(small):
    return decided_model(small)


def logprob_by_hand(model, prompt: layout.Prompt, answers: list[np.ndarray], *, ends: bool, order=None) -> float:
    """One training example, one forward, no cache."""
    example = layout.layout_answers(prompt, answers, marks=MARKS, order=order)
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    with torch.inference_mode():
        logits = model(*(torch.from_numpy(getattr(example, name))[None] for name in names))[0, :, :36]
    counted = (example.loss_mask == 1) & (ends | (example.targets != EOP))
    logprobs = torch.log_softmax(logits, -1).numpy()[np.arange(len(counted)), example.targets]
    return float(logprobs[counted].sum())


@pytest.mark.parametrize("count_end", [True, False])
def test_candidates_in_one_pass_equal_one_forward_each(model, count_end):
    prompts = [layout.prompt(np.array(ids), masks=(2,)) for ids in ([1, 20, 2, 21, 0], [1, 2, 22, 23, 24, 2, 25, 0])]
    candidates = [
        [[np.array([7, 8, 9])], [np.array([7])], [np.array([8, 8, 8, 8, 8])]],
        [[np.array([9]), np.array([10, 11])], [np.array([9, 9, 9]), np.array([12])]],
    ]
    scores = score_tokens(model, prompts, candidates, marks=MARKS, count_end=count_end, vocab_size=36)
    assert [[score.tokens - count_end * (1 + row) for score in several] for row, several in enumerate(scores)] == [
        [3, 1, 5],
        [3, 4],
    ]
    for prompt, several, answers in zip(prompts, scores, candidates, strict=True):
        for one, answer in zip(several, answers, strict=True):
            assert one.logprob == pytest.approx(logprob_by_hand(model, prompt, answer, ends=count_end), abs=1e-4)


def test_blanks_are_scored_in_the_order_given(model):
    prompt = layout.prompt(np.array([1, 2, 22, 2, 25, 0]), masks=(2,))
    answer = [np.array([9, 9]), np.array([12])]
    both = [
        score_tokens(model, [prompt], [[answer]], marks=MARKS, vocab_size=36, order=order)[0][0].logprob
        for order in ("left_to_right", [1, 0])
    ]
    by_hand = [logprob_by_hand(model, prompt, answer, ends=True, order=np.array(order)) for order in ([0, 1], [1, 0])]
    assert both == pytest.approx(by_hand, abs=1e-4)
    assert both[0] != pytest.approx(both[1], abs=1e-3)


def test_what_is_given_is_read_once_and_not_scored(model):
    prompts = [layout.prompt(np.array(ids), masks=(4,)) for ids in ([1, 4], [1, 20, 4], [1, 21, 22, 4])]
    given = [np.array([7, 8, 9]), np.array([], np.int64), np.array([11])]
    candidates = [[[np.array([10])], [np.array([11, 12])]]] * 3
    scores = score_tokens(model, prompts, candidates, marks=MARKS, given=given, count_end=False, vocab_size=36)
    for prompt, before, several, answers in zip(prompts, given, scores, candidates, strict=True):
        for one, (answer,) in zip(several, answers, strict=True):
            assert one.tokens == len(answer)
            whole = logprob_by_hand(model, prompt, [np.concatenate((before, answer))], ends=False)
            apart = logprob_by_hand(model, prompt, [before], ends=False) if len(before) else 0.0
            assert one.logprob == pytest.approx(whole - apart, abs=1e-4)


def test_greedy_says_whether_the_model_would_have_written_it(model):
    """And a filled blank scores what it was written with."""
    tokenizer = Letters()
    text = "ab[MASK]cde"
    (filled,) = fill_batch(model, tokenizer, [text], Decoding(max_tokens=4, min_tokens=4))[0]
    blank = filled.blanks[0]
    prompt = layout.prompt(np.array([1, 10, 11, 2, 12, 13, 14, 0]), masks=(2,))
    candidates = [[np.array(blank.tokens)], [np.array([*blank.tokens[:3], (blank.tokens[3] + 1) % 36])]]
    best, other = score_tokens(model, [prompt], [candidates], marks=MARKS, count_end=False, vocab_size=36)[0]
    assert (best.greedy, other.greedy) == (True, False)
    assert best.logprob == pytest.approx(blank.logprob, abs=1e-4)
    assert best.logprob > other.logprob


def test_texts_and_candidates_as_text(model):
    several = score_batch(model, Letters(), ["ab[MASK]", "[MASK]b[MASK]"], [["c", "de"], [("a", "b"), ("cc", "d")]])
    prompt = layout.prompt(np.array([1, 2, 11, 2, 0]), masks=(2,))
    by_hand = logprob_by_hand(model, prompt, [np.array([12, 12]), np.array([13])], ends=True)
    assert several[1][1].logprob == pytest.approx(by_hand, abs=1e-4)
    assert [len(scores) for scores in several] == [2, 2]
    assert score(model, Letters(), "ab[MASK]", ["c", "de"])[1].logprob == pytest.approx(several[0][1].logprob, abs=1e-4)
    one = several[0][1]
    assert one.tokens == 3
    assert [one.normalised(p) for p in (0, 1, 0.5)] == pytest.approx([one.logprob * x for x in (1, 1 / 3, 3**-0.5)])
    # eos stands behind [gMASK] here, as in the authors' tasks, and not when a text is written
    gmask = layout.prompt(np.array([1, 10, 4, 0]), masks=(4,))
    expected = logprob_by_hand(model, gmask, [np.array([11])], ends=True)
    assert score(model, Letters(), "a[gMASK]", ["b"])[0].logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "candidates", "message"),
    [
        ("ab", ["c"], "the text has no mask"),
        ("", ["c"], "the text is empty"),
        ("a[MASK]", [], "give each text at least one candidate"),
        ("a[MASK]", ["b", ""], "the answer of mask 0 is empty"),
        ("a[MASK]", [("b", "c")], r"one answer per mask, from left to right \(answers: 2, masks: 1\)"),
        ("a[MASK]" + "b" * 60, ["c"], "the text has 64 tokens .*extend_positions"),
        ("a[MASK]", "yes", "candidates: expected a list of answers, got 'yes'"),
        ("a[MASK]", None, "candidates: expected a list of answers, got None"),
        ("a[MASK]", 3, "candidates: expected a list of answers, got 3"),
        ("a[MASK]", [None], "a candidate: expected a list of strings, one for each mask, got None"),
        ("a[MASK]", [["b", 3]], "a candidate: expected one string for each mask, got 3"),
        ("a[MASK]", ["c" * 48], "an answer of 48 tokens takes 49 places in its blank, and the model has 48"),
    ],
)
def test_bad_input_is_named(model, text, candidates, message):
    with pytest.raises(ValueError, match=message):
        score(model, Letters(), text, candidates)


@pytest.mark.parametrize("length", [1, 5, 12, 13, 30, 31])
@pytest.mark.parametrize("stride", [None, 4, 12])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_windows_score_every_token_once(length, stride, bidirectional):
    tokens = np.arange(10, 10 + length)
    windows = text_windows(tokens, window=12, stride=stride, bidirectional=bidirectional, count_end=True, **WINDOWS)
    scored = np.concatenate([example.targets[counted] for example, counted in windows])
    assert scored.tolist() == [*tokens.tolist(), EOP]
    assert all(len(example.tokens) <= 12 + 3 for example, _ in windows)
    for example, counted in windows[1:]:
        seen = example.tokens[: np.argmax(counted) + 1]
        before = [token for token in seen.tolist() if token >= 10]
        first = int(example.targets[counted][0])
        assert before == list(range(max(first - (12 - (stride or 12)), 10), first))


def test_a_text_that_fits_is_one_document_blank(model):
    """`[CLS] [gMASK]` and then the whole text: the form behind `val/bits_per_byte`."""
    tokens = np.array([10, 11, 12, 13, 0])
    one = score_text(model, text_windows(tokens, window=30, count_end=True, **WINDOWS), vocab_size=36)
    prompt = layout.Prompt(np.array([CLS, MASK]), np.array([1]))
    assert one.tokens == 6
    assert one.logprob == pytest.approx(logprob_by_hand(model, prompt, [tokens], ends=True), abs=1e-4)


def test_pieces_score_the_same_in_batches_of_any_size(model):
    tokens = np.random.default_rng(0).integers(10, 36, 50)
    windows = text_windows(tokens, window=16, stride=5, **WINDOWS)
    one_by_one = [score_examples(model, [window])[0].logprob for window in windows]
    for positions in (1, 40, 1000):
        scores = score_examples(model, windows, positions=positions)
        assert [score.logprob for score in scores] == pytest.approx(one_by_one, abs=1e-4)
        assert sum(score.tokens for score in scores) == 50
    assert isinstance(windows[0], Scored)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 12, "stride": 13}, "window=12, stride=13, given=0: use 0 < stride <= window"),
        ({"window": 0}, "window=0"),
        ({"window": 12, "given": 12}, "given < window"),
        ({"window": 12, "given": 8}, "a text of 8 tokens, of which the first 8 are given, leaves none to score"),
        ({"window": 64}, "an answer of 60 tokens takes 61 places"),
    ],
)
def test_windows_that_make_no_sense_are_refused(model, settings, message):
    tokens = np.arange(10, 18) if settings["window"] < 64 else np.full(60, 10)
    with pytest.raises(ValueError, match=message):
        score_text(model, text_windows(tokens, **WINDOWS, **settings))


@pytest.mark.parametrize("tokens", [[10.7, 11.0, 12.0], [10.0, 11.0, 12.0], [[10, 11, 12]], ["a", "b"]])
def test_texts_and_answers_that_are_no_ids_are_refused(model, tokens):
    with pytest.raises(ValueError, match="tokens: expected whole numbers, the ids of one text, got "):
        text_windows(tokens, window=12, **WINDOWS)
    prompt = layout.prompt(np.array([CLS, MASK]), masks=(MASK,))
    with pytest.raises(ValueError, match="an answer: expected whole numbers, the ids of one text, got "):
        score_tokens(model, [prompt], [[[tokens]]], marks=MARKS)


def test_a_bad_text_among_several_is_named(model):
    with pytest.raises(ValueError, match="text 2 of 2: the answer of mask 0 is empty"):
        score_batch(model, Letters(), ["a[MASK]", "b[MASK]"], [["a"], ["a", ""]])


def test_lists_are_asked_for_where_there_are_several_texts(model):
    with pytest.raises(
        ValueError, match="candidates: expected a list of lists of answers, one for each text, got 'ab'"
    ):
        score_batch(model, Letters(), ["a[MASK]", "b[MASK]"], "ab")
    with pytest.raises(ValueError, match="text 2 of 2: candidates: expected a list of answers, got 'b'"):
        score_batch(model, Letters(), ["a[MASK]", "b[MASK]"], [["a"], "b"])


def test_weights_that_are_not_finite_are_named(model):
    with torch.no_grad():
        model.final_norm.weight[3] = float("nan")
    with pytest.raises(ValueError, match=r"weights are not finite: final_norm\.weight hold NaN or infinity"):
        score(model, Letters(), "a[MASK]", ["b", "c"])


def test_nothing_to_score(small, tiny_tokenizer):
    assert score_batch(GLM(small), tiny_tokenizer, [], []) == []


@pytest.mark.parametrize("bad", [-1, 50, 60])
def test_an_id_beyond_the_vocabulary_is_named(small, bad):
    prompt = layout.prompt(np.array([CLS, MASK]), masks=(MASK,))
    with pytest.raises(ValueError, match=f"holds the id {bad}, and ids go from 0 to 49"):
        score_tokens(GLM(small), [prompt], [[[np.array([4, bad])]]], marks=MARKS, vocab_size=50)
