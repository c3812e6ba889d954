"""Embed: a vector for each text, the mean of the model's last hidden states over the tokens of the text.

[CLS] and eos, between which a text is read, are left out.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from glm_model import GLM, Classifier, layout
from glm_model.attention import row_width
from glm_model.checks import check_finite
from glm_model.generation.session import evaluating
from glm_model.tokenizer import Tokenizer
from pipelines.feed.questions import lay_out_questions
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Overlong, Question
from pipelines.questions.rows import Row
from pipelines.questions.task import Item
from workflows.prediction.kind import Kind, Shown, asked_by, shown_by, task_of, text_of

_TEXT = Pattern("{text~}")


def embed(pattern: Pattern | None, text: str, width: int, overlong: Overlong) -> Kind:
    """pattern: without a mask, makes the text; None: it is the column `text`. width: of the model."""

    def show(row: Row) -> Shown:
        if pattern is not None:
            return shown_by(pattern, Item("", row.fields))
        return _TEXT, Item("", {"text": text_of(row, text)})

    told = {"pattern": pattern.text if pattern else None, "text": text}
    ask = asked_by(task_of("embed"), overlong)

    def ask_text(shown: Shown, tokenizer: Tokenizer, positions: int) -> Question:
        question = ask(shown, tokenizer, positions)
        if not _is_text(question.prompt.tokens, tokenizer).any():
            raise ValueError("the text has no tokens")
        return question

    columns = {"embedding": pa.list_(pa.float32(), width)}
    return Kind("embed", columns, told, show, ask_text, _embeddings, needs_mask=False)


@torch.inference_mode()
def _embeddings(
    model: GLM | Classifier, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[tuple[np.ndarray]]:
    glm = model.glm if isinstance(model, Classifier) else model
    marks = layout.Marks(tokenizer.special.sop, tokenizer.special.eop, tokenizer.special.pad)
    device = glm.token_embedding.weight.device
    # Packed rows: none pays for another's padding.
    example = lay_out_questions(questions, marks, width=row_width(device)).example
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    inputs = [torch.from_numpy(getattr(example, name)).to(device) for name in names]
    is_real = example.segment_ids.ravel() >= 0
    question_P = np.cumsum(is_real & (example.position_ids.ravel() == 0)) - 1
    counted = np.flatnonzero(is_real & _is_text(example.tokens.ravel(), tokenizer))
    at, of = torch.from_numpy(counted).to(device), torch.from_numpy(question_P[counted]).to(device)
    with evaluating(glm):
        x_MD: Tensor = glm.hidden(*inputs, at=at).float()
    sum_QD = x_MD.new_zeros(len(questions), x_MD.shape[1]).index_add(0, of, x_MD)
    mean_QD = sum_QD / torch.bincount(of, minlength=len(questions))[:, None]
    check_finite(glm, [float(mean_QD.sum())])
    return [(vector,) for vector in mean_QD.cpu().numpy()]


def _is_text(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    return (tokens != tokenizer.special.cls) & (tokens != tokenizer.special.eos)
