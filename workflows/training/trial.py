"""Blanks of held-out text, on which a model is tried: a few passages that are shown, and words that are counted.

Counted is how many words a model writes exactly as they stood there, and which rank it gives them among others.
"""

import itertools
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glm_model import GLM, Decoding, Tokenizer, fill_batch, score_batch
from pipelines.store.format import Split

_WINDOW, _BLANK = 24, slice(12, 14)  # words of a passage, and those of its blank
_PASSAGES, _RANKED, OTHERS = 3, 100, 9
_MARGIN = 4  # words at both ends of a passage that stay
_LOOKED_AT = 5000  # passages: the first of the split
_AT_ONCE = 50  # texts that are filled side by side
_DECODING = Decoding(max_tokens=12)


@dataclass(frozen=True)
class Blanked:
    """A text with one [MASK], and what stood there."""

    text: str
    truth: str
    others: tuple[str, ...] = ()
    """Words of other blanks, which the truth is ranked among."""


@dataclass(frozen=True)
class Trial:
    """Blanks of held-out text."""

    passages: tuple[Blanked, ...]
    """With two words each, to be shown."""
    words: tuple[Blanked, ...]
    """With one word each, to be counted."""


@dataclass(frozen=True)
class Outcome:
    """What a model did with a trial."""

    written: tuple[str, ...]
    """Into the blanks of the passages."""
    right: float | None
    """Share of the words that it wrote exactly, in %. None: no words were asked for."""
    rank: float | None
    """Mean rank of the true word, from 1."""


def draw_trial(split: Split, tokenizer: Tokenizer, *, words: int = 500, seed: int = 0) -> Trial:
    """Blanks of a split's prose, drawn by the seed: at most so many words, and none where there is no prose."""
    rng = random.Random(seed)
    windows = list(itertools.islice(_windows(split, tokenizer), _LOOKED_AT))
    rng.shuffle(windows)
    passages = tuple(_blanked(units, glue, _BLANK) for units, glue in windows[:_PASSAGES])
    found: list[Blanked] = []
    for units, glue in windows[_PASSAGES : _PASSAGES + words]:
        place = rng.choice([place for place in range(_MARGIN, _WINDOW - _MARGIN) if units[place].isalpha()])
        found.append(_blanked(units, glue, slice(place, place + 1)))
    truths = sorted({one.truth for one in found})
    if len(truths) <= OTHERS:
        return Trial(passages, ())
    ranked = [
        Blanked(one.text, one.truth, tuple(rng.sample([other for other in truths if other != one.truth], OTHERS)))
        for one in found[:_RANKED]
    ]
    return Trial(passages, (*ranked, *found[_RANKED:]))


def try_model(model: GLM, tokenizer: Tokenizer, trial: Trial) -> Outcome:
    """Fill the blanks of a trial, each with what is likeliest token by token, and rank its words."""
    asked = [one.text for one in (*trial.passages, *trial.words)]
    written = [
        filled.blanks[0].text.strip()
        for first in range(0, len(asked), _AT_ONCE)
        for (filled,) in fill_batch(model, tokenizer, asked[first : first + _AT_ONCE], _DECODING)
    ]
    shown, words = written[: len(trial.passages)], written[len(trial.passages) :]
    if not words:
        return Outcome(tuple(shown), None, None)
    right = [answer == one.truth for answer, one in zip(words, trial.words, strict=True)]
    ranked = [one for one in trial.words if one.others]
    scores = score_batch(model, tokenizer, [one.text for one in ranked], [[one.truth, *one.others] for one in ranked])
    ranks = [1 + sum(other.logprob > first.logprob for other in rest) for first, *rest in scores]
    return Outcome(tuple(shown), 100 * statistics.fmean(right), statistics.fmean(ranks))


def _windows(split: Split, tokenizer: Tokenizer) -> Iterator[tuple[Sequence[str], str]]:
    """(words, what stands between them): the passages of a split that are prose."""
    for group in range(len(split.group_rows)):
        rows = split.read_group(group)
        for index in range(len(rows.ids)):
            text = tokenizer.decode(rows.tokens[rows.offsets[index] : rows.offsets[index + 1]])
            units, glue = text.split(), " "
            if len(text) > 20 * len(units):  # a script without spaces: signs
                units, glue = [sign for sign in text if not sign.isspace()], ""
            for first in range(0, len(units) - _WINDOW + 1, _WINDOW):
                window = units[first : first + _WINDOW]
                if sum(word.strip(".,;:!?()'\"").isalpha() for word in window) > 20:  # no table
                    yield window, glue


def _blanked(units: Sequence[str], glue: str, blank: slice) -> Blanked:
    text = glue.join((*units[: blank.start], "[MASK]", *units[blank.stop :]))
    return Blanked(text, glue.join(units[blank]))
