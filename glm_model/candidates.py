"""The loss of choosing among candidates: cross-entropy over their scores, as in the authors' cloze fine-tuning.

A candidate's score is the log-probability of its tokens behind the context, summed. Where every candidate is one token
and its end does not count, that is one prediction for all of them: each question then is one segment (`words`). Else
each candidate is a segment of its own (`spans`).

Shapes: M predicted positions of a batch, C candidates, Q questions, K the most candidates of a question, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_model.model import GLM, Execution
from glm_model.train import Precision, autocast, resolve_precision

ChoiceLoss = Literal["choice", "gold"]
"""choice: cross-entropy over the candidates. gold: the mean negative log-probability of the right one's tokens."""


class Choices(NamedTuple):
    """What is predicted in a batch of packed rows. Where a head chooses (`classifier`), there are no candidates."""

    at_M: Tensor
    """Flat positions, row * L + column, that predict a token of a candidate, or that a head reads."""
    targets_M: Tensor
    candidate_M: Tensor
    """Number of the candidate that the token belongs to, counted over the batch."""
    question_C: Tensor
    """Number of the candidate's question."""
    place_C: Tensor
    """Its number in the question."""
    gold_Q: Tensor
    """Number of the right candidate in its question."""


class ChoiceStep(nn.Module):
    """(batch, choices) -> (sum of losses float32 [1], number of questions int64 [1]). This is what DDP wraps.

    batch: int64 [B, L] under the names of `layout.Example`. precision: see `train.resolve_precision`.
    """

    def __init__(self, model: GLM, *, loss: ChoiceLoss = "choice", precision: Precision = "auto") -> None:
        super().__init__()
        resolve_precision(precision, "cpu")  # raises for an unknown one now, not at the first step
        self.model, self.loss = model, loss
        self.precision: Precision = precision

    def forward(self, inputs: tuple[dict[str, Tensor], Choices]) -> tuple[Tensor, Tensor]:
        batch, choices = inputs
        questions = torch.tensor([len(choices.gold_Q)])
        with autocast(self.precision, batch["tokens"].device):
            logprob_M, _ = self._logprobs(batch, choices)
        score_QK = gather_scores(logprob_M, choices)
        if self.loss == "choice":
            return F.cross_entropy(score_QK, choices.gold_Q, reduction="sum")[None], questions
        gold_Q = score_QK.gather(1, choices.gold_Q[:, None])[:, 0]
        is_gold_C = choices.place_C == choices.gold_Q[choices.question_C]
        sizes_C = torch.bincount(choices.candidate_M, minlength=len(choices.place_C))
        return -(gold_Q / sizes_C[is_gold_C].clamp_min(1)).sum()[None], questions

    def scores(self, batch: dict[str, Tensor], choices: Choices) -> Tensor:
        """Scores float32 [Q, K], -inf where a question has fewer candidates."""
        return self.written(batch, choices)[0]

    def written(self, batch: dict[str, Tensor], choices: Choices) -> tuple[Tensor, Tensor]:
        """(scores float32 [Q, K], -inf where a question has fewer candidates; bool [Q], whether the model by itself
        would write the first candidate: each of its tokens is the likeliest).
        """
        with autocast(self.precision, batch["tokens"].device):
            logprob_M, best_M = self._logprobs(batch, choices)
        is_other_C = torch.zeros_like(choices.place_C).index_add(0, choices.candidate_M, (logprob_M < best_M).long())
        return gather_scores(logprob_M, choices), is_other_C[choices.place_C == 0] == 0

    def _logprobs(self, batch: dict[str, Tensor], choices: Choices) -> tuple[Tensor, Tensor]:
        """log p [M] of what is predicted, and of what is the likeliest there."""
        names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        # Candidates of one token share the position that predicts them: its hidden state is computed once.
        at, row_M = torch.unique(choices.at_M, return_inverse=True)
        x_MD = self.model.hidden(*(batch[name] for name in names), at=at, execution=Execution())
        logprobs = self.model.logits(x_MD).float().log_softmax(1)
        return logprobs[row_M, choices.targets_M], logprobs.detach().amax(1)[row_M]


def gather_scores(logprob_M: Tensor, choices: Choices) -> Tensor:
    """The sums over each candidate's tokens, [Q, K]."""
    count = int(choices.place_C.max()) + 1
    score_C = logprob_M.new_zeros(len(choices.place_C)).index_add(0, choices.candidate_M, logprob_M)
    empty_QK = logprob_M.new_full((len(choices.gold_Q), count), -torch.inf)
    return empty_QK.index_put((choices.question_C, choices.place_C), score_C)
