"""A question: an item as tokens, laid out by `glm_model.layout`, that shows what a pattern says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from glm_model import layout
from glm_model.tokenizer import Tokenizer
from infra.errors import DataError
from pipelines.questions.generation import Generation
from pipelines.questions.pattern import BREAK, Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Kind, Task

Overlong = Literal["cut", "skip", "error"]
"""What becomes of an item that is longer than the model: cut as its pattern says, or no question, with a reason."""


@dataclass(frozen=True)
class Windows:
    """How a text is read that may be longer than the model."""

    stride: int
    """Tokens by which a window moves on."""
    bidirectional: bool
    """Whether what stands before a window is context, or a part of the blank that is not scored."""


@dataclass(frozen=True)
class Question:
    """What a model is asked about an item."""

    item: Item
    text: str
    """As it is shown, with its mask."""
    answers: tuple[str, ...]
    """The candidates as they are written."""
    prompt: layout.Prompt
    """Without a mask where a classification head reads."""
    candidates: tuple[np.ndarray, ...]
    """Tokens of each candidate, int32 [n], without `[eop]`; of several masks one after the other. None for a head,
    which chooses among the task's labels, and where a text is generated that nobody knows.
    """
    count_end: bool
    """Whether `[eop]` counts. By default not where every candidate is one token, as in the authors' cloze tasks."""
    gold: int | None
    """Number of the right candidate, or label."""
    cut: int
    """Tokens that the context lacks because it was too long."""
    kind: Kind = "choose"
    """As the task's."""
    windows: Windows | None = None
    """How the one candidate of a task that reads is read; None: in one pass."""
    has_labels: bool = False
    """Whether `gold` is a label of the task, and not the number of one of the item's own candidates."""
    generation: Generation | None = None
    """As the task's."""
    pieces: tuple[int, ...] = ()
    """Tokens of the one candidate for each mask, where there are several masks."""
    fills: bool = False
    """Whether the whole text with its masks filled is what is judged, and not the one text that is written."""
    target_cut: tuple[int, ...] = ()
    """Tokens that each candidate lacks because it is longer than what is written, or than the model; (): none."""

    @property
    def learned(self) -> int:
        """Number of the candidate that a model learns: the right one, or the one that is to be written."""
        return 0 if self.kind == "write" else self.gold or 0

    @property
    def is_single(self) -> bool:
        """Whether all candidates are predicted at one place: each is one token whose end does not count."""
        return not self.count_end and all(len(candidate) == 1 for candidate in self.candidates)

    @property
    def has_mask(self) -> bool:
        """Whether the model writes; else a classification head reads."""
        return len(self.prompt.mask_positions) > 0

    @property
    def positions(self) -> int:
        """Positions that the context and all candidates take, the context counted once; where a text is generated, at
        least those of the beams that are written.
        """
        context, masks = len(self.prompt.tokens), len(self.prompt.mask_positions)
        known = context + sum(len(candidate) + max(masks, 1) for candidate in self.candidates)
        if self.generation is None:
            return known
        return max(known, self.generation.beams * (context + masks * (self.generation.max_tokens + 1)))

    def of_each_mask(self, candidate: int) -> list[np.ndarray]:
        """The tokens of a candidate that stand in place of each mask."""
        tokens = self.candidates[candidate]
        return np.split(tokens, np.cumsum(self.pieces)[:-1]) if self.pieces else [tokens]


def ask(
    task: Task,
    pattern: Pattern,
    item: Item,
    tokenizer: Tokenizer,
    *,
    positions: int,
    overlong: Overlong = "cut",
    learns: bool = False,
) -> Question:
    """The question about an item. positions: rows of the model's position tables; learns: whether it is to be learned
    from, so that texts longer than what is written are cut.

    Raises ValueError for an item that lacks a field, for a candidate without tokens or longer than the model, for a
    context that is too long and may not be cut, and for masks that are not as many as their answers. Raises UserError
    where a task generates longer texts than the model may.
    """
    if missing := [name for name in pattern.fields if name not in item.fields]:
        raise ValueError(f"no field {missing[0]!r}, but {', '.join(item.fields) or 'none'}")
    answers = item.candidates or tuple(pattern.words[label] for label in task.labels)
    text, context, cut = _shown(task, pattern, item, tokenizer, positions, overlong)
    prompt, asked, windows = layout.Prompt(context, np.empty(0, np.int64)), _Asked(()), None
    generation = task.generation
    if pattern.has_mask:
        special = tokenizer.special
        masks = tuple(mask for mask in (special.mask, special.smask, special.gmask) if mask >= 0)
        prompt = layout.prompt(context, masks=masks)
        if task.stride:
            windows = Windows(task.stride, "before" in pattern.fields)
            asked = _Asked((_whole(tokenizer, answers),))
        elif generation:
            generation = generation.within(positions - 1)  # [sop] has a position too
            asked = _generated(generation, item, tokenizer, text, prompt, positions, learns=learns)
        else:
            asked = _Asked(_candidates(tokenizer, text, answers, positions))
    # The end of a text that was cut is not its end.
    count_end = any(len(one) > 1 for one in asked.candidates) if task.count_end is None else task.count_end
    return Question(
        item=item,
        text=text,
        answers=answers,
        prompt=prompt,
        candidates=asked.candidates,
        count_end=count_end and not (learns and asked.cut),
        gold=task.gold_index(item),
        cut=cut,
        kind=task.kind,
        windows=windows,
        has_labels=bool(task.labels),
        generation=generation,
        pieces=asked.pieces,
        fills=pattern.has_blanks,
        target_cut=asked.cut,
    )


def _shown(
    task: Task, pattern: Pattern, item: Item, tokenizer: Tokenizer, positions: int, overlong: Overlong
) -> tuple[str, np.ndarray, int]:
    """(the text that is shown, its tokens, how many it lacks)."""
    most = positions
    if task.generation and task.generation.max_source:
        most = min(positions, task.generation.max_source)
    text = pattern.render(item.fields)
    whole = _context(pattern, tokenizer, text)
    if len(whole) <= most:
        return text, whole, 0
    shorter = pattern.shorten(item.fields, lambda one: len(_context(pattern, tokenizer, one)) <= most)
    if overlong != "cut" or shorter is None:
        limit = "the model has" if most == positions else "task.generation.max_source allows"
        raise ValueError(f"{len(whole):,} tokens, and {limit} {most:,} positions")
    context = _context(pattern, tokenizer, shorter)
    return shorter, context, len(whole) - len(context)


class _Asked(NamedTuple):
    """The tokens of candidates, of one for each mask how many, and how many tokens each lacks, where one lacks any."""

    candidates: tuple[np.ndarray, ...]
    pieces: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()


def _generated(
    generation: Generation,
    item: Item,
    tokenizer: Tokenizer,
    text: str,
    prompt: layout.Prompt,
    positions: int,
    *,
    learns: bool,
) -> _Asked:
    """What is right to write: a text for each of several masks, or several texts for one mask."""
    masks = len(prompt.mask_positions)
    if item.blanks:
        if len(item.blanks) != masks:
            raise ValueError(f"the text has {masks} masks and {len(item.blanks)} answers: give one for each mask")
        pieces = tokenizer.encode_answers(text, list(item.blanks))
        for answer, tokens in zip(item.blanks, pieces, strict=True):
            if not 0 < len(tokens) < positions:
                raise ValueError(
                    f"the answer {answer!r:.60} has {len(tokens):,} tokens: expected 1 to {positions - 1:,}"
                )
        return _Asked((np.concatenate(pieces),), tuple(map(len, pieces)) if masks > 1 else ())
    if masks > 1 and item.candidates:
        raise ValueError(f"the text has {masks} masks and one answer: give one for each mask")
    whole = [tokenizer.encode_answers(text, [answer])[0] for answer in item.candidates]
    if empty := [answer for answer, tokens in zip(item.candidates, whole, strict=True) if not len(tokens)]:
        raise ValueError(f"the target {empty[0]!r:.60} has no tokens")
    most = min(generation.max_tokens, positions - 1) if learns else positions - 1
    cut = tuple(max(0, len(one) - most) for one in whole)
    return _Asked(tuple(one[:most] for one in whole), cut=cut if any(cut) else ())


def _candidates(tokenizer: Tokenizer, text: str, answers: Sequence[str], positions: int) -> tuple[np.ndarray, ...]:
    candidates = tuple(tokenizer.encode_answers(text, [answer])[0] for answer in answers)
    for answer, tokens in zip(answers, candidates, strict=True):
        if not 0 < len(tokens) < positions:
            raise ValueError(
                f"the candidate {answer!r:.60} has {len(tokens):,} tokens: expected 1 to {positions - 1:,}"
            )
    return candidates


def _whole(tokenizer: Tokenizer, answers: Sequence[str]) -> np.ndarray:
    """The tokens of a text of any length."""
    (text,) = answers
    tokens = tokenizer.encode(text)
    if not len(tokens):
        raise ValueError("the text has no tokens")
    return tokens


def _context(pattern: Pattern, tokenizer: Tokenizer, text: str) -> np.ndarray:
    """[CLS] + text + eos; without eos where nothing follows `[gMASK]`, as in pretraining's documents. Texts that a
    classification head reads have an eos each: no mask is looked for in them.
    """
    special = tokenizer.special
    if not pattern.has_mask:
        parts = [np.append(tokenizer.encode(part), special.eos) for part in text.split(BREAK)]
        return np.concatenate([[special.cls], *parts]).astype(np.int64)
    end = [] if text.endswith("[gMASK]") else [special.eos]
    return np.concatenate([[special.cls], tokenizer.encode_prompt(text), end]).astype(np.int64)


def ask_all(
    task: Task,
    rows: Iterable[Row | BadRow],
    tokenizer: Tokenizer,
    *,
    positions: int,
    overlong: Overlong = "cut",
    pattern: Pattern | None = None,
    learns: bool = False,
) -> Iterator[Question | BadRow]:
    """The questions about the items of rows, in their order; a row without a question is a BadRow with the reason.

    pattern: by default the task's own. learns: ask what the task learns from items with a gold answer. Raises
    DataError for an overlong item where those are refused.
    """
    pattern = pattern or task.pattern()
    for row, item in task.items(rows):
        if isinstance(item, BadRow):
            yield item
            continue
        several = task.train_items(item) if learns and task.train_items and item.gold is not None else (item,)
        for one in several:
            try:
                yield ask(task, pattern, one, tokenizer, positions=positions, overlong=overlong, learns=learns)
            except ValueError as error:
                if overlong == "error":
                    raise DataError(f"{row.place}: {error}", try_="--task.overlong=cut, or skip") from error
                yield BadRow(row.url, row.line, str(error))
