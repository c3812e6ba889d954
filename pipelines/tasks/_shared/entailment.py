"""What RTE, CB and the diagnostics share: a premise, a hypothesis, and the authors' patterns for both."""

from collections.abc import Mapping

from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take


def patterns(words: Mapping[str, str], *, last: str, last_words: Mapping[str, str]) -> tuple[Pattern, ...]:
    """Patterns 0 to 4 of the authors' tasks/superglue/pvp.py; the last one asks a question in words."""
    common = (
        '"{hypothesis~}" ? {mask}, "{premise~}"',
        "{hypothesis~}? {mask}, {premise~}",
        '"{hypothesis~}" ? {mask}. "{premise~}"',
        "{hypothesis~}? {mask}. {premise~}",
    )
    return (*(Pattern(text, words) for text in common), Pattern(last, last_words))


def item(row: Row) -> Item:
    premise, hypothesis, idx = take(row, "premise", "hypothesis", "idx")
    return Item(id=idx, fields=fields(premise, hypothesis), gold=row.fields.get("label") or None)


def fields(premise: str, hypothesis: str) -> dict[str, str]:
    """The hypothesis loses its final mark, as in the authors' code."""
    return {"premise": premise, "hypothesis": hypothesis.rstrip().rstrip(".,;:!?")}
