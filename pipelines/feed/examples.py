"""What decides how the rows of a store become examples, and the rows and their blanks as the model is asked them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from glm_model.layout import Example, Marks
from glm_model.tokenizer import Tokenizer
from infra.errors import UserError
from pipelines.blanks.draw import draw_rows
from pipelines.blanks.form import RowLayout
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.ragged import Blanks, RowBatch
from pipelines.store.format import TokenStore
from pipelines.token_classes import TokenClasses


@dataclass(frozen=True)
class FeedSettings:
    """How a run reads a split of a store."""

    split_name: str
    mixture: Mixture
    token_classes: TokenClasses
    marks: Marks
    seed: int
    """Decides what is blanked."""
    width: int
    """Positions of a row."""
    sequence_length: int
    """Tokens of the store's longest segments."""
    blanks_key: str | None
    """Folder of the stored blanks to use where they exist; None: draw all."""
    expand_on_device: bool = False
    """Leave the layout to the device that trains (`glm_model.device_layout`); the result is the same. Ablations, which
    it does not know, are laid out on the host all the same.
    """

    @cached_property
    def layout(self) -> RowLayout:
        """What the rows are laid out with. Raises UserError when the tokenizer lacks a mask that the mixture uses."""
        masks, vocab_size = mask_ids(self.mixture, self.token_classes), len(self.token_classes.classes)
        return RowLayout(masks, self.marks, vocab_size, self.width, self.sequence_length)


def feed_settings(
    store: TokenStore,
    tokenizer: Tokenizer,
    config: BlanksConfig,
    *,
    split: str = "train",
    blanks_key: str | None = None,
    expand_on_device: bool = False,
    token_classes: TokenClasses | None = None,
) -> FeedSettings:
    """How a run with these blanks reads a store. token_classes: of the tokenizer, where they are at hand."""
    special, manifest = tokenizer.special, store.manifest
    return FeedSettings(
        split_name=split,
        mixture=resolve(config),
        token_classes=token_classes or TokenClasses.of(tokenizer),
        marks=Marks(sop=special.sop, eop=special.eop, pad=special.pad),
        seed=config.seed,
        width=manifest.row_width,
        sequence_length=manifest.sequence_length,
        blanks_key=blanks_key,
        expand_on_device=expand_on_device,
    )


def draw_epoch(rows: RowBatch, settings: FeedSettings, epoch: int) -> Blanks:
    """The blanks of these rows in an epoch. Raises UserError when the store was packed for another mixture."""
    blanks, _ = draw_rows(
        settings.mixture, rows, settings.token_classes, seed=settings.seed, epoch=epoch, width=settings.width
    )
    return blanks


def lay_out(rows: RowBatch, blanks: Blanks, settings: FeedSettings) -> Example:
    """The rows as the model is asked them, [R, width]."""
    return settings.mixture.form.lay_out(rows, blanks, settings.layout)


def mask_ids(mixture: Mixture, token_classes: TokenClasses) -> np.ndarray:
    """The mask token of each objective of the mixture, int64 [O]. Raises UserError when the tokenizer lacks one."""
    ids = np.array([token_classes.masks[kind] for kind in mixture.masks], dtype=np.int64)
    if (ids < 0).any():
        kind = mixture.masks[int(np.argmin(ids))]
        raise UserError(
            f"the tokenizer has no {kind} token, which blanks.mask_tokens=task needs",
            try_="use blanks.mask_tokens=one, or a tokenizer with [MASK], [sMASK] and [gMASK]",
        )
    return ids
