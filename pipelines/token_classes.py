"""What objectives may know of a tokenizer: a few ids, and which tokens can end a sentence.

Plain numpy and small, so that it travels to every task. Sentence ends are found on tokens, for any tokenizer
(WordPiece, byte-level BPE, Unigram) and in any script with marks of its own (`sentence_marks`). The authors' rule is
that any token with a full stop, colon or semicolon ends a sentence; this one is not fooled by `3.5`, initials, `e.g.`,
common abbreviations, ordinals (`3. Oktober`) and, where tokens carry their spaces, web addresses. A mark that is
several tokens, as rare scripts are in a byte-level vocabulary of other languages, is not seen.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np

from glm_model.tokenizer import Tokenizer
from pipelines.sentence_marks import CLOSERS, END_MARKS, ETHIOPIC_WORDSPACE, FULL_STOPS, OPENERS, is_greek

# One bit per property of a token's surface form.
HARD_END = 1  # ends a sentence wherever it stands
SOFT_END = 2  # a full stop: depends on its neighbours
CLOSER = 4  # belongs to the sentence that it closes: quotation marks, brackets
NUMBER = 8
ORDINAL = 16  # a number of one or two digits: what precedes the full stop of an ordinal or of a list item
LETTER = 32  # a single letter: an initial, or a part of `e. g.`
ABBREVIATION = 64
GLUED = 128  # continues the word before it: no space in between
GREEK = 256  # a word of Greek letters, behind which `;` asks
SEMICOLON = 512
HALF_END = 1024  # ends a sentence where it stands twice

# fmt: off
_ABBREVIATIONS = frozenset([
    "mr", "mrs", "ms", "dr", "st", "prof", "sr", "jr", "vs", "etc", "no", "vol", "fig", "al", "ed", "eds", "inc",
    "ltd", "co", "corp", "rev", "gen", "col", "sgt", "capt", "lt", "cf", "ca", "approx", "dept", "est", "jan", "feb",
    "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "mt", "ft", "gov", "sen", "rep", "pres",
    "univ", "bzw", "usw", "evtl", "ggf", "vgl", "nr", "bd", "hrsg", "str", "mio", "mrd", "abs", "art", "mme", "mlle",
    "env", "av",
])
# fmt: on


@dataclass(frozen=True, slots=True)
class TokenClasses:
    """What each token of a vocabulary is."""

    cls: int
    """The id of `[CLS]`."""
    eos: int
    """The id of the end of a text."""
    masks: dict[str, int]
    """The id of each kind of mask ("mask", "smask", "gmask"), -1 where the tokenizer has none."""
    classes: np.ndarray
    """The bits above of every token, uint16 [V]."""

    @staticmethod
    def of(tokenizer: Tokenizer) -> "TokenClasses":
        special = tokenizer.special
        masks = {"mask": special.mask, "smask": special.smask, "gmask": special.gmask}
        return TokenClasses(special.cls, special.eos, masks, classify(tokenizer.surfaces()))


def classify(surfaces: list[str]) -> np.ndarray:
    """uint16 [V]: the class bits of every surface form, as `Tokenizer.surfaces` gives them: `##ing` or ` the`."""
    # Byte-level vocabularies hold "####" (a heading), but no "##ing": they cut between signs and letters.
    subwords = any(surface.startswith("##") and surface[2:3].isalpha() for surface in surfaces)
    return np.array([_bits(surface, subwords) for surface in surfaces], dtype=np.uint16)


def sentence_ends(tokens: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """bool [T]: True on the last token of every sentence, closing quotation marks and brackets included.

        tokens    Mr  .  Smith  paid  3  .  5  now  .  "  Then  he  left  ?  !
        end                                            x                     x

    `tokens` may hold many segments in a row. The end of a segment does not count as a sentence end: callers add it.
    """
    if len(tokens) == 0:
        return np.zeros(0, bool)
    here = classes[tokens].astype(np.uint16, copy=False)
    before = np.concatenate(([np.uint16(0)], here[:-1]))
    after = np.concatenate((here[1:], [np.uint16(0)]))
    soft = (here & SOFT_END) > 0
    part_of_number = ((before & NUMBER) > 0) & ((after & NUMBER) > 0)
    shortened = (before & (LETTER | ABBREVIATION | ORDINAL)) > 0
    mid_word = (after & GLUED) > 0
    ellipsis = (after & SOFT_END) > 0
    asks = ((here & SEMICOLON) > 0) & ((before & GREEK) > 0)
    twice = (here & before & HALF_END) > 0
    end = ((here & HARD_END) > 0) | asks | twice | (soft & ~part_of_number & ~shortened & ~mid_word & ~ellipsis)
    for _ in range(2):  # ." and .") : the end moves to the closer
        moved = np.concatenate(([False], end[:-1])) & ((here & CLOSER) > 0)
        end = (end & ~np.concatenate((moved[1:], [False]))) | moved
    return end & ~np.concatenate((end[1:], [False]))  # ?! and a full stop before a line break are one end


def _bits(surface: str, subwords: bool) -> int:
    """Class bits of one surface form; in a WordPiece vocabulary `##` glues, in the others a missing space does."""
    glued = surface.startswith("##") if subwords else not surface[:1].isspace()
    text = surface.removeprefix("##") if subwords else surface
    word = text.strip()
    if not word:
        return HARD_END if "\n" in text else 0
    part_of_word = glued and subwords
    # Byte-level vocabularies hold `."`, `).` and `。「` as one token, and vowel signs with the full stop behind them.
    core = word.rstrip(OPENERS).strip(CLOSERS)
    core = core if core.isascii() else "".join(c for c in core if not unicodedata.category(c).startswith("M"))
    bits = 0
    if core[-1:] in END_MARKS or core.endswith(2 * ETHIOPIC_WORDSPACE) or "\n" in text:
        bits |= HARD_END
    elif core and FULL_STOPS.issuperset(core):
        bits |= SOFT_END
    elif core == ETHIOPIC_WORDSPACE:
        bits |= HALF_END
    elif core == ";":
        bits |= SEMICOLON
    if not word.strip(CLOSERS) and (glued or subwords):  # behind a space it opens
        bits |= CLOSER
    if word.isdigit():
        bits |= NUMBER | (ORDINAL if len(word) <= 2 and not part_of_word else 0)
    if len(word) == 1 and word.isalpha() and word.isascii() and not part_of_word:
        bits |= LETTER
    if is_greek(word[-1]) and (len(word) > 1 or glued):
        bits |= GREEK
    if word.lower() in _ABBREVIATIONS and not part_of_word:
        bits |= ABBREVIATION
    # Where spaces are tokens' first characters, punctuation is glued as a rule: only letters and digits tell mid-word.
    if glued and word[0].isalnum() and word[0].isascii():
        bits |= GLUED
    return bits
