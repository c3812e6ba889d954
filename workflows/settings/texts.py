"""The texts whose blanks are to be filled: one, the lines of a file, or what somebody types."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infra.errors import DataError, UserError

_MASKS = ("[MASK]", "[sMASK]", "[gMASK]")


def read_texts(text: str | None, file: str | None, *, batch_size: int) -> Iterator[list[str]]:
    """Texts to fill together: the given one, or lines of a file, `batch_size` at once; without both, typed ones until
    an empty line.

    A file is read, and its lines are checked, before the first text is handed out. Raises UserError for options that
    contradict each other, and DataError for a file that cannot be read or has a line without a mask.
    """
    if text is not None and file is not None:
        raise UserError("--text and --file are both given", why="a run fills one or the other", try_="leave one out")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1", try_="--batch_size=16")
    if text is not None:
        return iter([[text]])
    if file is None:
        return ([typed] for typed in iter(_ask, ""))
    texts = _lines(file)
    return (texts[at : at + batch_size] for at in range(0, len(texts), batch_size))


def _lines(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"cannot read {file}", why=why) from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not any(mask in line for mask in _MASKS):
            raise DataError(
                f"line {number} of {file} has no mask",
                why="each line is a text to fill",
                try_="put [MASK] where the model should write",
            )
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{file} holds no text", why="each line is a text to fill")
    return texts


def _ask() -> str:
    if sys.stdin.isatty():
        with suppress(ImportError):  # not on every platform
            import readline  # noqa: F401  gives `input` a history and editing of the line
    try:
        return input("text with [MASK] (empty to end): ").strip()
    except EOFError:
        return ""
