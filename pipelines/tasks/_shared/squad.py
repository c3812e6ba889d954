"""What tasks of SQuAD's data share: a row for each question about a passage, and parts of passages.

Forms: the published JSON of versions 1.1 and 2.0 (data, paragraphs, qas); a JSON list of objects with `context`,
`question` and `answer`; or a table with `context`, `question`, and `answers` as JSON, such as Hugging Face's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec
from pipelines.document import content_key
from pipelines.questions.nested import part, parts
from pipelines.questions.rows import BadRow, Row, as_text, kind_of, read_rows
from pipelines.questions.splits import splits_by_words


class Answer(NamedTuple):
    """A right answer, as the passage spells it, and where it begins there."""

    text: str
    start: int


class Asked(NamedTuple):
    """A question about a passage."""

    id: str
    passage: str
    question: str
    answers: tuple[Answer, ...] | None
    """None: nobody knows; (): the passage does not say."""

    @property
    def group(self) -> str:
        return f"{content_key(self.passage):016x}"

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers, each spelling once."""
        return tuple(dict.fromkeys(answer.text for answer in self.answers or ()))


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, lambda name: kind_of(name) or None)


def read(url: str) -> Iterator[Row | BadRow]:
    """A row for each question, numbered in the order of the file. Raises DataError for JSON that is not SQuAD's."""
    if not without_codec(url).lower().endswith(".json"):
        yield from read_rows(url)
        return
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        content = b"".join(stream)
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")
    try:
        value = json.loads(content)
    except ValueError as error:
        raise DataError(f"cannot read {url}: {error}", try_="name a file of JSON lines .jsonl") from error
    rows = _listed(value) if isinstance(value, list) else _published(value)
    number = 0
    try:
        for number, fields in enumerate(rows, start=1):
            yield Row(url, number, {name: as_text(field) for name, field in fields.items()})
    except ValueError as error:
        raise DataError(f"{url} is not of SQuAD's form behind question {number}: {error}") from error


def asked(row: Row) -> Asked:
    """What a row asks. Raises ValueError for an empty passage or question, and for an answer that is not there."""
    fields = {name: row.fields.get(name, "") for name in ("context", "question")}
    if missing := [name for name, text in fields.items() if not text.strip()]:
        raise ValueError(f"{missing[0]} is empty" if missing[0] in row.fields else f"no field {missing[0]!r}")
    passage, known = fields["context"], _answers(row.fields)
    answers = None if known is None else tuple(_placed(passage, *answer) for answer in known)
    return Asked(row.fields.get("id") or str(row.line), passage, fields["question"].strip(), answers)


def windows(text: str, words: int) -> list[tuple[int, int]]:
    """Where windows of so many words begin and end in a text, in characters; each begins in the middle of the one
    before it, and the last one ends with the text.
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    step = max(words // 2, 1)
    firsts = range(0, max(len(spans) - words, 0) + step, step)
    ends = [min(first + words, len(spans)) for first in firsts]
    last = next(number for number, end in enumerate(ends) if end == len(spans))
    return [(spans[first][0], spans[end - 1][1]) for first, end in list(zip(firsts, ends, strict=True))[: last + 1]]


def around(text: str, start: int, end: int, words: int) -> str:
    """The part of a text of so many words in whose middle these characters stand."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    first = next(number for number, span in enumerate(spans) if span[1] > start)
    last = next((number for number, span in enumerate(spans) if span[1] >= end), len(spans) - 1)
    begin = max(0, min((first + last + 1 - words) // 2, len(spans) - words))
    return text[spans[begin][0] : spans[min(begin + words, len(spans)) - 1][1]]


def _published(value: Any) -> Iterator[dict[str, Any]]:
    for article in parts(value, "data", of="the file"):
        for paragraph in parts(article, "paragraphs", of="an article"):
            (context,) = part(paragraph, "context", of="a paragraph")
            for question in parts(paragraph, "qas", of="a paragraph"):
                yield {"context": context, **question}


def _listed(values: list[Any]) -> Iterator[dict[str, Any]]:
    for value in values:
        context, question = part(value, "context", "question", of="a question")
        yield {**value, "context": context, "question": question}


def _answers(fields: Mapping[str, str]) -> list[tuple[str, int]] | None:
    """(text, where it begins; -1: not told) of each answer; None where the row has none of these fields, or nothing in
    them. Raises ValueError for answers of another form.
    """
    if fields.get("is_impossible") == "true":
        return []
    if fields.get("answer"):
        return [(fields["answer"], -1)]
    if not fields.get("answers"):
        return None
    try:
        value = json.loads(fields["answers"])
    except ValueError:
        value = None
    if isinstance(value, dict):  # Hugging Face's: a list of texts and a list of places
        texts = parts(value, "text", of="answers")
        starts = parts(value, "answer_start", of="answers") if value.get("answer_start") else [-1] * len(texts)
        if len(starts) != len(texts):
            raise ValueError(f"answers: {len(texts)} texts and {len(starts)} places where they begin")
        return [_told(*pair) for pair in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise ValueError(f"answers: expected a JSON list, or lists of texts and places, got {fields['answers']!r:.60}")
    return [_told(part(one, "text", of="an answer")[0], one.get("answer_start")) for one in value]


def _told(text: Any, start: Any) -> tuple[str, int]:
    """A place that is no number is not told."""
    if not isinstance(text, str):
        raise ValueError(f"an answer: expected a text, got {text!r:.60}")
    return as_text(text), start if isinstance(start, int) else -1


def _placed(passage: str, text: str, start: int) -> Answer:
    """Without outer blanks; where its place is not told or not right, at the first one that there is."""
    text = text.strip()
    if not text:
        raise ValueError("an answer is empty")
    if start < 0 or passage[start : start + len(text)] != text:
        start = passage.find(text)
    if start < 0:
        raise ValueError(f"the answer {text!r:.60} is not in the passage")
    return Answer(text, start)
