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
from collections.abc import Iterable
from itertools import product

import tokenizers

_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTERS, _IDEOGRAPHS = tuple("xqzjkvwb"), ("天", "的")


def stand_ins(prompt: str) -> tuple[str, ...]:
    """What may stand in for the blanks of a prompt: letters, and where it has ideographs, these first."""
    return (*_IDEOGRAPHS, *_LETTERS) if _IDEOGRAPH.search(prompt) else (*_LETTERS, *_IDEOGRAPHS)


def encode_inside(text: tokenizers.Tokenizer, part: str, befores: Iterable[str], afters: Iterable[str]) -> list[int]:
    """The ids of `part` between the first pair of texts at which tokens end; by itself where there is none."""
    if not part:
        return []
    for before, after in product(befores, tuple(afters)):
        encoding = text.encode(before + part + after, add_special_tokens=False)
        first, last = len(before), len(before) + len(part)
        places = encoding.offsets
        if not any(start < border < end for start, end in places for border in (first, last)):
            return [i for i, (start, end) in zip(encoding.ids, places, strict=True) if first <= start and end <= last]
    return text.encode(part, add_special_tokens=False).ids
