"""Fine-tuning: a GLM that chooses the right candidate of questions."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glm_model import GLM, GLMConfig, Tokenizer
from glm_model.candidates import ChoiceLoss, Choices, ChoiceStep
from glm_model.classifier import Classifier, ClassifierStep
from glm_model.layout import Marks
from pipelines.feed.micro_batches import Step
from pipelines.feed.questions import QuestionBatch, QuestionPlan, lay_out_questions, question_steps
from pipelines.questions.question import Question
from workflows.training.engine import Place, Training
from workflows.training.initial_weights import initial_model


@dataclass(frozen=True)
class Finetuning:
    """What a fine-tuning worker reads, trains and validates on (`Kind`)."""

    model: GLMConfig
    init_from: str
    """The model folder that the weights and the tokenizer come from."""
    is_random: bool
    """Whether to begin with random weights instead."""
    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    """What is validated; may be empty."""
    plan: QuestionPlan
    loss: ChoiceLoss
    """What a model that writes learns by; a classification head learns by the cross-entropy of its classes."""
    selects_by_accuracy: bool
    classes: int = 0
    """How many classes the classification head has; 0: the model writes."""

    def begin(self, place: Place) -> Training:
        tokenizer = Tokenizer.load(self.init_from)
        special = tokenizer.special
        marks = Marks(special.sop, special.eop, special.pad)
        begins_with = None if place.is_restored or self.is_random else self.init_from
        glm = initial_model(self.model, seed=self.plan.seed, init_from=begins_with)
        step = self._step(glm, place)
        return Training(
            model=step.model,
            step=step,
            objectives=("task",),
            shares=(1.0,),
            steps=functools.partial(self._steps, marks, place),
            to_device=functools.partial(choices_to_device, device=place.ranks.device),
            validate=functools.partial(validate, step, self.held_out, marks, place, micro=self.plan.micro_questions)
            if self.held_out
            else None,
            score=_least_accuracy if self.selects_by_accuracy else _loss,
            points=lambda step: {"data/epoch": step * self.plan.step_questions / self.plan.questions},
        )

    def _step(self, glm: GLM, place: Place) -> ChoiceStep | ClassifierStep:
        if not self.classes:
            return ChoiceStep(glm.to(place.ranks.device), loss=self.loss, precision=place.precision)
        torch.manual_seed(self.plan.seed)  # whatever the weights of the GLM took
        return ClassifierStep(Classifier(glm, self.classes).to(place.ranks.device), precision=place.precision)

    def _steps(self, marks: Marks, place: Place, start: int, stop: int) -> Iterator[Step]:
        ranks = place.ranks
        return question_steps(self.train, self.plan, marks, start=start, stop=stop, rank=ranks.rank, world=ranks.world)


def choices_to_device(batch: QuestionBatch, device: torch.device | str) -> tuple[dict[str, torch.Tensor], Choices]:
    """What `ChoiceStep` takes."""
    asked = batch.asked
    arrays = (asked.at, asked.targets, asked.candidate, asked.question, asked.place, asked.gold)
    example = {name: torch.from_numpy(array).to(device) for name, array in batch.example.arrays().items()}
    return example, Choices(*(torch.from_numpy(array).to(device) for array in arrays))


@torch.no_grad()
def validate(
    step: ChoiceStep | ClassifierStep, questions: Sequence[Question], marks: Marks, place: Place, *, micro: int
) -> dict[str, float]:
    """Loss and accuracy of held-out questions, computed by all workers together."""
    step.eval()
    ranks, device = place.ranks, place.ranks.device
    totals = torch.zeros(2, dtype=torch.float64)
    for index in range(ranks.rank, -(-len(questions) // micro), ranks.world):
        some = questions[index * micro : (index + 1) * micro]
        example, choices = choices_to_device(lay_out_questions(some, marks), device)
        scores = step.scores(example, choices)
        gold = choices.gold_Q[:, None]
        totals[0] += float((scores.logsumexp(1) - scores.gather(1, gold)[:, 0]).double().sum())
        totals[1] += float((scores.argmax(1, keepdim=True) == gold).sum())
        place.beat()
    loss, right = (ranks.sum(totals) / len(questions)).tolist()
    step.train()
    return {"val/loss": loss, "val/accuracy": 100 * right}


def _loss(values: dict[str, float]) -> float:
    return values["val/loss"]


def _least_accuracy(values: dict[str, float]) -> float:
    """The best has the highest accuracy, and of equal ones the lowest loss."""
    return -values["val/accuracy"] + 1e-3 * float(np.tanh(values["val/loss"]))
