"""Choosing among candidates: scores are those of `generation.scoring`, losses are what they say, whatever is packed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glm_model import GLM, GLMConfig, layout
from glm_model.candidates import ChoiceStep
from glm_model.generation.scoring import score_tokens
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


def expected(model, one: Question) -> list[float]:
    several = [[candidate.astype(np.int64)] for candidate in one.candidates]
    (scores,) = score_tokens(model, [one.prompt], [several], marks=MARKS, count_end=one.count_end)
    return [score.logprob for score in scores]


@pytest.mark.parametrize("width", [1, 256])
def test_scores_are_those_of_scoring(model, width):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS, width=width), "cpu")
    with torch.no_grad():
        found = ChoiceStep(model.eval(), precision="fp32").scores(batch, choices)
    for one, scores in zip(ASKED, found.tolist(), strict=True):
        count = len(one.candidates)
        assert scores[:count] == pytest.approx(expected(model, one), abs=1e-5)
        assert scores[count:] == [-np.inf] * (4 - count)


@pytest.mark.parametrize("loss", ["choice", "gold"])
def test_losses(model, loss):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS), "cpu")
    sums, counts = ChoiceStep(model.eval(), loss=loss, precision="fp32")((batch, choices))
    total = 0.0
    for one in ASKED:
        scores, gold = torch.tensor(expected(model, one)), one.gold
        tokens = len(one.candidates[gold]) + one.count_end
        right = F.cross_entropy(scores[None], torch.tensor([gold])) if loss == "choice" else -scores[gold] / tokens
        total += float(right)
    assert sums.tolist() == pytest.approx([total], abs=1e-4)
    assert counts.tolist() == [3]


def test_a_step_towards_the_right_candidate_makes_it_likelier(model):
    batch, choices = choices_to_device(lay_out_questions(ASKED, MARKS), "cpu")
    step = ChoiceStep(model, precision="fp32")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, _ = step((batch, choices))
    before.sum().backward()
    optimizer.step()
    assert step((batch, choices))[0].item() < before.item()
