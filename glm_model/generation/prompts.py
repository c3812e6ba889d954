"""From a user's text with masks to the context that the model reads, with errors in the user's words.

Imports no torch, so that a wrong order of blanks is reported before it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from glm_model import layout
from glm_model.config import MORE_POSITIONS, GLMConfig
from glm_model.tokenizer import PROMPT_MASKS, Tokenizer

_ORDERS = "Use 'left_to_right', 'right_to_left', or the numbers of the masks, from 0, in any order"


def read_prompt(tokenizer: Tokenizer, text: str, *, eos: bool | None = None) -> layout.Prompt:
    """The context of a text with [MASK], [sMASK] or [gMASK]: [CLS] + text + eos.

    eos: whether it is there; None leaves it out where the text ends in [gMASK], as the authors' generate_samples.py
    does (their cloze scores always have it). Raises ValueError when the text is empty or has no mask.
    """
    special = tokenizer.special
    if not isinstance(text, str):
        raise ValueError(f"text: expected a string, got {type(text).__name__}")
    if not text.strip():
        raise ValueError("the text is empty. Write a text with [MASK] where the model should write")
    if eos is None:
        eos = not text.rstrip().endswith("[gMASK]")
    end = [[special.eos]] if eos else []
    ids = np.concatenate([[special.cls], tokenizer.encode_prompt(text), *end])
    return layout.prompt(ids, masks=tuple(i for i in (special.mask, special.smask, special.gmask) if i >= 0))


def read_prompts(tokenizer: Tokenizer, texts: Sequence[str], *, eos: bool | None = None) -> list[layout.Prompt]:
    """`read_prompt` of several texts; an error says which one, counting from 1."""
    prompts, texts = [], listed(texts, "texts", "strings")
    for index, text in enumerate(texts):
        with naming_text(index, len(texts)):
            prompts.append(read_prompt(tokenizer, text, eos=eos))
    return prompts


def spliced(text: str, answers: Sequence[str]) -> tuple[str, ...]:
    """(text, answer, text, ..., text): the text as it was given, cut at its masks, with an answer in place of each.

    Where the text begins, ends or has white space beside a mask, that side of the answer loses its white space.
    """
    between = PROMPT_MASKS.split(text)[::2]
    parts = between[:1]
    for answer, after in zip(answers, between[1:], strict=True):
        before = "".join(parts)
        answer = answer.lstrip() if not before or before[-1].isspace() else answer
        parts += [answer.rstrip() if not after or after[0].isspace() else answer, after]
    return tuple(parts)


def listed(given: Any, name: str, of: str) -> list[Any]:
    """What was given, as a list. Raises ValueError where it is a single string, or nothing to iterate over."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name}: expected a list of {of}, got {given!r:.60}")
    return list(given)


@contextmanager
def naming_text(index: int, count: int) -> Iterator[None]:
    """Add to a ValueError which of several texts it is about, counting from 1."""
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
            f"{config.positions + 1:,}. Shorten the text, or use a model with more positions ({MORE_POSITIONS})"
        )


def check_order(order: Any) -> None:
    """Raise ValueError when an order fits no text, however many masks that has."""
    if isinstance(order, str):
        if order not in ("left_to_right", "right_to_left"):
            raise ValueError(f"order={order!r} is unknown. {_ORDERS}")
        return
    numbers = listed(order, "order", "the masks' numbers from 0, or the name of an order")
    whole = all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers)
    if not whole or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"order={numbers} does not hold each number from 0 to {len(numbers) - 1} once. {_ORDERS}")


def resolve_order(order: str | Sequence[int], count: int) -> list[int]:
    """The indices of `count` masks in the order in which they are filled. Raises ValueError on an order that does not
    fit them.
    """
    check_order(order)
    if isinstance(order, str):
        return list(range(count))[:: 1 if order == "left_to_right" else -1]
    if len(order) != count:
        masks = "one mask" if count == 1 else f"{count} masks"
        raise ValueError(f"order={list(order)} is for {len(order)} masks, and the text has {masks}. {_ORDERS}")
    return list(order)
