"""The ids of a part of a text as they stand among the ids of the whole, when the text beside the part is not known.

At a mask a text neither ends nor begins. Given to a tokenizer by itself, a part would get what belongs to the beginning
of a text (the space that Metaspace and Prepend put there) or to its end (a run of white space as one word). So a part
is encoded with stand-ins for what the masks hide, and the ids between them are its own:

    Alpha [MASK] beta.     behind the mask " beta."     with a stand-in  x beta.     ▁x | ▁beta .     the part: ▁beta .

A stand-in is right if a token ends where the part begins, as it does where the blank covers whole tokens; the next one
is tried if not.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import product
from operator import itemgetter

import tokenizers

NEAR = 32  # characters of the text beside an answer that its ids can depend on
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTERS, _IDEOGRAPHS = tuple("xqzjkvwb"), ("天", "的")
_SHORT = 64  # characters of a part that is kept
_KEPT = 4096  # parts


def stand_ins(prompt: str) -> tuple[str, ...]:
    """What may stand in for the blanks of a prompt: letters, and where it has ideographs, these first."""
    return (*_IDEOGRAPHS, *_LETTERS) if _IDEOGRAPH.search(prompt) else (*_LETTERS, *_IDEOGRAPHS)


def near_before(left: str, *, last_word: bool) -> str:
    """The end of the text before an answer on which its ids can depend. last_word: a space always ends a word, so that
    other words play no part; and they are other ones in each item.
    """
    near = left[-NEAR:]
    return near[near.rstrip().rfind(" ") + 1 :] if last_word else near


def inside_encoder(text: tokenizers.Tokenizer) -> Callable[[str, tuple[str, ...], tuple[str, ...]], Sequence[int]]:
    """`encode_inside` by one tokenizer, which keeps what it found for short parts: many items have the same label words
    and the same words of a pattern.
    """
    again = lru_cache(_KEPT)(partial(encode_inside, text))

    def encode(part: str, befores: tuple[str, ...], afters: tuple[str, ...]) -> Sequence[int]:
        return (again if len(part) <= _SHORT else again.__wrapped__)(part, befores, afters)

    return encode


def encode_inside(text: tokenizers.Tokenizer, part: str, befores: Sequence[str], afters: Sequence[str]) -> list[int]:
    """The ids of `part` between the first pair of texts at which tokens end; by itself where there is none."""
    if not part:
        return []
    for before, after in product(befores, afters):
        encoding = text.encode(before + part + after, add_special_tokens=False)
        first, last = len(before), len(before) + len(part)
        places = encoding.offsets  # in the order of the text, so both borders are found by bisection
        begin = bisect_left(places, first, key=itemgetter(0))
        behind = bisect_right(places, last, key=itemgetter(1))
        cuts_first = begin > 0 and places[begin - 1][1] > first
        cuts_last = behind < len(places) and places[behind][0] < last
        if not (cuts_first or cuts_last):
            return encoding.ids[begin:behind]
    return text.encode(part, add_special_tokens=False).ids
