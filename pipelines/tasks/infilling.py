"""Infilling: write what a text lacks, whatever the length of each of its blanks.

Data: yours. Rows with `text`, in which each [MASK] is a blank, and `answers`, a JSON list of a text for each; or texts
without masks, of a column or one in each line, of which words are drawn (`task.blanks`) and those side by side joined.
Paper: Shen et al. (EMNLP 2020), whose data are Yahoo's and Yelp's; as in Du et al. (ACL 2022) blanks are written from
left to right, each seen by those behind it. Metrics: exact match of blanks, BLEU of whole texts, bits per byte.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec
from pipelines.document import content_key
from pipelines.questions.config import BlanksConfig, TaskConfig
from pipelines.questions.generation import generation_of
from pipelines.questions.nested import nested
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row, as_text, kind_of, read_rows
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Baseline, Item, Task, take

VERSION = 1
METRICS = ("exact_match", "sacrebleu", "bits_per_byte")
READS = ("text", "id", "blanks")
PATTERNS = (Pattern("{*text}"),)
MASK = "[MASK]"
_OTHER_MASKS = re.compile(r"\[(?=[sg]MASK\])")


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, lambda name: kind_of(name) or without_codec(name).lower().endswith(".txt"))


def read(url: str) -> Iterator[Row | BadRow]:
    """The rows of a table; of any other file a row for each line."""
    if kind_of(url):
        yield from read_rows(url)
        return
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        for line, data in enumerate(stream, start=1):
            if not data.isspace():
                yield Row(url, line, {"text": data.decode(errors="replace").strip()})
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")


def define(config: TaskConfig, rows: Callable[[], Iterable[Row | BadRow]]) -> Task:
    def item(row: Row) -> Item:
        (text,) = take(row, config.text)
        (name,) = take(row, config.id) if config.id else (str(row.line),)
        if MASK in text or row.fields.get("answers"):
            return _given(name, row, text)
        return _drawn(name, text, config.blanks, 0)

    def train_items(item: Item) -> Iterator[Item]:
        """Each draw of its words; a text with masks of its own once."""
        yield item
        if item.fields["whole"]:
            for number in range(1, config.blanks.draws):
                yield replace(
                    _drawn(f"{item.id}/{number}", item.fields["whole"], config.blanks, number), group=item.group
                )

    return Task(
        name=config.name,
        version=VERSION,
        kind="generate",
        patterns=PATTERNS,
        item=item,
        train_items=train_items,
        metrics=METRICS,
        count_end=True,
        generation=generation_of(config.generation, max_tokens=32),
        baselines=BASELINES,
    )


def draw(text: str, ratio: float, key: str) -> tuple[str, tuple[str, ...]]:
    """(a text with [MASK] in place of some of its words, what stood there). ratio: the share of its words, at least one
    and not all; which ones follows from the text and the key alone.

    Raises ValueError for a text of fewer than two words.
    """
    words = text.split()
    if len(words) < 2:
        raise ValueError(f"the text {text!r:.60} needs two words: one to be asked for, and one beside it")
    count = min(max(1, int(len(words) * ratio)), len(words) - 1)
    keys = [content_key(f"{key} {number} {text}") for number in range(len(words))]
    drawn = {*sorted(range(len(words)), key=keys.__getitem__)[:count]}
    shown: list[str] = []
    blanks: list[str] = []
    for number, word in enumerate(words):
        if number not in drawn:
            shown.append(word)
        elif number - 1 in drawn:
            blanks[-1] += f" {word}"
        else:
            shown.append(MASK)
            blanks.append(word)
    return " ".join(shown), tuple(blanks)


def _drawn(name: str, text: str, blanks: BlanksConfig, number: int) -> Item:
    text = _OTHER_MASKS.sub("[ ", text)
    shown, answers = draw(text, blanks.ratio, f"{blanks.seed} {number}")
    fields = {"text": shown, "whole": text}
    return Item(id=name, fields=fields, gold="0", blanks=answers, group=f"{content_key(text):016x}")


def _given(name: str, row: Row, text: str) -> Item:
    masks = text.count(MASK)
    answers = [as_text(answer).strip() for answer in nested(row, "answers", list)] if row.fields.get("answers") else []
    if not masks:
        raise ValueError(f"the text has no {MASK}, and {len(answers)} answers")
    if answers and len(answers) != masks:
        raise ValueError(f"the text has {masks} of {MASK} and {len(answers)} answers: give one for each")
    if empty := [number for number, answer in enumerate(answers, start=1) if not answer]:
        raise ValueError(f"the answer {empty[0]} of {masks} is empty")
    shown = _OTHER_MASKS.sub("[ ", text)
    return Item(id=name, fields={"text": shown, "whole": ""}, gold="0" if answers else None, blanks=tuple(answers))


def _unigram(train: Sequence[Item]) -> Callable[[Item], tuple[str, ...]] | None:
    """The most frequent word, in each blank."""
    counts = Counter(word for item in train for word in _whole(item))
    if not counts:
        return None
    word = _commonest(counts)
    return lambda item: (word,) * item.fields["text"].count(MASK)


def _ngram(train: Sequence[Item]) -> Callable[[Item], tuple[str, ...]] | None:
    """In each blank the word that stands most often between its neighbours; where none does, behind the left one; else
    the most frequent one.
    """
    between: dict[tuple[str, str], Counter[str]] = {}
    behind: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for item in train:
        words = _whole(item)
        counts.update(words)
        for left, word, right in zip(["", *words], words, [*words[1:], ""], strict=False):
            between.setdefault((left, right), Counter())[word] += 1
            behind.setdefault(left, Counter())[word] += 1
    if not counts:
        return None

    def write(item: Item) -> tuple[str, ...]:
        words = ["", *item.fields["text"].replace(MASK, f" {MASK} ").split(), ""]
        places = [number for number, word in enumerate(words) if word == MASK]
        several = ((words[place - 1], words[place + 1]) for place in places)
        return tuple(_commonest(between.get(pair) or behind.get(pair[0]) or counts) for pair in several)

    return write


BASELINES: dict[str, Baseline] = {"unigram": _unigram, "n-gram": _ngram}


def _commonest(counts: Counter[str]) -> str:
    """The most frequent word; if there are several, the first one in the order of letters."""
    return min(counts, key=lambda word: (-counts[word], word))


def _whole(item: Item) -> list[str]:
    """The words of a text with its blanks filled; none where nobody knows them."""
    if item.fields["whole"]:
        return item.fields["whole"].split()
    between = item.fields["text"].split(MASK)
    parts = [part for pair in zip(between, [*item.blanks, ""], strict=False) for part in pair]
    return " ".join(parts).split() if item.blanks else []
