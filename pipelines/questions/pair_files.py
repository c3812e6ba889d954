"""Pair files: a text on each line of `train.source`, and on the same line of `train.target` what is to be written."""

import itertools
from collections.abc import Iterator

from infra import storage
from infra.errors import DataError
from pipelines.corpus.decompress import codec_of, text_stream, without_codec

SOURCE, TARGET = ".source", ".target"


def read_pairs(url: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of the line, its fields `source` and `target`). url: of the sources; without a file of targets beside it
    rows have the source alone.

    Raises DataError where one file has more lines than the other: from some line on, none would have its own target.
    """
    beside = _beside(url)
    if not storage.exists(beside):
        for line, source in _lines(url):
            yield line, {"source": source}
        return
    for first, second in itertools.zip_longest(_lines(url), _lines(beside)):
        if first is None or second is None:
            longer, shorter = (url, beside) if second is None else (beside, url)
            raise DataError(
                f"{longer} has more lines than {shorter}",
                why="a line of one belongs to the line of that number in the other",
                try_="write both again; a line break inside a text would part it in two",
            )
        yield first[0], {"source": first[1], "target": second[1]}


def _beside(url: str) -> str:
    name = without_codec(url)
    return name.removesuffix(SOURCE) + TARGET + url.removeprefix(name)


def _lines(url: str) -> Iterator[tuple[int, str]]:
    with text_stream(storage.open_file(url), codec_of(url)) as stream:
        for number, data in enumerate(stream, start=1):
            yield number, data.decode(errors="replace").removeprefix("\ufeff").rstrip("\r\n")
        if stream.failure:
            raise DataError(f"{url} breaks off: {stream.failure[1]}", try_="copy or download it again")
