"""Choosing the next token: filters, vetoes, draws that depend on the text alone, options that contradict each other."""

import numpy as np
import pytest
import torch

from glm_model.decoding import Decoding
from glm_model.generation.sampling import Limits, choose, draws_for, veto

PROBS = [0.1, 0.5, 0.15, 0.25]
ENDS = Limits(sop=9, stop=(0, 4))


def drawn(**settings) -> list[int]:
    """How many of 1,000 even draws fall on each token."""
    logits = torch.log(torch.tensor(PROBS)).expand(1000, 4)
    tokens = choose(logits, Decoding(**{"temperature": 1.0, **settings}), np.linspace(0, 1, 1000, endpoint=False))
    return torch.bincount(tokens, minlength=4).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [100, 500, 150, 250]),
        ({"top_k": 2}, [0, 667, 0, 333]),
        ({"top_k": 9}, [100, 500, 150, 250]),
        ({"top_p": 0.7}, [0, 667, 0, 333]),
        ({"top_p": 0.76}, [0, 556, 167, 278]),
        ({"top_p": 0.01}, [0, 1000, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [0, 667, 0, 333]),  # of 0.5, 0.25, 0.15 the first two make up 0.83
        ({"temperature": 0.5}, [29, 725, 65, 181]),
        ({"temperature": 0.0}, [0, 1000, 0, 0]),
        ({"temperature": 0.01}, [0, 1000, 0, 0]),
    ],
)
def test_draws_fall_as_probabilities_and_filters_say(settings, expected):
    assert drawn(**settings) == pytest.approx(expected, abs=2)


def test_what_has_no_probability_is_never_drawn():
    logits = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]]).expand(3, 4)
    draws = [0.0, 0.5, 1 - 1e-12]  # the last is 1 in float32
    assert choose(logits, Decoding(temperature=1.0), draws).tolist() == [0, 2, 2]
    assert choose(logits, Decoding(temperature=1.0, top_k=3), draws).tolist() == [2, 2, 0]


def test_a_texts_draws_depend_on_the_seed_the_text_and_the_sample():
    def draws(seed: int, tokens: list[int], sample: int) -> list[float]:
        return draws_for(seed, np.array(tokens), sample).random(3).tolist()

    ways = [draws(*key) for key in ((0, [1, 2], 0), (1, [1, 2], 0), (0, [1, 3], 0), (0, [1, 2], 1), (11, [1, 2], 0))]
    assert len({tuple(way) for way in ways}) == 5
    assert draws(0, [1, 2], 0) == ways[0]
    assert draws_for(0, np.array([1, 2], np.int32), 0).random(3).tolist() == ways[0]


def test_vetoes():
    scores = torch.zeros(4, 5)
    written = [[], [1, 2, 1], [3, 3], [1, 2, 3, 1]]
    banned = torch.isinf(veto(scores, written, Decoding(min_tokens=2, no_repeat_ngram=2), ENDS))
    assert [torch.where(row)[0].tolist() for row in banned] == [[0, 4], [2], [3], [2]]
    once = torch.isinf(veto(scores, written, Decoding(min_tokens=0, no_repeat_ngram=1), ENDS))
    assert [torch.where(row)[0].tolist() for row in once] == [[], [1, 2], [3], [1, 2, 3]]
    assert veto(scores, written, Decoding(min_tokens=0), ENDS) is scores


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_the_outermost_temperatures_choose_among_what_is_left(temperature):
    logits = torch.tensor([[60.0, -torch.inf, -60.0, 59.0]]).expand(4, 4)
    chosen = choose(logits, Decoding(temperature=temperature), [0.0, 0.4, 0.7, 0.99]).tolist()
    assert chosen == ([0, 0, 0, 0] if temperature < 1 else [0, 2, 3, 3])


def test_banned_tokens_stay_banned_where_other_rules_do_not_apply():
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    rules = Decoding(min_tokens=0, no_repeat_ngram=1)
    left = veto(scores, [[0, 1], [0]], rules, Limits(sop=9, stop=(), banned=(2,)))
    assert left.tolist() == [
        [pytest.approx(0.1), pytest.approx(0.2), -torch.inf],
        [-torch.inf, pytest.approx(0.2), -torch.inf],
    ]


def test_rules_that_leave_no_token_do_not_apply():
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    left = veto(scores, [[0, 1], [0]], Decoding(min_tokens=0, no_repeat_ngram=1), Limits(sop=9, stop=()))
    assert left.tolist() == [scores[0].tolist(), [-torch.inf, pytest.approx(0.4)]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 leaves nothing to write"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens=9 must lie between 0 and max_tokens=8"),
        ({"min_tokens": -1}, "min_tokens=-1"),
        ({"temperature": -1.0}, "temperature=-1.0 must be 0, .* or lie between 1e-6 and 1e6. Try 0.9"),
        ({"temperature": float("nan")}, "temperature=nan must be a finite number"),
        ({"temperature": float("inf")}, "temperature=inf must be a finite number"),
        ({"temperature": 1e39}, "temperature=1e[+]39 must be 0"),
        ({"temperature": 1e-45}, "temperature=1e-45 must be 0"),
        ({"beams": 2, "length_penalty": float("inf")}, "length_penalty=inf must be a finite number"),
        ({"max_tokens": 1.5}, "max_tokens=1.5 must be a whole number"),
        ({"max_tokens": True}, "max_tokens=True must be a whole number"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"top_p": "0.9"}, "top_p='0.9' must be a finite number"),
        ({"top_k": -1}, "top_k=-1 must be at least 0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"beams": 0}, "beams=0 must be at least 1"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1 must be at least 0"),
        ({"beams": 2, "length_penalty": -0.5}, "length_penalty=-0.5 must be at least 0"),
        ({"beams": 4, "temperature": 0.9}, "beams=4 and temperature=0.9 contradict each other.*Leave one of them out"),
        ({"beams": 4, "samples": 2}, "beams=4 and samples=2 contradict each other"),
        ({"beams": 4, "temperature": 1.0, "top_k": 5}, "beams=4 and temperature=1.0, top_k=5 contradict"),
        (
            {"samples": 3},
            "samples=3 needs random draws, and temperature=0 always takes.*Set a temperature",
        ),
        ({"top_p": 0.9}, "top_p=0.9 needs random draws"),
        ({"length_penalty": 0.6}, "length_penalty=0.6 ranks beams, and beams=1 leaves nothing to rank"),
    ],
)
def test_options_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)
