"""Special tokens of the authors' checkpoints, by tokenizer: the ids that the weights were trained with.

A checkpoint does not record them. They follow from its tokenizer and from the authors' option --task-mask: with it
[gMASK] serves the document objective and [sMASK] the sentence objective, without it all objectives share [MASK].
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from glm_model.config import GLMConfig
from glm_model.tokenizer import SpecialTokens, Tokenizer


@dataclass(frozen=True)
class Published:
    """A tokenizer of the authors' models."""

    special: SpecialTokens
    """With task masks."""
    rows: int
    """Rows of the embedding: the number of ids, rounded up to a multiple of 128."""
    task_masks: bool
    """Whether the published models with this tokenizer were trained with task masks."""
    file: str
    """The file to give as the tokenizer."""


_BPE = "vocab.json with merges.txt beside it, or tokenizer.json"
PUBLISHED: dict[str, Published] = {
    "bert": Published(
        SpecialTokens(pad=0, cls=101, mask=103, smask=30525, gmask=30524, sop=30522, eop=30523, unk=100),
        rows=30_592,
        task_masks=False,
        file="vocab.txt of bert-base-uncased",
    ),
    "gpt2": Published(
        SpecialTokens(pad=50256, cls=50259, mask=50260, smask=50264, gmask=50263, sop=50257, eop=50258, unk=50262),
        rows=50_304,
        task_masks=True,
        file=f"GPT-2's {_BPE}",
    ),
    "roberta": Published(
        SpecialTokens(pad=2, cls=0, mask=50264, smask=50268, gmask=50267, sop=50265, eop=50266, unk=3),
        rows=50_304,
        task_masks=True,
        file=f"RoBERTa's {_BPE}",
    ),
    # Those of the large model. The 10B model was trained with [gMASK] = eop = 50007: `resize.copy_row` adapts it.
    "chinese": Published(
        SpecialTokens(pad=50000, cls=50002, mask=50003, smask=50008, gmask=50009, sop=50006, eop=50007, unk=50004),
        rows=50_048,
        task_masks=True,
        file="cog-pretrain.model",
    ),
}


def recognise(config: GLMConfig) -> str | None:
    """The tokenizer of a checkpoint of the authors, from its shape. None where no published model has that shape.

    GPT-2's and RoBERTa's vocabularies have equally many rows; their published models differ in their positions.
    """
    found = [name for name, published in PUBLISHED.items() if published.rows == config.vocab_size]
    if found == ["gpt2", "roberta"]:
        return "roberta" if config.positions <= 512 else "gpt2"
    return found[0] if found else None


def special_tokens(name: str, *, task_masks: bool | None = None) -> SpecialTokens:
    """The special ids of a tokenizer of the authors' models. task_masks: None for those of its published models."""
    published = PUBLISHED[name]
    with_masks = published.task_masks if task_masks is None else task_masks
    return published.special if with_masks else replace(published.special, smask=-1, gmask=-1)


def load_tokenizer(
    url: str, name: str | None, *, task_masks: bool | None = None, lowercase: bool | None = None
) -> Tokenizer:
    """The tokenizer at `url`, checked to have the special ids of `PUBLISHED[name]`; with name None it is not checked.

    Raises ValueError where its ids differ from those, naming them.
    """
    if name is None:
        return Tokenizer.load(url, lowercase=lowercase, task_masks=task_masks)
    masks = PUBLISHED[name].task_masks if task_masks is None else task_masks
    tokenizer = Tokenizer.load(url, lowercase=lowercase, task_masks=masks)
    wanted = special_tokens(name, task_masks=masks)
    roles = [field.name for field in fields(wanted)]
    wrong = [role for role in roles if getattr(tokenizer.special, role) != getattr(wanted, role)]
    if wrong:
        have = ", ".join(f"{role} {getattr(tokenizer.special, role)}" for role in wrong)
        want = ", ".join(f"{role} {getattr(wanted, role)}" for role in wrong)
        is_of = [other for other in PUBLISHED if special_tokens(other, task_masks=masks) == tokenizer.special]
        guess = f": its ids are those of {is_of[0]!r}" if is_of else ""
        raise ValueError(
            f"{url} is not the tokenizer of a {name!r} checkpoint{guess}. It has {have}; the checkpoint has {want}. "
            f"Give {PUBLISHED[name].file}"
        )
    return tokenizer
