"""Fill the blanks of a text with a trained model.

python workflows/generate.py --model runs/<run>/model --text "Ray is a [MASK] for [MASK]."
python workflows/generate.py --model runs/<run>/model          # asks for texts until an empty line
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra import config, storage
from infra.console import Console
from infra.errors import DataError, UserError, run_main


@dataclass
class GenerateConfig:
    model: str
    """Folder or URL of an exported model, or of a run that has one; of several (`runs/a-*`) the newest."""
    text: str | None = None
    """A text with [MASK], [sMASK] or [gMASK] where the model should write. None: read texts from `file`, or ask for
    them.
    """
    file: str | None = None
    """A file with one text per line."""
    max_tokens: int = 32
    """Tokens that a blank may get."""
    temperature: float = 0.0
    """0: the most probable token each time."""
    top_k: int = 0
    """Choose among the k most probable tokens; 0: all."""
    top_p: float = 1.0
    """Choose among the most probable tokens that make up this probability."""
    seed: int = 0
    """Of sampling."""


def main() -> None:
    options, _ = config.parse(GenerateConfig, description="Fill the blanks of a text with a trained GLM.")
    url = _model_url(options.model)
    # torch takes seconds to load: after the options are known good.
    from glm_model import Tokenizer, fill, from_pretrained
    from pipelines.render import filled

    try:
        model, tokenizer, screen = from_pretrained(url), Tokenizer.load(url), Console()
    except ValueError as error:
        raise DataError(str(error)) from error
    model.eval()
    for text in _texts(options):
        try:
            answer = fill(
                model,
                tokenizer,
                text,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                seed=options.seed,
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        screen.rich.print(filled(text, [blank.text for blank in answer.blanks]), soft_wrap=True)


def _model_url(given: str) -> str:
    place = max(glob.glob(given), key=os.path.getmtime, default=given)
    for url in (place, storage.join(place, "model")):
        if storage.exists(storage.join(url, "config.json")):  # written last
            return storage.absolute(url)
    raise DataError(
        f"{given} holds no model",
        why="there is no config.json in it, nor in a folder `model` below it; a run has one when it is finished",
        try_="the folder that pretrain.py names at its end, runs/<name>/model",
    )


def _texts(options: GenerateConfig) -> Iterator[str]:
    if options.text is not None:
        yield options.text
    elif options.file is not None:
        try:
            lines = Path(options.file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"cannot read {options.file}", why=error.strerror) from error
        yield from (line for line in lines if line.strip())
    else:
        while text := _ask():
            yield text


def _ask() -> str:
    try:
        return input("text with [MASK] (empty to end): ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    run_main(main)
