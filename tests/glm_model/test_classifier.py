"""A classification head: its log-probabilities follow from the state at [CLS], whatever is packed; saved and loaded."""

import numpy as np
import pytest
import torch

from glm_model import GLM, Classifier, GLMConfig, layout
from glm_model.classifier import ClassifierStep
from pipelines.feed.questions import lay_out_questions
from pipelines.questions.question import Question
from pipelines.questions.task import Item
from workflows.training.finetuning import choices_to_device

MARKS = layout.Marks(sop=60, eop=61, pad=62)
SHAPE = GLMConfig(layers=2, width=16, heads=2, vocab_size=64, positions=32, dropout=0.1, attention_dropout=0.1)


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(GLM(SHAPE), 3).eval()
    with torch.no_grad():
        model.pool.weight.normal_(std=0.5)
        model.out.weight.normal_(std=0.5)
    return model


def question(tokens: list[int], gold: int) -> Question:
    prompt = layout.Prompt(np.array(tokens), np.empty(0, np.int64))
    return Question(Item("0", {}), "", ("a", "b", "c"), prompt, (), False, gold, 0)


ASKED = [question([1, 5, 6, 7, 62], 1), question([1, 9, 62], 2), question([1, 2, 3, 4, 11, 12, 62], 0)]


def expected(model: Classifier, one: Question) -> torch.Tensor:
    tokens = torch.from_numpy(one.prompt.tokens)[None]
    x_BLD = model.glm.hidden(tokens, torch.arange(tokens.numel())[None], torch.zeros_like(tokens))
    return model.out(torch.tanh(model.pool(x_BLD[0, 0]))).log_softmax(0)


@pytest.mark.parametrize("width", [1, 256])
def test_a_head_reads_the_state_at_the_beginning_of_each_text(model, width):
    step = ClassifierStep(model, precision="fp32")
    example, choices = choices_to_device(lay_out_questions(ASKED, MARKS, width=width), "cpu")
    scores = step.scores(example, choices).detach()
    torch.testing.assert_close(scores, torch.stack([expected(model, one) for one in ASKED]), rtol=0, atol=1e-5)
    loss, count = step((example, choices))
    assert loss.item() == pytest.approx(-sum(float(scores[row, one.gold]) for row, one in enumerate(ASKED)))
    assert count.tolist() == [3]


def test_every_weight_learns(model):
    step = ClassifierStep(model, precision="fp32").train()
    loss, _ = step(choices_to_device(lay_out_questions(ASKED, MARKS), "cpu"))
    loss.sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []
    model.zero_grad(set_to_none=True)
    model.eval()


def test_a_saved_classifier_is_the_same_and_is_a_glm_to_those_who_need_no_head(model, tmp_path):
    model.save_pretrained(str(tmp_path / "a"))
    again = Classifier.from_pretrained(str(tmp_path / "a"))
    assert {name: value.tolist() for name, value in again.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    state = model.state_dict()
    assert Classifier.from_state(SHAPE, state).state_dict().keys() == state.keys()
    glm = GLM.from_pretrained(str(tmp_path / "a"))
    glm.save_pretrained(str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"has no head\.safetensors: the model was not trained with a classification"):
        Classifier.from_pretrained(str(tmp_path / "a"))
