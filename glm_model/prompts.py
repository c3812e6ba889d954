"""A user's text with masks -> the context that the model reads, with errors in the user's words. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from glm_model import layout
from glm_model.config import GLMConfig

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer


def read_prompt(tokenizer: Tokenizer, text: str, *, eos: bool | None = None) -> layout.Prompt:
    """The context of a text with [MASK], [sMASK] or [gMASK]: [CLS] + text + eos.

    eos: None leaves it out where the text ends in [gMASK], as in the authors' generate_samples.py; their cloze scores
    have it always. Raises ValueError when the text is empty or has no mask.
    """
    special = tokenizer.special
    if not text.strip():
        raise ValueError("the text is empty. Write a text with [MASK] where the model should write")
    if eos is None:
        eos = not text.rstrip().endswith("[gMASK]")
    ids = np.concatenate(([special.cls], tokenizer.encode_prompt(text), [special.eos] if eos else []))
    return layout.prompt(ids, masks=tuple(i for i in (special.mask, special.smask, special.gmask) if i >= 0))


def read_prompts(tokenizer: Tokenizer, texts: Sequence[str], *, eos: bool | None = None) -> list[layout.Prompt]:
    """As `read_prompt`, for several texts; an error says which one (from 1)."""
    prompts = []
    for index, text in enumerate(texts):
        with naming_text(index, len(texts)):
            prompts.append(read_prompt(tokenizer, text, eos=eos))
    return prompts


@contextmanager
def naming_text(index: int, count: int) -> Iterator[None]:
    """Say in a ValueError which text of several it is about, counting from 1."""
    try:
        yield
    except ValueError as error:
        if count == 1:
            raise
        raise ValueError(f"text {index + 1} of {count}: {error}") from error


def check_context(config: GLMConfig, length: int) -> None:
    """Raise ValueError when a context of `length` tokens has no position for each."""
    if length > config.positions + 1:
        raise ValueError(
            f"the text has {length:,} tokens ([CLS] and the end included), and the model has positions for "
            f"{config.positions + 1:,}. Shorten the text, or use a model with more positions (model.positions)"
        )


def resolve_order(order: str | Sequence[int], count: int) -> list[int]:
    """Which of `count` masks is filled first, second, ...; raises ValueError on an order that is none."""
    if order == "left_to_right":
        return list(range(count))
    if order == "right_to_left":
        return list(range(count))[::-1]
    if isinstance(order, str) or sorted(order) != list(range(count)):
        given = order if isinstance(order, str) else list(order)
        raise ValueError(
            f"order={given!r} does not name each of the text's {count} masks once. "
            f"Use 'left_to_right', 'right_to_left', or the numbers 0 to {count - 1} in any order"
        )
    return list(order)
