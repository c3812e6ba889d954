"""A question: an item as tokens, laid out by `glm_model.layout`, that shows what a pattern says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glm_model import layout
from glm_model.tokenizer import Tokenizer
from infra.errors import DataError
from pipelines.questions.pattern import BREAK, Pattern
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.task import Item, Task

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
    """Tokens of each candidate, int32 [n], without `[eop]`; none for a head, which chooses among the task's labels."""
    count_end: bool
    """Whether `[eop]` counts. By default not where every candidate is one token, as in the authors' cloze tasks."""
    gold: int | None
    """Number of the right candidate, or label."""
    cut: int
    """Tokens that the context lacks because it was too long."""
    kind: Literal["choose", "write", "read"] = "choose"
    """As the task's."""
    windows: Windows | None = None
    """How the one candidate of a task that reads is read; None: in one pass."""
    has_labels: bool = False
    """Whether `gold` is a label of the task, and not the number of one of the item's own candidates."""

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
        """Positions that the context and all candidates take, the context counted once."""
        return len(self.prompt.tokens) + sum(len(candidate) + 1 for candidate in self.candidates)


def ask(
    task: Task, pattern: Pattern, item: Item, tokenizer: Tokenizer, *, positions: int, overlong: Overlong = "cut"
) -> Question:
    """The question about an item. positions: rows of the model's position tables.

    Raises ValueError for an item that lacks a field, for a candidate without tokens or longer than the model, and for a
    context that is too long and may not be cut.
    """
    if missing := [name for name in pattern.fields if name not in item.fields]:
        raise ValueError(f"no field {missing[0]!r}, but {', '.join(item.fields) or 'none'}")
    answers = item.candidates or tuple(pattern.words[label] for label in task.labels)
    text = pattern.render(item.fields)
    whole = _context(pattern, tokenizer, text)
    context = whole
    if len(whole) > positions:
        shorter = pattern.shorten(item.fields, lambda one: len(_context(pattern, tokenizer, one)) <= positions)
        if overlong != "cut" or shorter is None:
            raise ValueError(f"{len(whole):,} tokens, and the model has {positions:,} positions")
        text, context = shorter, _context(pattern, tokenizer, shorter)
    prompt, candidates, windows = layout.Prompt(context, np.empty(0, np.int64)), (), None
    if pattern.has_mask:
        special = tokenizer.special
        masks = tuple(mask for mask in (special.mask, special.smask, special.gmask) if mask >= 0)
        prompt = layout.prompt(context, masks=masks)
        if task.stride:
            windows = Windows(task.stride, "before" in pattern.fields)
            candidates = (_whole(tokenizer, answers),)
        else:
            candidates = _candidates(tokenizer, text, answers, positions)
    return Question(
        item=item,
        text=text,
        answers=answers,
        prompt=prompt,
        candidates=candidates,
        count_end=any(len(one) > 1 for one in candidates) if task.count_end is None else task.count_end,
        gold=task.gold_index(item),
        cut=len(whole) - len(context),
        kind=task.kind,
        windows=windows,
        has_labels=bool(task.labels),
    )


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
                yield ask(task, pattern, one, tokenizer, positions=positions, overlong=overlong)
            except ValueError as error:
                if overlong == "error":
                    raise DataError(f"{row.place}: {error}", try_="--task.overlong=cut, or skip") from error
                yield BadRow(row.url, row.line, str(error))
