"""Blanks of held-out text, and what a model does with them."""

from dataclasses import replace

import pytest
import torch

from glm_model import GLM, GLMConfig, fill, score
from workflows.training.trial import OTHERS, Blanked, Trial, draw_trial, held_out_texts, try_model

SHAPE = GLMConfig(layers=1, width=16, heads=2, vocab_size=128, positions=64)


@pytest.fixture(scope="module")
def texts(tiny_store, tiny_tokenizer):
    return list(held_out_texts(tiny_store.train, tiny_tokenizer))


@pytest.fixture(scope="module")
def trial(texts, tiny_tokenizer):
    return draw_trial(texts, tiny_tokenizer, positions=64, words=20, seed=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GLM(SHAPE).eval()


def test_blanks_are_words_of_the_text_and_follow_from_the_seed(trial, texts, tiny_tokenizer):
    assert (len(trial.passages), len(trial.words)) == (3, 20)
    for one in (*trial.passages, *trial.words):
        text = one.text.replace("[MASK]", one.truth)
        assert len(text.split()) == 24
        assert any(text in " ".join(whole.split()) for whole in texts)
    assert all(one.truth.isalpha() and len(one.others) == OTHERS for one in trial.words)
    assert all(one.truth not in one.others and len(set(one.others)) == OTHERS for one in trial.words)
    assert draw_trial(texts, tiny_tokenizer, positions=64, words=20, seed=1) == trial
    assert draw_trial(texts, tiny_tokenizer, positions=64, words=20, seed=2) != trial


def test_text_without_a_word_to_ask_for_is_left_out(tiny_tokenizer):
    lists = ["the, cat, sat, on, a, mat, " * 4] * 9
    assert draw_trial(lists, tiny_tokenizer, positions=64).words == ()
    speaks_of_masks = ["the cat [MASK] sat on a mat and " * 3 + "ran home then"] * 9
    assert draw_trial(speaks_of_masks, tiny_tokenizer, positions=64) == Trial((), ())
    assert draw_trial(["7 | 8 | " * 30], tiny_tokenizer, positions=64) == Trial((), ())


def test_a_passage_fits_into_the_model(tiny_tokenizer):
    texts = ["the cat sat on a mat " * 4] * 9  # 24 tokens
    assert len(draw_trial(texts, tiny_tokenizer, positions=26).passages) == 3
    assert draw_trial(texts, tiny_tokenizer, positions=25) == Trial((), ())


def test_a_word_is_right_if_the_model_writes_just_it(trial, model, tiny_tokenizer):
    written = [fill(model, tiny_tokenizer, one.text, max_tokens=12).blanks[0].text.strip() for one in trial.words]
    right = tuple(replace(one, truth=answer) for one, answer in zip(trial.words, written, strict=True))
    wrong = tuple(replace(one, truth="xyz") for one in trial.words[:5])
    outcome = try_model(model, tiny_tokenizer, Trial(trial.passages, (*right[:15], *wrong)))
    assert outcome.right == 75.0
    assert outcome.written == tuple(
        fill(model, tiny_tokenizer, one.text, max_tokens=12).blanks[0].text.strip() for one in trial.passages
    )


def test_the_rank_of_a_word_counts_those_that_are_likelier(model, tiny_tokenizer):
    text, words = "the cat [MASK] on the mat .", ["sat", "ran", "go", "said", "home"]
    scores = score(model, tiny_tokenizer, text, words)
    best, *_, worst = [word for _, word in sorted(zip([-one.logprob for one in scores], words, strict=True))]
    asked = [Blanked(text, word, tuple(other for other in words if other != word)) for word in (best, worst)]
    assert try_model(model, tiny_tokenizer, Trial((), tuple(asked))).rank == (1 + 5) / 2


def test_without_words_only_passages_are_filled(trial, model, tiny_tokenizer):
    outcome = try_model(model, tiny_tokenizer, Trial(trial.passages, ()))
    assert (len(outcome.written), outcome.right, outcome.rank) == (3, None, None)
