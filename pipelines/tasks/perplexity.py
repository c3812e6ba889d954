"""Perplexity: how likely is a text? It is read token by token in windows, from left to right or with what stands before
a window as context from both sides.

Data: WikiText's files (wiki.test.tokens, .raw, .txt), of which each article is an item, its marks of tokenisation
undone; CC BY-SA 3.0. Or a table with the column `text`, a text in each row, and maybe `id`.
Paper: Merity et al. (ICLR 2017); windows of Du et al. (ACL 2022), who read a file as one text and do not score its
first token. Metrics: perplexity of tokens, of words (WikiText's own, as published figures), and bits per byte of what
is read.
"""

import itertools
import re
from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import BadRow, Row, kind_of, read_rows
from pipelines.questions.splits import splits_by_words
from pipelines.questions.task import Item, take

VERSION = 1
KIND = "read"
METRICS = ("bits_per_byte", "word_perplexity", "perplexity")
COUNT_END = False
STRIDE = 256
ZERO_SHOT = True
PATTERNS = (Pattern("{before}{gmask}"), Pattern("{gmask}"))
_TITLE = re.compile(r" = [^=]+ = ?")
# Rules of Megatron-LM's detokenizer, without the one that turns "N" into 1. Quotes come in pairs.
_RULES = [
    (re.compile(rule), text)
    for rule, text in (
        (r"s '(?= )", "s'"),
        (r" @([-,.])@ ", r"\1"),
        (r" ([:;.!?,])(?= )", r"\1"),
        (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"{\s*([^}]*?)\s*}", r"{\1}"),
        (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
        (r"= (?==)", "="),
        (r" ° ", "°"),
        (r" ?\n ?", "\n"),
        (r" (?='s)", ""),
    )
]


def find_splits(data: str) -> dict[str, str]:
    return splits_by_words(data, lambda name: kind_of(name) or _is_text(name))


def read(url: str) -> Iterator[Row | BadRow]:
    """A row for each article. Raises DataError for a text that is not WikiText's."""
    if not _is_text(url):
        yield from read_rows(url)
        return
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        for line, article in _articles(data.decode(errors="replace").rstrip("\r\n") for data in stream):
            text = "\n".join(article)
            if line:
                yield Row(url, line, {"text": detokenised(text), "words": str(len(text.split())), "id": str(line)})
            elif text.strip():
                raise DataError(
                    f"{url} has text before its first title",
                    why='an article of WikiText begins with a line " = Title = " between empty lines',
                    try_="give other texts as a table with the column text",
                )
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")


def item(row: Row) -> Item:
    (text,) = take(row, "text")
    if not text.strip():
        raise ValueError("the text is empty")
    words = row.fields.get("words")
    return Item(
        id=row.fields.get("id") or str(row.line),
        fields={"before": ""},
        gold="0",
        candidates=(text,),
        words=int(words) if words else None,
    )


def detokenised(text: str) -> str:
    """WikiText as it was written, as far as rules can tell: " 's @-@ , " and brackets lose the blanks around them."""
    for rule, replacement in _RULES:
        text = rule.sub(replacement, text)
    return text.strip()


def _articles(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """(the number of its first line, its lines) of each article; first, as number 0, what stands before them."""
    first, second, third = itertools.tee(itertools.chain([""], lines, [""]), 3)
    begins, article = 0, []
    beside = zip(first, itertools.islice(second, 1, None), itertools.islice(third, 2, None), strict=False)
    for number, (before, text, behind) in enumerate(beside, start=1):
        if _TITLE.fullmatch(text) and not before.strip() and not behind.strip():
            yield begins, article
            begins, article = number, []
        article.append(text)
    yield begins, article


def _is_text(url: str) -> bool:
    return without_codec(url).lower().endswith((".txt", ".tokens", ".raw"))
