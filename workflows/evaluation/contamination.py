"""How much of what a task asks a model may have read: its items, looked for in the text that the model was trained on.

The rule is that of `data.select.decontaminate`, over the documents of the cleaned text that went into the store: a run
of 50 bytes. What is asked (question, hypothesis, candidates) and public context, such as a passage of a newspaper, are
counted apart: who has read the passage knows no answer yet.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra import storage
from infra.console import Console, human_bytes
from infra.errors import UserError
from pipelines.metrics.items import is_judged
from pipelines.metrics.known import shown
from pipelines.metrics.scores import scores
from pipelines.selection.overlap import find_overlap, index_texts
from pipelines.stages import Runner
from pipelines.store.format import TokenStore
from pipelines.store_text import StoreText, find_text
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import stores_of
from workflows.evaluation.tasks import AskedTask

_AUTO_BYTES = 4 << 30  # of text
Looks = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Contamination:
    """What a model may have read of a task."""

    model: str
    task: str
    split: str
    pattern: int
    n: int
    """Items that are judged."""
    asked: float | None = None
    """Per cent of these of which something that is asked is in the text; None: not known."""
    context: float | None = None
    """Per cent of which public context is in the text; None also where the task has none."""
    too_short: int = 0
    """Items of which nothing that is asked is long enough to be found."""
    without: tuple[tuple[str, float, int], ...] = ()
    """(metric, its value, n) of the items of which nothing that is asked is in the text, where some is."""
    unknown: str = ""
    """Why nothing is known."""


@dataclass(frozen=True)
class Seen:
    """The items of a task, and what of them is in a text: ids [N], and bool arrays [N]."""

    ids: pa.Array
    asked: np.ndarray
    context: np.ndarray
    has_context: np.ndarray
    too_short: np.ndarray


def contamination_of(
    evaluated: Sequence[Evaluated], to: str, screen: Console, *, looks: Looks = "auto"
) -> list[Contamination]:
    """What each model may have read of each task. to: folder in which what was found is kept. Empty with looks=off."""
    known: dict[tuple[str, ...], Seen | str] = {}
    found = []
    for one in evaluated if looks != "off" else ():
        stores = stores_of(one.model)
        key = (one.asked.task.digest, one.asked.digest, *stores)
        if key not in known:
            known[key] = _look(one.asked, stores, to, screen, looks)
        found.append(_told(one, known[key]))
    return found


def contamination_rows(found: Iterable[Contamination]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) for a screen or a page, of what is known."""
    columns = ["model", "task", "pattern", "n", "asked, seen", "context, seen", "too short", "score without"]
    rows = []
    for one in found:
        if one.unknown:
            continue
        shares = ["-" if share is None else f"{share:.1f} %" for share in (one.asked, one.context)]
        without = ", ".join(f"{metric} {shown(metric, value)} (n={n:,})" for metric, value, n in one.without)
        rows.append(
            [one.model, f"{one.task} {one.split}", f"p{one.pattern}", one.n, *shares, one.too_short, without or "-"]
        )
    return columns, rows


def unknown_lines(found: Iterable[Contamination]) -> list[str]:
    """What is not known, a line for each model and reason."""
    lines = (f"{one.model}: whether it has seen items is not known, as {one.unknown}" for one in found if one.unknown)
    return list(dict.fromkeys(lines))


def _look(asked: AskedTask, stores: Sequence[str], to: str, screen: Console, looks: Looks) -> Seen | str:
    """What of the items is in the text of these stores; or why that is not known."""
    if not stores:
        return "no run tells which text it was trained on"
    texts: list[StoreText] = []
    for url in stores:
        text = _text_of(url)
        if isinstance(text, str):
            return text
        texts += text
    size = sum(text.num_bytes for text in texts)
    if looks == "auto" and size > _AUTO_BYTES:
        return f"its text has {human_bytes(size)}: --contamination=on looks through it"
    parts = _Parts(asked)
    index, is_long = index_texts(parts.texts())
    seen = np.zeros(len(is_long), bool)
    for text in texts:
        runner = Runner(lambda stage, results, total: _shown(screen, asked, results, total), map)
        seen[find_overlap(index, text.units, text.text, storage.join(to, "contamination"), runner)] = True
    return parts.seen(seen, is_long)


class _Parts:
    """The texts of all items, equal ones once, and which item each belongs to."""

    def __init__(self, asked: AskedTask) -> None:
        self._asked = asked
        self._numbers: dict[bytes, int] = {}
        self._ids: list[str] = []
        self._of_asked, self._of_context = (array("q"), array("q")), (array("q"), array("q"))  # items, their texts

    def texts(self) -> Iterator[str]:
        """Read the items; each text that was not there before."""
        task = self._asked.task
        for row, item in enumerate(self._asked.items()):
            self._ids.append(item.id)
            both = ((self._of_asked, task.asked_parts(item)), (self._of_context, task.context_parts(item)))
            for (rows, numbers), several in both:
                for text in several:
                    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
                    is_new = digest not in self._numbers
                    rows.append(row)
                    numbers.append(self._numbers.setdefault(digest, len(self._numbers)))
                    if is_new:
                        yield text

    def seen(self, seen: np.ndarray, is_long: np.ndarray) -> Seen:
        """What is known of each item. seen, is_long: of each text, whether it was found, and could be: bool [T]."""
        everything = np.ones(len(seen), bool)
        return Seen(
            ids=pa.array(self._ids, pa.string()),
            asked=self._any(self._of_asked, seen),
            context=self._any(self._of_context, seen),
            has_context=self._any(self._of_context, everything),
            too_short=~self._any(self._of_asked, is_long),
        )

    def _any(self, places: tuple[array, array], flags: np.ndarray) -> np.ndarray:
        """Whether a text of each item has the flag: bool [N]."""
        rows, numbers = (np.array(one, np.int64) for one in places)
        return np.bincount(rows, weights=flags[numbers], minlength=len(self._ids)) > 0


def _told(one: Evaluated, seen: Seen | str) -> Contamination:
    task = one.asked.task
    judged = one.items.filter(pa.array(is_judged(one.items)))
    places = {"model": one.model.name, "task": task.name, "split": one.asked.split, "pattern": one.pattern}
    if isinstance(seen, str) or not len(judged):
        return Contamination(**places, n=len(judged), unknown=seen if isinstance(seen, str) else "no gold answers")
    rows = pc.index_in(judged["item"], value_set=seen.ids).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    asked, has_context = seen.asked[rows], seen.has_context[rows]
    without: tuple[tuple[str, float, int], ...] = ()
    if asked.any():
        rest = scores(judged.filter(pa.array(~asked)), task.metrics, classes=len(task.labels))
        without = tuple((score.metric, score.value, score.n) for score in rest)
    return Contamination(
        **places,
        n=len(judged),
        asked=100.0 * float(asked.mean()),
        context=100.0 * float(seen.context[rows][has_context].mean()) if has_context.any() else None,
        too_short=int(seen.too_short[rows].sum()),
        without=without,
    )


def _text_of(store_url: str) -> list[StoreText] | str:
    """The texts of a store, of a mix those of its members; or why they are not known."""
    try:
        manifest = TokenStore.open(store_url).manifest
    except UserError:
        return f"its store {store_url} is gone"
    members = [member.url for member in manifest.members]
    found = [find_text(url, TokenStore.open(url).manifest) for url in members] or [find_text(store_url, manifest)]
    texts = [text for text in found if text is not None]
    return texts if len(texts) == len(found) else f"the cleaned text of its store {store_url} is gone"


def _shown(screen: Console, asked: AskedTask, results: Iterable[Any], total: int) -> Iterator[Any]:
    with screen.progress(f"look for {asked.task.name} in the training text", total) as live:
        for done, result in enumerate(results, start=1):
            live.update(done)
            yield result
