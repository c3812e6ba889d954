"""Fine-tuning: a GLM that chooses the right candidate of questions."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from glm_model import GLM, GLMConfig, Tokenizer
from glm_model.attention import row_width
from glm_model.candidates import ChoiceLoss, Choices, ChoiceStep
from glm_model.classifier import Classifier, ClassifierStep
from glm_model.layout import Marks
from pipelines.feed.micro_batches import Step
from pipelines.feed.questions import QuestionBatch, QuestionPlan, lay_out_questions, question_steps
from pipelines.metrics.choices import OF_COUNTS, count_choices
from pipelines.questions.question import Question
from workflows.training.engine import Place, Training
from workflows.training.initial_weights import initial_model

LOSS = "loss"
"""What selects where nothing is chosen: of the metrics it is the one that less is better of."""


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
    metrics: tuple[str, ...]
    """What validation tells besides loss and accuracy; the first one says which checkpoint is best."""
    classes: int
    """How many labels all items share; 0: they have candidates of their own."""
    has_head: bool = False
    """Whether a classification head answers, and not the model's own words."""
    writes: bool = False
    """Whether an answer is right when the model writes it, and not when it is chosen."""

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
            validate=functools.partial(self._validate, step, marks, place) if self.held_out else None,
            score=functools.partial(lowest_is_best, self.metrics[0]),
            points=lambda step: {"data/epoch": step * self.plan.step_questions / self.plan.questions},
        )

    def _step(self, glm: GLM, place: Place) -> ChoiceStep | ClassifierStep:
        if not self.has_head:
            return ChoiceStep(glm.to(place.ranks.device), loss=self.loss, precision=place.precision)
        torch.manual_seed(self.plan.seed)  # whatever the weights of the GLM took
        return ClassifierStep(Classifier(glm, self.classes).to(place.ranks.device), precision=place.precision)

    @torch.no_grad()
    def _validate(self, step: ChoiceStep | ClassifierStep, marks: Marks, place: Place) -> dict[str, float]:
        """Loss and metrics of the held-out questions, computed by all workers together."""
        step.eval()
        ranks, micro, size = place.ranks, self.plan.micro_questions, self.classes or 2
        loss, counts = np.zeros(2), np.zeros((size, size + 1), np.int64)
        for index in range(ranks.rank, -(-len(self.held_out) // micro), ranks.world):
            some = self.held_out[index * micro : (index + 1) * micro]
            inputs = choices_to_device(lay_out_questions(some, marks, width=row_width(ranks.device)), ranks.device)
            if self.writes:
                found, gold, chosen = _judge_writing(step, inputs, some)
            else:
                found, gold, chosen = _judge_choices(step, inputs)
                if not self.classes:  # numbers of candidates mean nothing across items, and several may be right
                    right = [one.item.golds or (one.learned,) for one in some]
                    chosen = np.array([one in golds for one, golds in zip(chosen, right, strict=True)], np.int64)
                    gold = np.ones_like(gold)
            loss += found
            counts += count_choices(gold, chosen, size)
            place.beat()
        total = ranks.sum(torch.from_numpy(np.concatenate((loss, counts.ravel())))).numpy()
        step.train()
        counts = total[2:].astype(np.int64).reshape(1, size, size + 1)
        names = dict.fromkeys(name for name in ("accuracy", *self.metrics) if name != LOSS)
        # Not by scikit-learn: importing it takes each worker a second. A test of the metrics holds both together.
        scored = {f"val/{name}": float(OF_COUNTS[name](counts)[0]) for name in names}
        return {"val/loss": float(total[0]) / max(float(total[1]), 1.0), **scored}

    def _steps(self, marks: Marks, place: Place, start: int, stop: int) -> Iterator[Step]:
        ranks = place.ranks
        part = {"start": start, "stop": stop, "rank": ranks.rank, "world": ranks.world}
        return question_steps(self.train, self.plan, marks, **part, width=row_width(ranks.device))


Judged = tuple[np.ndarray, np.ndarray, np.ndarray]
"""[the sum of losses, over how many questions]; gold [Q] and chosen classes [Q]."""


def _judge_choices(step: ChoiceStep | ClassifierStep, inputs: tuple[dict[str, torch.Tensor], Choices]) -> Judged:
    scores, gold = step.scores(*inputs), inputs[1].gold_Q
    loss = float(F.cross_entropy(scores.double(), gold, reduction="sum"))
    return np.array([loss, len(gold)]), gold.cpu().numpy(), scores.argmax(1).cpu().numpy()


def _judge_writing(
    step: ChoiceStep | ClassifierStep, inputs: tuple[dict[str, torch.Tensor], Choices], some: Sequence[Question]
) -> Judged:
    """The loss is that of what is to be written: a question whose right answer is not to write it has none."""
    assert isinstance(step, ChoiceStep), "a classification head writes nothing"
    ratings, writes = step.writes(*inputs)
    is_right = np.array([question.gold == 1 or not question.has_labels for question in some])
    losses = -ratings.per_token_QK[:, 0].double().cpu().numpy()[is_right]
    return np.array([losses.sum(), len(losses)]), is_right.astype(np.int64), writes.cpu().numpy().astype(np.int64)


def choices_to_device(batch: QuestionBatch, device: torch.device | str) -> tuple[dict[str, torch.Tensor], Choices]:
    """What `ChoiceStep` takes."""
    asked = batch.asked
    arrays = (asked.at, asked.targets, asked.candidate, asked.question, asked.place, asked.gold)
    example = {name: torch.from_numpy(array).to(device) for name, array in batch.example.arrays().items()}
    return example, Choices(*(torch.from_numpy(array).to(device) for array in arrays))


def lowest_is_best(metric: str, values: dict[str, float]) -> float:
    """What the best validation has the least of: of those that are equal by the metric, it has the lowest loss."""
    if metric == LOSS:
        return values["val/loss"]
    return -values[f"val/{metric}"] + 1e-3 * math.tanh(values["val/loss"])
