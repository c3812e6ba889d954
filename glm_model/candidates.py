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

ChoiceLoss = Literal["choice", "gold", "written"]
"""choice: cross-entropy over the candidates. gold: the mean negative log-probability of the right one's tokens.
written: that, and cross-entropy over log p per token, which is 0 where there is one candidate: `generative` and `mix`
of the authors' code, with its length penalty of 1.
"""


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


class Ratings(NamedTuple):
    """How likely a model finds the candidates of questions."""

    score_QK: Tensor
    """The sums of log p over each candidate's tokens, float32; -inf where a question has fewer candidates."""
    tokens_QK: Tensor
    """How many tokens these are, float32, at least 1."""

    @property
    def per_token_QK(self) -> Tensor:
        return self.score_QK / self.tokens_QK


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
        if self.loss == "choice":
            preference_QK = self.preferences(batch, choices)
            return F.cross_entropy(preference_QK, choices.gold_Q, reduction="sum")[None], questions
        ratings = self.rate(batch, choices)
        loss = -ratings.per_token_QK.gather(1, choices.gold_Q[:, None]).sum()
        if self.loss == "written":
            loss = loss + F.cross_entropy(ratings.per_token_QK, choices.gold_Q, reduction="sum")
        return loss[None], questions

    def preferences(self, batch: dict[str, Tensor], choices: Choices) -> Tensor:
        """Scores float32 [Q, K] but for a summand of each question, which its cross-entropy does not depend on.

        Candidates of one token in one place have the vocabulary's sum of exponentials in common. It is not computed
        then, nor are the logits of other ids.
        """
        x_MD, row_M = self._hidden(batch, choices)
        is_single = len(choices.targets_M) == len(choices.question_C)
        if not is_single or len(x_MD) != len(choices.gold_Q):
            return self._rate(x_MD, row_M, choices).score_QK
        logit_M = (x_MD[row_M].float() * self.model.token_embedding(choices.targets_M).float()).sum(1)
        return _sums(logit_M, choices, missing=-torch.inf)

    def rate(self, batch: dict[str, Tensor], choices: Choices) -> Ratings:
        return self._rate(*self._hidden(batch, choices), choices)

    def scores(self, batch: dict[str, Tensor], choices: Choices) -> Tensor:
        """Scores float32 [Q, K], -inf where a question has fewer candidates."""
        return self.rate(batch, choices).score_QK

    def writes(self, batch: dict[str, Tensor], choices: Choices) -> tuple[Ratings, Tensor]:
        """(ratings; bool [Q], whether the model writes the first candidate). By itself it does where each token is the
        likeliest one; among others, where the candidate is the likeliest per token.
        """
        x_MD, row_M = self._hidden(batch, choices)
        logprobs = self._logprobs(x_MD)
        logprob_M = logprobs[row_M, choices.targets_M]
        ratings = _ratings(logprob_M, choices)
        is_other_M = (logprob_M < logprobs.amax(1)[row_M]).to(logprob_M.dtype)
        is_greedy_Q = _sums(is_other_M, choices, missing=0.0)[:, 0] == 0
        is_alone_Q = ratings.score_QK[:, 1:].isinf().all(1)
        return ratings, torch.where(is_alone_Q, is_greedy_Q, ratings.per_token_QK.argmax(1) == 0)

    def _hidden(self, batch: dict[str, Tensor], choices: Choices) -> tuple[Tensor, Tensor]:
        """(final hidden states of the places where something is predicted, each once; which of them each of M has)."""
        names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        # Candidates of one token share the position that predicts them: its hidden state is computed once.
        at, row_M = torch.unique(choices.at_M, return_inverse=True)
        with autocast(self.precision, batch["tokens"].device):
            return self.model.hidden(*(batch[name] for name in names), at=at, execution=Execution()), row_M

    def _rate(self, x_MD: Tensor, row_M: Tensor, choices: Choices) -> Ratings:
        return _ratings(self._logprobs(x_MD)[row_M, choices.targets_M], choices)

    def _logprobs(self, x_D: Tensor) -> Tensor:
        """log p of every id, float32 [..., V]."""
        with autocast(self.precision, x_D.device):
            logits = self.model.logits(x_D)
        return logits.float().log_softmax(-1)


def _ratings(logprob_M: Tensor, choices: Choices) -> Ratings:
    tokens_QK = _sums(torch.ones_like(logprob_M), choices, missing=1.0)
    return Ratings(_sums(logprob_M, choices, missing=-torch.inf), tokens_QK.clamp_min(1.0))


def _sums(value_M: Tensor, choices: Choices, *, missing: float) -> Tensor:
    """Sums over each candidate's tokens, [Q, K]. missing: where a question has fewer candidates."""
    count = int(choices.place_C.max()) + 1
    sum_C = value_M.new_zeros(len(choices.place_C)).index_add(0, choices.candidate_M, value_M)
    empty_QK = value_M.new_full((len(choices.gold_Q), count), missing)
    return empty_QK.index_put((choices.question_C, choices.place_C), sum_C)
