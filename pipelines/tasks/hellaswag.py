"""HellaSwag: which of four endings continues a description of an activity?

Data: the official JSON lines (hellaswag_val.jsonl), or text in which an item is six lines: "activity: context", the
number of the right ending, four endings; MIT.
Paper: Zellers et al. (ACL 2019). Official metric: accuracy; by the sum of log p, per token, and per byte of the ending.
"""

import json
import re
from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec
from pipelines.questions.nested import nested
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Item, take
from pipelines.tasks._shared import multiple_choice

VERSION = 1
COUNT_END = False
METRICS = multiple_choice.METRICS
PATTERNS = multiple_choice.PATTERNS
_LINES = 6
_MARKER = re.compile(r"\[.*?\]")  # [header], [step], [substeps] of the WikiHow half


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, lambda name: kind_of(name) or _is_text(name))


def read(url: str) -> Iterator[Row | BadRow]:
    if not _is_text(url):
        yield from read_rows(url)
        return
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        number, lines = 0, list[str]()
        for number, line in enumerate(stream, start=1):
            lines.append(line.decode(errors="replace").rstrip("\r\n"))
            if len(lines) == _LINES:
                context, label, *endings = lines
                fields = {"ctx": context, "label": label, "endings": json.dumps(endings), "ind": str(number // _LINES)}
                yield Row(url, number - _LINES + 1, fields)
                lines = []
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")
        if any(lines):
            yield BadRow(url, number - len(lines) + 1, f"{len(lines)} lines instead of {_LINES}")


def item(row: Row) -> Item:
    """Markers of sections go, as in text; the context begins with the activity."""
    context, number = take(row, "ctx", "ind")
    if activity := row.fields.get("activity_label"):
        context = f"{activity}: {context}"
    endings = [_without_markers(str(ending)) for ending in nested(row, "endings", list)]
    gold = multiple_choice.number(row.fields.get("label", ""))
    return multiple_choice.item(number, _without_markers(context), endings, gold)


def _without_markers(text: str) -> str:
    return " ".join(_MARKER.sub("", text.replace(" [title]", ".")).split())


def _is_text(url: str) -> bool:
    return without_codec(url).lower().endswith(".txt")
