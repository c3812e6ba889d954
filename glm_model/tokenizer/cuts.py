"""Where a text may be cut so that the ids of both parts, one after the other, are the ids of the whole.

A tokenizer looks at a word (a pre-token) by itself, so a cut between two words changes nothing, as long as the
tokenizer still sees two words there. What ends a word differs by kind, and many kinds have no such place: Metaspace and
Prepend put a space in front of whatever they are given, and patterns such as `\\p{P}+[\\r\\n/]*` look beyond a line
break. So there are rules for two kinds, which cover BERT's and GPT-2's vocabularies; all others have to encode a text
whole. A rule follows from the specification in tokenizer.json and is tried on probes before it is used.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import product
from typing import Any

from glm_model.tokenizer.published import text_tokens
from glm_model.tokenizer.word_cache import EncodeBatch, words_are_independent

MayCut = Callable[[str, int], bool]
"""may_cut(text, at): whether the ids of text[:at] and text[at:] are those of the text; 0 < at < len(text)."""

# White space to Unicode, to Rust and to Python alike. Python's isspace() has \x1c to \x1f besides; BERT's normalizer
# removes \x0b, \x0c and \x85, so that the words around them become one.
_SPACES = frozenset(" \t\n\r\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
# Ideographs that BERT's normalizer sets apart.
_IDEOGRAPHS = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
_PROBES = (".", "。", "”", "'", "…", " ", "\n", "\n\n", " \n", "a", "S", "1", "天", "\x85", "\x1c", "/")


def cut_rule(spec: dict[str, Any], encode_batch: EncodeBatch) -> MayCut | None:
    """The rule of a tokenizer.json; None where no place is known at which every text may be cut."""
    rule = None
    if text_tokens(spec):  # which may hold any white space, or take what is around them
        return None
    kinds = [(spec.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    if words_are_independent(spec):
        ideographs = (spec["normalizer"] or {}).get("handle_chinese_chars", False)
        rule = _between_bert_words_and_ideographs if ideographs else _between_bert_words
    elif kinds in ([None, "ByteLevel", "BPE"], ["Lowercase", "ByteLevel", "BPE"]):
        pre = spec["pre_tokenizer"]
        if pre.get("use_regex", True) and not pre.get("add_prefix_space", True):
            rule = _between_byte_level_words
    return rule if rule and _holds(rule, encode_batch) else None


def _between_bert_words(text: str, at: int) -> bool:
    before, after = text[at - 1], text[at]
    return before in _SPACES or after in _SPACES or _is_punctuation(before) or _is_punctuation(after)


def _between_bert_words_and_ideographs(text: str, at: int) -> bool:
    return _between_bert_words(text, at) or _is_ideograph(text[at - 1]) or _is_ideograph(text[at])


def _between_byte_level_words(text: str, at: int) -> bool:
    r"""GPT-2's pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

    A run of white space is one word up to its last character, which the next word takes if it is a space; so a run may
    be cut at its first character and before its last one. Signs end before a letter; only behind an apostrophe the
    letters may belong to it.
    """
    before, after = text[at - 1], text[at]
    if after in _SPACES:
        behind = text[at + 1 : at + 2]
        return not before.isspace() or bool(behind and not behind.isspace())
    # Past U+FFFF, Python and the library may disagree on what is a letter: their versions of Unicode differ.
    return before != "'" and _is_punctuation(before) and after.isalnum() and after <= "\uffff"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)


def _holds(rule: MayCut, encode_batch: EncodeBatch) -> bool:
    """Whether the rule's cuts of some short texts give the ids of these texts. Takes some milliseconds."""
    wholes, parts = [], []
    for middle in product(_PROBES, _PROBES):
        text = f"ab{''.join(middle)}cd"
        places = [at for at in range(1, len(text)) if rule(text, at)]
        wholes += [text] * len(places)
        parts += [part for at in places for part in (text[:at], text[at:])]
    whole_ids, whole_offsets = encode_batch(wholes)
    part_ids, part_offsets = encode_batch(parts)
    return whole_offsets.tolist() == part_offsets[::2].tolist() and bool((whole_ids == part_ids).all())
