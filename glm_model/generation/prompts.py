"""A user's text with masks -> the context that the model reads, with errors in the user's words. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_model import layout
from glm_model.config import MORE_POSITIONS, GLMConfig
from glm_model.tokenizer.published import PROMPT_MASKS

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

_ORDERS = "Use 'left_to_right', 'right_to_left', or the numbers of the masks, from 0, in any order"


def read_prompt(tokenizer: Tokenizer, text: str, *, eos: bool | None = None) -> layout.Prompt:
    """The context of a text with [MASK], [sMASK] or [gMASK]: [CLS] + text + eos.

    eos: None leaves it out where the text ends in [gMASK], as in the authors' generate_samples.py; their cloze scores
    have it always. Raises ValueError when the text is empty or has no mask.
    """
    special = tokenizer.special
    if not isinstance(text, str):
        raise ValueError(f"the text is a {type(text).__name__}, no string")
    if not text.strip():
        raise ValueError("the text is empty. Write a text with [MASK] where the model should write")
    if eos is None:
        eos = not text.rstrip().endswith("[gMASK]")
    end = [[special.eos]] if eos else []
    ids = np.concatenate([[special.cls], tokenizer.encode_prompt(text), *end])
    return layout.prompt(ids, masks=tuple(i for i in (special.mask, special.smask, special.gmask) if i >= 0))


def read_prompts(tokenizer: Tokenizer, texts: Sequence[str], *, eos: bool | None = None) -> list[layout.Prompt]:
    """As `read_prompt`, for several texts; an error says which one (from 1)."""
    prompts, texts = [], listed(texts, "texts", "strings")
    for index, text in enumerate(texts):
        with naming_text(index, len(texts)):
            prompts.append(read_prompt(tokenizer, text, eos=eos))
    return prompts


def spliced(text: str, answers: Sequence[str]) -> tuple[str, ...]:
    """(text, answer, text, ..., text): the text as it was given, cut at its masks, and an answer in place of each.

    Only where the text has white space (or its border) beside a mask, the answer is without its own.
    """
    own = PROMPT_MASKS.split(text)[::2]
    parts = own[:1]
    for answer, after in zip(answers, own[1:], strict=True):
        before = "".join(parts)
        answer = answer.lstrip() if not before or before[-1].isspace() else answer
        parts += [answer.rstrip() if not after or after[0].isspace() else answer, after]
    return tuple(parts)


def listed(given: Any, name: str, of: str) -> list[Any]:
    """What was given as a list; ValueError where it is a single string, or nothing to go through."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name}={given!r:.60} is a {type(given).__name__}; give a list of {of}")
    return list(given)


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
            f"{config.positions + 1:,}. Shorten the text, or use a model with more positions ({MORE_POSITIONS})"
        )


def check_order(order: Any) -> None:
    """Raise ValueError when an order is one of no text, however many masks it has."""
    if isinstance(order, str):
        if order not in ("left_to_right", "right_to_left"):
            raise ValueError(f"order={order!r} is unknown. {_ORDERS}")
        return
    numbers = listed(order, "order", "the masks' numbers from 0, or the name of an order")
    whole = all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers)
    if not whole or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"order={numbers} does not hold each number from 0 to {len(numbers) - 1} once. {_ORDERS}")


def resolve_order(order: str | Sequence[int], count: int) -> list[int]:
    """Which of `count` masks is filled first, second, ...; raises ValueError on an order that is none."""
    check_order(order)
    if isinstance(order, str):
        return list(range(count))[:: 1 if order == "left_to_right" else -1]
    if len(order) != count:
        masks = "one mask" if count == 1 else f"{count} masks"
        raise ValueError(f"order={list(order)} is of {len(order)} masks, and the text has {masks}. {_ORDERS}")
    return list(order)
