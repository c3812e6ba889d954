"""What multiple choice shares: candidates that continue a text, and are judged by their sum, per token and per byte."""

from collections.abc import Sequence

from pipelines.questions.pattern import Pattern
from pipelines.questions.task import Item

METRICS = ("accuracy", "accuracy_per_token", "accuracy_per_byte")
PATTERNS = (Pattern("{~before}{mask}{behind}"), Pattern("{~before}{gmask}{behind}"))
"""The authors' form of zero-shot multiple choice asks for [MASK]; long texts continue [gMASK] in pretraining."""
_JOINED = ",.;:!?)]}\"'-"  # what begins so stands without a blank behind the text before it


def item(
    id_: str, before: str, candidates: Sequence[str], gold: int | None, *, behind: str = "", group: str = ""
) -> Item:
    """A question whose candidates fill the place between two texts. Equal candidates are right together.

    Raises ValueError for fewer than two candidates, an empty one, and a right one that is not there.
    """
    texts = tuple(candidate.strip() for candidate in candidates)
    if len(texts) < 2 or not all(texts):
        raise ValueError(f"expected at least two candidates, each a text, got {list(candidates)!r:.80}")
    if gold is not None and not 0 <= gold < len(texts):
        raise ValueError(f"the right candidate is number {gold} of {len(texts)}")
    golds = () if gold is None else tuple(n for n, text in enumerate(texts) if text == texts[gold])
    begins_word = before != "" and not before[-1].isspace()
    return Item(
        id=id_,
        fields={"before": before, "behind": behind},
        gold=str(golds[0]) if golds else None,
        golds=golds if len(golds) > 1 else (),
        candidates=tuple(f" {text}" if begins_word and text[0] not in _JOINED else text for text in texts),
        group=group,
    )


def number(label: str, *, of: str = "label") -> int | None:
    """The number of a right candidate as a file writes it; None where it is empty."""
    if not label:
        return None
    if not label.isdecimal():
        raise ValueError(f"{of}={label!r:.40} is not the number of a candidate")
    return int(label)
