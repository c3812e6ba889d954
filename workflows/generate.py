"""Fill the blanks of texts with a trained model.

python workflows/generate.py --model runs/<run>/model --text "Ray is a [MASK] for [MASK]."
python workflows/generate.py --model runs/<run>/model --text "Ray is [MASK]." --temperature 0.9 --samples 5
python workflows/generate.py --model runs/<run>/model --file texts.txt --beams 4
python workflows/generate.py --model runs/<run>/model          # asks for texts until an empty line
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from infra import config, storage
from infra.console import Console
from infra.errors import DataError, UserError, run_main

if TYPE_CHECKING:
    from glm_model.generation.fill import Filled

# What a checkpoint of the authors has in its folder.
_AUTHORS = ("pytorch_model.bin", "mp_rank_00_model_states.pt", "latest_checkpointed_iteration.txt", "latest")


@dataclass
class GenerateConfig:
    model: str = ""
    """Needed. Folder or URL of an exported model, or of a run that has one; of several (`runs/a-*`) the newest."""
    text: str | None = None
    """A text with [MASK], [sMASK] or [gMASK] where the model should write. None: read texts from `file`, or ask for
    them.
    """
    file: str | None = None
    """A file with one text per line; empty lines are skipped."""
    batch_size: int = 16
    """Texts of `file` that are filled at once: more are faster and take more memory."""
    order: str = "left_to_right"
    """In which order the blanks of a text are filled: left_to_right, right_to_left, or their numbers from 0: 1,0,2."""
    max_tokens: int = 64
    """Most tokens that a blank may get."""
    min_tokens: int = 1
    """Fewest tokens that a blank may get."""
    temperature: float = 0.0
    """0: the most probable token each time; above: draw tokens, the more freely the higher (0.9 is usual)."""
    top_k: int = 0
    """Draw among the k most probable tokens; 0: all."""
    top_p: float = 1.0
    """Draw among the most probable tokens that make up this probability."""
    samples: int = 1
    """How often each text is filled; needs a temperature."""
    beams: int = 1
    """Above 1: beam search, which looks for a probable blank as a whole; each blank in turn keeps its best beam."""
    length_penalty: float = 1.0
    """Beams are ranked by log-probability / tokens ** this; 0 favours short blanks, more than 1 long ones."""
    no_repeat_ngram: int = 0
    """No n tokens in a row twice in a blank (3 is usual); 0: no such rule."""
    seed: int = 0
    """Of sampling."""


def main() -> None:
    options, _ = config.parse(
        GenerateConfig,
        description="Fill the blanks of texts with a trained GLM.",
        common=("model", "text", "file", "max_tokens", "temperature", "beams"),
    )
    from glm_model.decoding import Decoding

    order = _order(options.order)
    try:
        decoding = Decoding(**{field.name: getattr(options, field.name) for field in fields(Decoding)})
    except ValueError as error:
        raise UserError(str(error)) from error
    batches, url = _batches(options), _model_url(options.model)
    # torch takes seconds to load: after the options are known good.
    from glm_model import Tokenizer, fill_batch, from_pretrained

    try:
        model, tokenizer, screen = from_pretrained(url), Tokenizer.load(url), Console()
    except ValueError as error:
        raise DataError(str(error)) from error
    for texts in batches:
        try:
            found = fill_batch(model, tokenizer, texts, decoding, order=order)
        except ValueError as error:
            if _asks(options):
                screen.warn(str(error))
                continue
            why = f"in {options.file}, counting from {texts[0]!r:.60}" if options.file else None
            raise UserError(str(error), why=why) from error
        for text, samples in zip(texts, found, strict=True):
            _show(screen, text, samples, titled=len(samples) > 1 and options.file is not None)


def _show(screen: Console, text: str, samples: "Sequence[Filled]", *, titled: bool) -> None:
    """A filled text; or the samples of a text, each with the log-probability of its blanks, the best first."""
    from rich.text import Text

    from pipelines.views.render import filled

    if titled:
        screen.line(text)
    for number, sample in enumerate(sorted(samples, key=lambda sample: -sample.logprob), start=1):
        shown = filled(sample.parts)
        if len(samples) > 1:
            shown = Text.assemble((f"{number:3}  {sample.logprob:9.2f}  ", "cyan"), shown)
        screen.rich.print(shown, soft_wrap=True)


def _order(given: str) -> str | list[int]:
    from glm_model.generation.prompts import check_order

    numbers = given.strip("[]").replace(" ", "").split(",")
    order = [int(number) for number in numbers] if all(number.isdecimal() for number in numbers) else given
    try:
        check_order(order)
    except ValueError as error:
        raise UserError(
            f"--order {given} is no order", why=str(error), try_="left_to_right, right_to_left or 1,0,2"
        ) from error
    return order


def _model_url(given: str) -> str:
    if not given:
        raise UserError("--model is missing", why="it names the model that fills the blanks", try_="--model runs/<run>")
    place = storage.newest(given)
    if place.endswith((".pt", ".bin")) or (_holds(place, *_AUTHORS) and not _holds(place, "tokenizer.json")):
        raise DataError(
            f"{given} is a checkpoint without a tokenizer.json",
            why="one of the authors is made a model folder first, with its tokenizer and special ids",
            try_=f"python workflows/export.py --from {shlex.quote(given)} --to <folder> --tokenizer <file>",
        )
    for url in (place, storage.join(place, "model")):
        if _holds(url, "config.json"):  # written last
            return storage.absolute(url)
    if not storage.exists(place):
        raise DataError(f"--model {given} does not exist", try_="check the spelling; relative paths start here")
    raise DataError(
        f"{given} holds no model",
        why="there is no config.json in it, nor in a folder `model` below it; a run has one when it is finished",
        try_="the folder that pretrain.py names at its end, runs/<name>/model",
    )


def _holds(folder: str, *names: str) -> bool:
    """Whether any of these files is there."""
    return any(storage.exists(storage.join(folder, name)) for name in names)


def _asks(options: GenerateConfig) -> bool:
    return options.text is None and options.file is None


def _batches(options: GenerateConfig) -> Iterator[list[str]]:
    """Texts to fill together. A file is read, and its lines are looked at, before the first is filled."""
    if options.text is not None and options.file is not None:
        raise UserError("--text and --file are both given", why="a run fills one or the other", try_="leave one out")
    if options.batch_size < 1:
        raise UserError(f"batch_size={options.batch_size} must be at least 1")
    if options.text is not None:
        return iter([[options.text]])
    if options.file is None:
        return ([text] for text in iter(_ask, ""))
    texts = _lines(options.file)
    return (texts[at : at + options.batch_size] for at in range(0, len(texts), options.batch_size))


def _lines(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"cannot read {file}", why=why) from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not any(mask in line for mask in ("[MASK]", "[sMASK]", "[gMASK]")):
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


if __name__ == "__main__":
    run_main(main)
