"""WikiSplit: write a long sentence as two.

Data: WikiSplit's train.tsv, tune.tsv, validation.tsv and test.tsv, which have no header: a sentence, a tab, and two
sentences with <::::> between them; CC BY-SA 4.0. `tune` is a split of its own.
Paper: Botha et al. (EMNLP 2018). Metrics: SARI, BLEU by sacrebleu, the share of texts that are two sentences, ROUGE,
chrF, and bits per byte of the right sentences.
"""

from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows
from pipelines.questions.task import Item, take
from pipelines.tasks._shared import texts

VERSION = 1
KIND = "generate"
METRICS = ("sari", "sacrebleu", "two_sentences", "rougeLsum", "chrf", "bits_per_byte")
PATTERNS = (Pattern("{source~} {mask}"), Pattern("{mask} Content: {source~}"))
PATTERN_NAMES = {"append": 0, "front": 1}
BASELINES = texts.BASELINES
train_items = texts.one_for_each
_FILES = {"train": "train", "tune": "tune", "validation": "dev", "test": "test"}
_BETWEEN = "<::::>"


def find_splits(data: str) -> dict[str, str]:
    """Raises DataError where there is none of WikiSplit's files."""
    if not storage.exists(data):
        raise DataError(f"{data} does not exist", try_="give WikiSplit's folder as task.data")
    files = {info.path.split(".")[0]: info.url for info in storage.list_files(data) if kind_of(info.path) == "tsv"}
    found = {split: files[name] for name, split in _FILES.items() if name in files}
    if not found:
        raise DataError(
            f"{data} holds no splits",
            why=f"WikiSplit's are {', '.join(f'{name}.tsv' for name in _FILES)}",
            try_="name the files: --task.splits='{train: <file>, dev: <file>}'",
        )
    return found


def read(url: str) -> Iterator[Row | BadRow]:
    return read_rows(url, columns=("source", "target"))


def item(row: Row) -> Item:
    """Raises ValueError where the target is not two sentences."""
    source, target = take(row, "source", "target")
    several = [one.strip() for one in target.split(_BETWEEN)]
    if len(several) != 2 or not all(several):
        raise ValueError(f"the target needs {_BETWEEN} once, between two sentences, and has {len(several)} parts")
    return texts.text_item(str(row.line), source, " ".join(several), is_compared=True)
