"""Rows and their blanks to what the model is asked: the one caller of the layout function in the data pipeline."""

import numpy as np

from glm_model.layout import Example, Marks, Ragged, expand, ranges
from infra.errors import UserError
from pipelines.blanks import ablations
from pipelines.blanks.draw import Blanks
from pipelines.blanks.mixture import Mixture
from pipelines.ragged import RowBatch
from pipelines.token_classes import Vocabulary


def lay_out(
    rows: RowBatch, drawn: Blanks, mixture: Mixture, vocabulary: Vocabulary, *, width: int, marks: Marks, length: int
) -> Example:
    """The rows as the model is asked them, [R, width]. length: tokens of the store's longest segments.

    Raises UserError when the tokenizer lacks a mask that the mixture uses.
    """
    batch = ragged(rows, drawn, mixture, vocabulary, sop=marks.sop, length=length)
    if not mixture.form.in_place:
        return expand(batch, rows.row_offsets, width=width, marks=marks)
    shown = ablations.bert_replacements(
        *_blanked(rows, drawn),
        mask=int(mask_ids(mixture, vocabulary)[0]),
        vocab_size=len(vocabulary.classes),
        random_share=mixture.configs[0].random_share,
        kept_share=mixture.configs[0].kept_share,
    )
    return ablations.expand_in_place(batch, shown, rows.row_offsets, width=width, marks=marks)


def ragged(rows: RowBatch, drawn: Blanks, mixture: Mixture, vocabulary: Vocabulary, *, sop: int, length: int) -> Ragged:
    """What `glm_model.layout.expand` takes, in the form that the mixture asks for."""
    mask_of, form, vocab_size = mask_ids(mixture, vocabulary), mixture.form, len(vocabulary.classes)
    objective = drawn.objective.astype(np.int64)
    batch = Ragged(rows.tokens, rows.offsets, drawn.spans, drawn.span_offsets, mask_of[objective], objective)
    if form.sentinels:
        numbers = {"mask": int(mask_of[0]), "sop": sop, "vocab_size": vocab_size, "position": length}
        batch = batch._replace(sentinels=ablations.sentinels(drawn.span_offsets, **numbers))
    if form.noise:
        noise = vocab_size + form.extra_tokens - 1
        inputs = ablations.noisy_inputs(*_blanked(rows, drawn), share=form.noise, noise=noise)
        batch = batch._replace(piece_inputs=inputs)
    return batch


def mask_ids(mixture: Mixture, vocabulary: Vocabulary) -> np.ndarray:
    """The mask token of each objective of the mixture, int64 [O]."""
    ids = np.array([vocabulary.masks[kind] for kind in mixture.masks], dtype=np.int64)
    if (ids < 0).any():
        kind = mixture.masks[int(np.argmin(ids))]
        raise UserError(
            f"the tokenizer has no {kind} token, which blanks.mask_tokens=task needs",
            try_="blanks.mask_tokens=one, or a tokenizer with [MASK], [sMASK] and [gMASK]",
        )
    return ids


def _blanked(rows: RowBatch, drawn: Blanks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(blanked tokens [P] in the order of prediction, segment ids, spans, span offsets)."""
    segment = np.repeat(np.arange(len(rows.ids)), np.diff(drawn.span_offsets))
    begin = rows.offsets[:-1][segment] + drawn.spans[:, 0]
    blanked = rows.tokens[ranges(begin, drawn.spans[:, 1] - drawn.spans[:, 0])].astype(np.int64)
    return blanked, rows.ids, drawn.spans, drawn.span_offsets
