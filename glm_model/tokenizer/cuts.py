"""Where a text may be cut so that the ids of both parts, one after the other, are the ids of the whole.

A tokenizer looks at a word (a pre-token) by itself, so a cut between two words changes nothing, as long as the
tokenizer still sees two words there. What ends a word differs by kind, and many kinds have no such place: Metaspace and
Prepend put a space in front of whatever they are given, and patterns such as `\\p{P}+[\\r\\n/]*` look beyond a line
break. So there are rules for two kinds, which cover BERT's and GPT-2's vocabularies; all others have to encode a text
whole. A rule follows from the specification in tokenizer.json and is tried on probes before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

import tokenizers

from glm_model.tokenizer.published import text_tokens
from glm_model.tokenizer.word_cache import words_are_independent

MayCut = Callable[[str, int], bool]
"""may_cut(text, at): whether the ids of text[:at] and text[at:] are those of the text; 0 < at < len(text)."""

# White space to Unicode, to Rust and to Python alike. Python's isspace() has \x1c to \x1f besides; BERT's normalizer
# removes \x0b, \x0c and \x85, so that the words around them become one.
_SPACES = frozenset(" \t\n\r\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
_PROBES = (".", "。", "”", "'", "…", " ", "\n", "\n\n", " \n", "a", "S", "1", "天", "\x85", "\x1c", "/")


def cut_rule(spec: dict[str, Any], text: tokenizers.Tokenizer) -> MayCut | None:
    """The rule of a tokenizer.json; None where no place is known at which every text may be cut."""
    if text_tokens(spec):  # which may hold any white space, or take what is around them
        return None
    rule, kinds = None, [(spec.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    if words_are_independent(spec):
        rule = _between_bert_words(text)
    elif kinds in ([None, "ByteLevel", "BPE"], ["Lowercase", "ByteLevel", "BPE"]):
        pre = spec["pre_tokenizer"]
        if pre.get("use_regex", True) and not pre.get("add_prefix_space", True):
            rule = _between_byte_level_words(text)
    return rule if rule and _holds(rule, text) else None


def _between_bert_words(text: tokenizers.Tokenizer) -> MayCut:
    """Beside white space, signs, and ideographs where the normalizer sets these apart."""

    @lru_cache(maxsize=1 << 16)
    def stands_alone(character: str) -> bool:
        return _count_words(text, f"a{character}b") == 3

    def may_cut(whole: str, at: int) -> bool:
        before, after = whole[at - 1], whole[at]
        return before in _SPACES or after in _SPACES or stands_alone(before) or stands_alone(after)

    return may_cut


def _between_byte_level_words(text: tokenizers.Tokenizer) -> MayCut:
    r"""GPT-2's pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

    A run of white space is one word up to its last character, which the next word takes if it is a space; so a run may
    be cut at its first character and before its last one. Signs end before a letter or number; only behind an
    apostrophe the letters may belong to it.
    """

    @lru_cache(maxsize=1 << 16)
    def is_sign(character: str) -> bool:
        return not character.isspace() and _count_words(text, f"{character}.") == 1

    @lru_cache(maxsize=1 << 16)
    def ends_signs(character: str) -> bool:
        return _count_words(text, f".{character}") == 2

    def may_cut(whole: str, at: int) -> bool:
        before, after = whole[at - 1], whole[at]
        if after in _SPACES:
            behind = whole[at + 1 : at + 2]
            return not before.isspace() or bool(behind and not behind.isspace())
        return before != "'" and is_sign(before) and not after.isspace() and ends_signs(after)

    return may_cut


def _count_words(text: tokenizers.Tokenizer, part: str) -> int:
    """Words that the library itself sees: its version of Unicode and Python's differ on which characters are signs."""
    normal = text.normalizer.normalize_str(part) if text.normalizer else part
    return len(text.pre_tokenizer.pre_tokenize_str(normal))


def _holds(rule: MayCut, text: tokenizers.Tokenizer) -> bool:
    """Whether the rule's cuts of some short texts give the ids of these texts. Takes some milliseconds."""
    wholes = [f"ab{''.join(middle)}cd" for middle in product(_PROBES, _PROBES)]
    cuts = [(whole, at) for whole in wholes for at in range(1, len(whole)) if rule(whole, at)]
    encode = {part: text.encode(part).ids for whole, at in cuts for part in (whole, whole[:at], whole[at:])}
    return all(encode[whole[:at]] + encode[whole[at:]] == encode[whole] for whole, at in cuts)
