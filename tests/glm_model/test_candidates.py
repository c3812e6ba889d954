"""Choosing among candidates: scores are those of `generation.scoring`, losses are what they say, whatever is packed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glm_model import GLM, GLMConfig, layout
from glm_model.candidates import ChoiceStep
from glm_model.generation.scoring import Score, score_tokens
from pipelines.feed.questions import lay_out_questions
from pipelines.questions.question import Question
from pipelines.questions.task import Item
from workflows.training.finetuning import choices_to_device

MARKS = layout.Marks(sop=60, eop=61, pad=62)
MASK = 63


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GLM(GLMConfig(layers=2, width=16, heads=2, vocab_size=64, positions=32, dropout=0.0, attention_dropout=0.0))


def question(context: list[int], candidates: list[list[int]], gold: int, *, count_end: bool) -> Question:
    prompt = layout.prompt(np.array(context), masks=(MASK,))
    arrays = tuple(np.array(candidate, np.int32) for candidate in candidates)
    return Question(Item("0", {}), "", ("",) * len(arrays), prompt, arrays, count_end, gold, 0)


ASKED = [
    question([1, 5, 6, MASK, 7, 62], [[8], [9]], 1, count_end=False),
    question([1, MASK, 4, 62], [[10, 11], [12, 13, 14], [15]], 2, count_end=True),
    question([1, 2, 3, 4, MASK, 62], [[20], [21], [22], [23]], 0, count_end=False),
]


def _scores(model, one: Question) -> list[Score]:
    several = [[candidate.astype(np.int64)] for candidate in one.candidates]
    (scores,) = score_tokens(model, [one.prompt], [several], marks=MARKS, count_end=one.count_end)
    return scores


def expected(model, one: Question) -> list[float]:
    return [score.logprob for score in _scores(model, one)]


@pytest.mark.parametrize("width", [1, 256])
def test_scores_are_those_of_scoring(model, width):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS, width=width), "cpu")
    with torch.no_grad():
        found = ChoiceStep(model.eval(), precision="fp32").scores(batch, choices)
    for one, scores in zip(ASKED, found.tolist(), strict=True):
        count = len(one.candidates)
        assert scores[:count] == pytest.approx(expected(model, one), abs=1e-5)
        assert scores[count:] == [-np.inf] * (4 - count)


@pytest.mark.parametrize("loss", ["choice", "gold", "written"])
def test_losses(model, loss):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS), "cpu")
    sums, counts = ChoiceStep(model.eval(), loss=loss, precision="fp32")((batch, choices))
    total = 0.0
    for one in ASKED:
        scores, gold = torch.tensor(expected(model, one)), torch.tensor([one.gold])
        per_token = scores / torch.tensor([len(candidate) + one.count_end for candidate in one.candidates])
        if loss == "choice":
            total += float(F.cross_entropy(scores[None], gold))
        else:
            total -= float(per_token[gold])
            total += float(F.cross_entropy(per_token[None], gold)) if loss == "written" else 0.0
    assert sums.tolist() == pytest.approx([total], abs=1e-4)
    assert counts.tolist() == [3]


@pytest.mark.parametrize("asked", [ASKED[::2], ASKED])
def test_choosing_learns_by_the_scores_whether_or_not_the_vocabulary_is_summed_over(model, asked):
    """Loss and gradients are those of the cross-entropy over whole log-probabilities."""
    batch, choices = choices_to_device(lay_out_questions(asked, MARKS), "cpu")
    step = ChoiceStep(model.eval(), precision="fp32")
    loss = step((batch, choices))[0].sum()
    expected = F.cross_entropy(step.scores(batch, choices), choices.gold_Q, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = list(model.parameters())
    pairs = zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True)
    assert max(float((found - wanted).abs().max()) for found, wanted in pairs) < 1e-6


def test_a_candidate_is_written_where_each_token_is_the_likeliest_or_it_is_the_likeliest_per_token(model):
    context = [1, 5, MASK, 7, 62]
    likeliest = [one.greedy for one in _scores(model, question(context, [[n] for n in range(64)], 0, count_end=False))]
    (first,) = [number for number, greedy in enumerate(likeliest) if greedy]
    asked = [
        question(context, [[first]], 0, count_end=False),
        question(context, [[(first + 1) % 60]], 0, count_end=False),
        question(context, [[first], [(first + 1) % 60]], 0, count_end=False),
        question(context, [[(first + 1) % 60], [first]], 0, count_end=False),
        question([1, MASK, 4, 62], [[10, 11], [12, 13, 14], [15]], 0, count_end=True),
    ]
    per_token = [one.normalised() for one in _scores(model, asked[-1])]
    batch, choices = choices_to_device(lay_out_questions(asked, MARKS), "cpu")
    with torch.no_grad():
        ratings, writes = ChoiceStep(model.eval(), precision="fp32").writes(batch, choices)
    assert writes.tolist() == [True, False, True, False, int(np.argmax(per_token)) == 0]
    assert ratings.per_token_QK[-1].tolist() == pytest.approx(per_token, abs=1e-5)


def test_a_step_towards_the_right_candidate_makes_it_likelier(model):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS), "cpu")
    step = ChoiceStep(model, precision="fp32")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, _ = step((batch, choices))
    before.sum().backward()
    optimizer.step()
    assert step((batch, choices))[0].item() < before.item()
