"""MMLU: questions of 57 subjects with four options, of which the model writes the letter. No examples are shown.

Data: the official folders dev, val, test, a CSV file for each subject without a header (question, A, B, C, D, answer);
MIT. `val` is the split dev; the official dev, five rows of each subject to be shown as examples, is the split examples.
Paper: Hendrycks et al. (ICLR 2021), with the words of its evaluation. Official metric: accuracy over all questions.
Subjects are groups.
"""

from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows
from pipelines.questions.task import Item, take

VERSION = 1
LABELS = ("A", "B", "C", "D")
ZERO_SHOT = True
_WORDS = {letter: letter for letter in LABELS}
_OPTIONS = "A. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer: {mask}"
_HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
PATTERNS = (
    Pattern(_HEADER + "{~question}\n" + _OPTIONS, _WORDS),
    Pattern("Question: {~question}\n" + _OPTIONS, _WORDS),
)
_FOLDERS = {"examples": "dev", "dev": "val", "test": "test"}


def find_splits(data: str) -> dict[str, str]:
    found = {split: storage.join(data, folder) for split, folder in _FOLDERS.items()}
    found = {split: url for split, url in found.items() if storage.exists(url)}
    if not found:
        raise DataError(f"{data} has none of the folders {', '.join(_FOLDERS.values())}", try_="change task.data")
    return found


def read(url: str) -> Iterator[Row | BadRow]:
    """The rows of all subjects of a folder."""
    for info in sorted(storage.list_files(url), key=lambda info: info.path):
        if kind_of(info.path) != "csv":
            continue
        subject = info.path.split(".")[0].rpartition("_")[0]
        for row in read_rows(storage.join(url, info.path), columns=("question", *LABELS, "answer")):
            yield Row(row.url, row.line, {**row.fields, "subject": subject}) if isinstance(row, Row) else row


def item(row: Row) -> Item:
    """Equal options are right together."""
    subject, answer, question, *options = take(row, "subject", "answer", "question", *LABELS)
    fields = {name: text.strip() for name, text in zip(LABELS, options, strict=True)}
    answer = answer.strip()
    golds = [number for number, name in enumerate(LABELS) if answer in LABELS and fields[name] == fields[answer]]
    return Item(
        id=f"{subject}/{row.line}",
        fields={"subject": subject.replace("_", " "), "question": question.strip(), **fields},
        gold=LABELS[golds[0]] if golds else answer or None,
        golds=tuple(golds) if len(golds) > 1 else (),
        group=subject,
    )
