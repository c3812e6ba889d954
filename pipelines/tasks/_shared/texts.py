"""What tasks share that write a text for a text: their items, and what costs nothing to write."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipelines.document import content_key
from pipelines.questions.rows import as_text
from pipelines.questions.task import Baseline, Item
from pipelines.sentence_marks import sentences

METRICS = ("rougeLsum", "rouge1", "rouge2", "rougeL", "sacrebleu", "chrf", "bits_per_byte")
_BREAK = "<S_SEP>"  # between the sentences of CNN/DM's highlights, as their preparation writes it


def text_item(id_: str, source: str, target: str | None, *, is_compared: bool = False) -> Item:
    """A text and what is to be written for it. source: a text, or a JSON list of its sentences; target: a text, or a
    JSON list of several right ones; None: nobody knows. is_compared: whether a metric reads the source.

    Raises ValueError for an empty source, and for a target without a text.
    """
    shown = " ".join(_several(source))
    if not shown:
        raise ValueError("the source is empty")
    targets = () if target is None else tuple(dict.fromkeys(_several(target)))
    if target is not None and not targets:
        raise ValueError("the target is empty")
    return Item(
        id=id_,
        fields={"source": shown},
        gold="0" if targets else None,
        golds=tuple(range(len(targets))) if len(targets) > 1 else (),
        candidates=targets,
        group=f"{content_key(shown):016x}",
        source=shown if is_compared else "",
    )


def one_for_each(item: Item) -> Iterator[Item]:
    """What is learned from an item: each of its right texts."""
    for number, target in enumerate(item.candidates):
        yield replace(item, id=f"{item.id}/{number}", golds=(), candidates=(target,))


def _copy(train: Sequence[Item]) -> Callable[[Item], tuple[str, ...]]:
    return lambda item: (item.fields["source"],)


def _first_sentence(train: Sequence[Item]) -> Callable[[Item], tuple[str, ...]]:
    return lambda item: (sentences(item.fields["source"])[0],)


BASELINES: dict[str, Baseline] = {"copy": _copy, "first sentence": _first_sentence}


def _several(text: str) -> list[str]:
    """The texts of a JSON list, or the one that is none; without outer blanks, and without empty ones."""
    texts = [text]
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            texts = listed
    return [one for one in (_clean(as_text(text)) for text in texts) if one]


def _clean(text: str) -> str:
    return "\n".join(part.strip() for part in text.split(_BREAK)).strip()
