"""Blanks of held-out text, on which a model is tried: a few passages that are shown, and words that are counted.

Counted is how many words a model writes exactly as they stood there, and which rank it gives them among others.
"""

import itertools
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from glm_model import GLM, Decoding, Tokenizer, fill_batch, score_batch
from glm_model.tokenizer import PROMPT_MASKS
from pipelines.store.format import Split

_WINDOW, _BLANK = 24, slice(12, 14)  # words of a passage, and those of its blank
_PASSAGES, _RANKED, OTHERS = 3, 100, 9
_MARGIN = 4  # words at both ends of a passage that stay
_LOOKED_AT = 5000  # passages: the first ones
_AT_ONCE = 50  # texts that are filled side by side
_MOST_TOKENS = 12  # of a blank


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


def held_out_texts(split: Split, tokenizer: Tokenizer) -> Iterator[str]:
    """The segments of a split as text, in their order."""
    for group in range(len(split.group_rows)):
        rows = split.read_group(group)
        for first, last in itertools.pairwise(rows.offsets.tolist()):
            yield tokenizer.decode(rows.tokens[first:last])


def draw_trial(texts: Iterable[str], tokenizer: Tokenizer, *, positions: int, words: int = 500, seed: int = 0) -> Trial:
    """Blanks of prose, drawn by the seed: at most so many words, and none where there is no prose. positions: of the
    model, which all of it fits into.
    """
    rng = random.Random(seed)
    windows = list(itertools.islice(_windows(texts), _LOOKED_AT))
    rng.shuffle(windows)
    # [CLS] and an end stand around a text.
    fitting = (one for one in windows if len(tokenizer.encode(one[1].join(one[0]))) + 2 <= positions)
    passages = tuple(_blanked(units, glue, _BLANK) for units, glue in itertools.islice(fitting, _PASSAGES))
    found: list[Blanked] = []
    for units, glue in itertools.islice(fitting, words):
        places = [place for place in range(_MARGIN, _WINDOW - _MARGIN) if units[place].isalpha()]
        if places:  # words may all have commas
            place = rng.choice(places)
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
    decoding = Decoding(max_tokens=min(_MOST_TOKENS, model.config.positions))
    asked = [one.text for one in (*trial.passages, *trial.words)]
    written = [
        filled.blanks[0].text.strip()
        for first in range(0, len(asked), _AT_ONCE)
        for (filled,) in fill_batch(model, tokenizer, asked[first : first + _AT_ONCE], decoding)
    ]
    shown, words = written[: len(trial.passages)], written[len(trial.passages) :]
    if not words:
        return Outcome(tuple(shown), None, None)
    right = [answer == one.truth for answer, one in zip(words, trial.words, strict=True)]
    ranked = [one for one in trial.words if one.others]
    scores = score_batch(model, tokenizer, [one.text for one in ranked], [[one.truth, *one.others] for one in ranked])
    ranks = [1 + sum(other.logprob > first.logprob for other in rest) for first, *rest in scores]
    return Outcome(tuple(shown), 100 * statistics.fmean(right), statistics.fmean(ranks))


def _windows(texts: Iterable[str]) -> Iterator[tuple[Sequence[str], str]]:
    """(words, what stands between them): the passages of texts that are prose. Text may speak of masks: what does is
    left out, as it would be a prompt of several blanks.
    """
    for text in texts:
        units, glue = text.split(), " "
        if len(text) > 20 * len(units):  # a script without spaces: signs
            units, glue = [sign for sign in text if not sign.isspace()], ""
        for first in range(0, len(units) - _WINDOW + 1, _WINDOW):
            window = units[first : first + _WINDOW]
            is_prose = sum(word.strip(".,;:!?()'\"").isalpha() for word in window) > 20  # no table
            if is_prose and not PROMPT_MASKS.search(glue.join(window)):
                yield window, glue


def _blanked(units: Sequence[str], glue: str, blank: slice) -> Blanked:
    text = glue.join((*units[: blank.start], "[MASK]", *units[blank.stop :]))
    return Blanked(text, glue.join(units[blank]))
