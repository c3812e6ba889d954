"""PIQA: which of two ways reaches an everyday goal?

Data: the official files, valid.jsonl with valid-labels.lst beside it (and train); AFL 3.0.
Paper: Bisk et al. (AAAI 2020). Official metric: accuracy; by the sum of log p, per token, and per byte of the solution.
"""

import itertools
from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Item, take
from pipelines.tasks._shared import multiple_choice

VERSION = 1
COUNT_END = False
METRICS = multiple_choice.METRICS
PATTERNS = multiple_choice.PATTERNS


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, kind_of)


def read(url: str) -> Iterator[Row | BadRow]:
    """Rows with the label of the same line. Raises DataError where there are more or fewer labels than rows."""
    labels_url = f"{url.removesuffix('.jsonl')}-labels.lst"
    if not storage.exists(labels_url):
        yield from read_rows(url)
        return
    labels = storage.read_bytes(labels_url).decode().split()
    for number, (row, label) in enumerate(itertools.zip_longest(read_rows(url), labels), start=1):
        if row is None or label is None:
            raise DataError(
                f"{labels_url} has {len(labels):,} labels, and {url} has {'fewer' if row is None else 'more'} rows",
                why=f"row and label {number:,} do not belong together",
                try_="copy or download both again",
            )
        yield Row(row.url, row.line, {**row.fields, "label": label}) if isinstance(row, Row) else row


def item(row: Row) -> Item:
    goal, first, second = take(row, "goal", "sol1", "sol2")
    gold = multiple_choice.number(row.fields.get("label", ""))
    return multiple_choice.item(str(row.line), f"Question: {goal.strip()}\nAnswer:", (first, second), gold)
