"""A GLM with a head that says which class a text has: the paper's ablation of cloze fine-tuning, "classifier".

    [CLS] text eos  -> GLM ->  final hidden state of [CLS] -> linear -> tanh -> dropout -> linear -> logits of K classes

as the authors' sequence classification pools it. Nothing is written, so there is no mask and no `[sop]`.

Shapes: B rows, L row length, D width, Q texts, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_model import urls
from glm_model.candidates import Choices
from glm_model.config import GLMConfig
from glm_model.dropout import dropout
from glm_model.model import GLM, INIT_STD, Execution
from glm_model.saved.pretrained import save_pretrained
from glm_model.saved.weights import has_head, read_head
from glm_model.train import Precision, autocast, resolve_precision

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

_GLM = "glm."  # before the names of the model's tensors in `state_dict`


class Classifier(nn.Module):
    """A GLM and its head. The head of a new one is drawn from torch's default generator, as a GLM's weights are.

    Weights: those of the GLM as glm.<name>; pool.weight [D, D], pool.bias [D], out.weight [K, D], out.bias [K].
    """

    def __init__(self, glm: GLM, classes: int) -> None:
        super().__init__()
        self.glm = glm
        width = glm.config.width
        self.pool, self.out = nn.Linear(width, width), nn.Linear(width, classes)
        for part in (self.pool, self.out):
            nn.init.normal_(part.weight, std=INIT_STD)
            nn.init.zeros_(part.bias)

    @classmethod
    def from_state(cls, config: GLMConfig, state: Mapping[str, Tensor]) -> Classifier:
        """A classifier in eval mode with the tensors of a `state_dict`. Raises ValueError where they do not fit."""
        glm = GLM.from_state(config, {n.removeprefix(_GLM): v for n, v in state.items() if n.startswith(_GLM)})
        return cls._with_head(glm, {name: value for name, value in state.items() if not name.startswith(_GLM)})

    @classmethod
    def from_pretrained(cls, url: str) -> Classifier:
        """A classifier in eval mode from a model folder. Raises ValueError for one without a head, and as GLM's."""
        url = urls.model_folder(str(url))
        if not has_head(url):
            raise ValueError(f"{url} has no head.safetensors: the model was not trained with a classification head")
        return cls._with_head(GLM.from_pretrained(url), read_head(url))

    @classmethod
    def _with_head(cls, glm: GLM, head: Mapping[str, Tensor]) -> Classifier:
        wanted = {"pool.weight", "pool.bias", "out.weight", "out.bias"}
        if {*head} != wanted:
            raise ValueError(f"a head has the tensors {', '.join(sorted(wanted))}, and this one {', '.join(head)}")
        classifier = cls(glm, len(head["out.bias"]))
        classifier.load_state_dict({f"{_GLM}{name}": value for name, value in glm.state_dict().items()} | dict(head))
        return classifier.eval()

    def save_pretrained(self, url: str, tokenizer: Tokenizer | None = None, *, card: str | None = None) -> None:
        """Write a model folder, in which the head is a file of its own: whoever reads a GLM from it needs none."""
        head = {name: value for name, value in self.state_dict().items() if not name.startswith(_GLM)}
        save_pretrained(self.glm, url, tokenizer, card=card, head=head)

    @property
    def config(self) -> GLMConfig:
        """The shape of its GLM."""
        return self.glm.config

    def forward(self, batch: Mapping[str, Tensor], at_Q: Tensor) -> Tensor:
        """Log-probabilities float32 [Q, K]. batch: int64 [B, L] under the names of `layout.Example`; at_Q: the flat
        position, row * L + column, of each text's `[CLS]`.
        """
        names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        x_QD = self.glm.hidden(*(batch[name] for name in names), at=at_Q, execution=Execution())
        pooled_QD = dropout(torch.tanh(self.pool(x_QD)), self.config.dropout if self.training else 0.0)
        return self.out(pooled_QD).float().log_softmax(1)


class ClassifierStep(nn.Module):
    """(batch, choices) -> (sum of losses float32 [1], number of texts int64 [1]). This is what DDP wraps.

    Of the choices it reads `at_M`, the places of `[CLS]`, and `gold_Q`. precision: see `train.resolve_precision`.
    """

    def __init__(self, model: Classifier, *, precision: Precision = "auto") -> None:
        super().__init__()
        resolve_precision(precision, "cpu")  # raises for an unknown one now, not at the first step
        self.model = model
        self.precision: Precision = precision

    def forward(self, inputs: tuple[dict[str, Tensor], Choices]) -> tuple[Tensor, Tensor]:
        batch, choices = inputs
        loss = F.nll_loss(self.scores(batch, choices), choices.gold_Q, reduction="sum")
        return loss[None], torch.tensor([len(choices.gold_Q)])

    def scores(self, batch: dict[str, Tensor], choices: Choices) -> Tensor:
        """Log-probabilities float32 [Q, K]."""
        with autocast(self.precision, batch["tokens"].device):
            return self.model(batch, choices.at_M)
