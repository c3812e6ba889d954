"""A task: what is asked of items, how, and how answers are judged. Values only: it reads no file by itself."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from infra.errors import UserError
from pipelines.questions.generation import Generation
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is asked."""

    id: str
    """Unique in its split."""
    fields: Mapping[str, str]
    """What patterns show."""
    gold: str | None = None
    """The label, or the number of the right candidate; None in a split without labels."""
    golds: tuple[int, ...] = ()
    """Numbers of all right candidates, where there are several; `gold` is the first of them."""
    candidates: tuple[str, ...] = ()
    """What the model chooses among, where that differs from item to item."""
    group: str = ""
    """Items of one group, such as the questions about a passage, are drawn together by the bootstrap."""
    words: int | None = None
    """How many words a text has that is read, where its file counts others than the text shows."""
    joint: str = ""
    """Items of one name are judged together, such as the answers to a question."""
    blanks: tuple[str, ...] = ()
    """The right text of each blank, where the item's text has several of them; there are no candidates then."""
    source: str = ""
    """What a metric compares the answer with besides, where one does: the sentence that is simplified, the passage."""


Kind = Literal["choose", "write", "read", "generate"]
"""What a model does with a question (`Task`)."""
Baseline = Callable[[Sequence[Item]], Callable[[Item], tuple[str, ...]] | None]
"""Items of the train split, maybe none -> what it writes into each mask of an item; None: it needs more items."""


@dataclass(frozen=True)
class Task:
    """What a model is asked, and how its answers are judged.

    kind: `choose` among candidates for the mask; `write` the first candidate by itself, or rate it above the others,
    token by token; `read` candidate texts from left to right and take the likeliest; `generate` a text until its end,
    which is compared with the candidates: the right ones.
    """

    name: str
    version: int
    """Raised whenever a rendered item changes."""
    kind: Kind
    patterns: tuple[Pattern, ...]
    item: Callable[[Row], Item]
    """The item of a row. Raises ValueError, in the user's words, for a row that is none."""
    unpack: Callable[[Row], Iterable[Row]] | None = None
    """A row for each item, where rows of the published files hold several. Raises as `item`."""
    train_items: Callable[[Item], Iterable[Item]] | None = None
    """What is learned from an item with a gold answer, where it is not the item itself."""
    metrics: tuple[str, ...] = ("accuracy",)
    """Names of metrics, the one that selects first."""
    labels: tuple[str, ...] = ()
    """In the order of classes; empty where the candidates are the item's own. A task that writes has two or none: the
    second is right where the candidate is written.
    """
    count_end: bool | None = None
    """Whether `[eop]` counts behind candidates. None: it does, unless every candidate is one token."""
    default_pattern: int = 0
    """That of the reference."""
    context: tuple[str, ...] = ()
    """Fields that were public before anything was asked of them, such as a passage of a newspaper."""
    taught_by: str = ""
    """Another task: who was fine-tuned on it may be asked this one."""
    stride: int = 0
    """Texts that are longer than the model are read in windows, which move on by so many tokens; 0: no text may be.
    By a pattern with the field `before`, what stands before a window is context; else it is a part of the blank.
    """
    zero_shot: bool = False
    """Whether nothing is learned from its items: one file is then not cut into splits."""
    generation: Generation | None = None
    """How answers are written, where the task generates."""
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    """What writes answers without a model, by name: of a task that generates."""

    def pattern(self, number: int | None = None) -> Pattern:
        """Raises UserError for a number that the task does not have."""
        number = self.default_pattern if number is None else number
        if not 0 <= number < len(self.patterns):
            raise UserError(
                f"the task {self.name} has no pattern {number}", try_=f"use one of 0 to {len(self.patterns) - 1}"
            )
        return self.patterns[number]

    @property
    def digest(self) -> str:
        """Hex sha256 of what decides a question: version, patterns, words and labels."""
        told = [self.name, self.version, self.kind, list(self.labels)]
        told += [[pattern.text, dict(pattern.words)] for pattern in self.patterns]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()

    def asked_parts(self, item: Item) -> tuple[str, ...]:
        """The texts that only who knows the task knows: the fields that patterns show, and the item's candidates."""
        shown = self._shown(item)
        own = (item.fields[name] for name in shown if name not in self.context)
        return (*own, *item.candidates, *item.blanks)

    def context_parts(self, item: Item) -> tuple[str, ...]:
        """The texts that were public before."""
        return tuple(item.fields[name] for name in self._shown(item) if name in self.context)

    def _shown(self, item: Item) -> list[str]:
        shown = {name for pattern in self.patterns for name in pattern.fields}
        return [name for name in item.fields if name in shown]

    def gold_index(self, item: Item) -> int | None:
        """The number of the right candidate. Raises ValueError for a label that is none of the task's or item's."""
        if item.gold is None:
            return None
        if item.blanks:
            return 0
        if not self.labels:
            if not item.gold.isdecimal() or int(item.gold) >= len(item.candidates):
                raise ValueError(
                    f"the label {item.gold!r} is not the number of one of {len(item.candidates)} candidates"
                )
            return int(item.gold)
        if item.gold not in self.labels:
            have = ", ".join(self.labels)
            raise ValueError(f"the label {item.gold!r} is not one of the task's: {have}")
        return self.labels.index(item.gold)

    def items(self, rows: Iterable[Row | BadRow]) -> Iterator[tuple[Row | BadRow, Item | BadRow]]:
        """(row, its item) in their order; a row that is none, or has an id for the second time, has a BadRow."""
        seen: set[str] = set()
        for row in self._unpacked(rows):
            if isinstance(row, BadRow):
                yield row, row
                continue
            try:
                item = self.item(row)
                self.gold_index(item)
                if item.id in seen:
                    raise ValueError(f"the id {item.id!r} was there before")
            except ValueError as error:
                yield row, BadRow(row.url, row.line, str(error))
                continue
            seen.add(item.id)
            yield row, item

    def _unpacked(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        for row in rows:
            if self.unpack is None or isinstance(row, BadRow):
                yield row
                continue
            try:
                several = list(self.unpack(row))
            except ValueError as error:
                several = [BadRow(row.url, row.line, str(error))]
            yield from several


def take(row: Row, *names: str) -> tuple[str, ...]:
    """Fields of a row by their names. Raises ValueError that names those which exist."""
    if missing := [name for name in names if name not in row.fields]:
        raise ValueError(f"no field {missing[0]!r}, but {', '.join(sorted(row.fields)) or 'none'}")
    return tuple(row.fields[name] for name in names)


def words_for(labels: Sequence[str]) -> dict[str, str]:
    """Label words made of the names of labels: "Sci/Tech" -> "sci tech". Raises ValueError where names say nothing to a
    model, such as 0 and 1.
    """
    words = {
        label: " ".join(label.replace("_", " ").replace("-", " ").replace("/", " ").split()).lower() for label in labels
    }
    if dumb := [label for label, word in words.items() if not any(c.isalpha() for c in word)]:
        raise ValueError(f"the label {dumb[0]!r} is not a word that a model could write: give label words")
    if len({*words.values()}) < len(labels):
        raise ValueError(f"two labels would have the same word, of {', '.join(labels)}: give label words")
    return words
