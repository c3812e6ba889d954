"""Rows and their blanks to what the model is asked: the one caller of the layout function in the data pipeline."""

from dataclasses import dataclass

import numpy as np

from glm_model.layout import Example, Marks, Ragged, expand, ranges
from glm_model.tokenizer import Tokenizer
from infra.errors import UserError
from pipelines.blanks import ablations
from pipelines.blanks.draw import Blanks
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.ragged import RowBatch
from pipelines.store.format import TokenStore
from pipelines.token_classes import TokenClasses


@dataclass(frozen=True)
class FeedSettings:
    """What decides how rows become examples. blanks_key: folder of stored plans to use where they exist, or None;
    expand_on_device: leave the layout to the device that trains (`glm_model.device_layout`), the result being the same.
    Forms that it does not know (ablations) are laid out on the host all the same.
    """

    split_name: str
    mixture: Mixture
    token_classes: TokenClasses
    marks: Marks
    seed: int
    width: int
    sequence_length: int
    blanks_key: str | None
    expand_on_device: bool = False


def feed_settings(
    opened: TokenStore,
    tokenizer: Tokenizer,
    config: BlanksConfig,
    *,
    split: str = "train",
    blanks_key: str | None = None,
    expand_on_device: bool = False,
) -> FeedSettings:
    """How a run with these blanks reads a store."""
    special, settings = tokenizer.special, opened.manifest["settings"]
    return FeedSettings(
        split_name=split,
        mixture=resolve(config),
        token_classes=TokenClasses.of(tokenizer),
        marks=Marks(sop=special.sop, eop=special.eop, pad=special.pad),
        seed=config.seed,
        width=settings["row_width"],
        sequence_length=settings["sequence_length"],
        blanks_key=blanks_key,
        expand_on_device=expand_on_device,
    )


def lay_out(
    rows: RowBatch,
    drawn: Blanks,
    mixture: Mixture,
    token_classes: TokenClasses,
    *,
    width: int,
    marks: Marks,
    length: int,
) -> Example:
    """The rows as the model is asked them, [R, width]. length: tokens of the store's longest segments.

    Raises UserError when the tokenizer lacks a mask that the mixture uses.
    """
    batch = ragged(rows, drawn, mixture, token_classes, sop=marks.sop, length=length)
    if not mixture.form.in_place:
        return expand(batch, rows.row_offsets, width=width, marks=marks)
    shown = ablations.bert_replacements(
        *_blanked(rows, drawn),
        mask=int(mask_ids(mixture, token_classes)[0]),
        vocab_size=len(token_classes.classes),
        random_share=mixture.configs[0].random_share,
        kept_share=mixture.configs[0].kept_share,
    )
    return ablations.expand_in_place(batch, shown, rows.row_offsets, width=width, marks=marks)


def ragged(
    rows: RowBatch, drawn: Blanks, mixture: Mixture, token_classes: TokenClasses, *, sop: int, length: int
) -> Ragged:
    """What `glm_model.layout.expand` takes, in the form that the mixture asks for."""
    mask_of, form, vocab_size = mask_ids(mixture, token_classes), mixture.form, len(token_classes.classes)
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


def mask_ids(mixture: Mixture, token_classes: TokenClasses) -> np.ndarray:
    """The mask token of each objective of the mixture, int64 [O]."""
    ids = np.array([token_classes.masks[kind] for kind in mixture.masks], dtype=np.int64)
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
