"""Fill the blanks of texts with a trained model.

python workflows/generate.py --model runs/<run>/model --text "Ray is a [MASK] for [MASK]."
python workflows/generate.py --model runs/<run>/model --text "Ray is [MASK]." --temperature 0.9 --samples 5
python workflows/generate.py --model runs/<run>/model --file texts.txt --beams 4
python workflows/generate.py --model runs/<run>/model          # asks for texts until an empty line
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from glm_model.decoding import Decoding
from infra import config
from infra.console import Console
from infra.errors import DataError, DivergedError, UserError
from workflows.settings.models import find_model
from workflows.settings.texts import read_texts

if TYPE_CHECKING:
    from glm_model.generation.fill import Filled


@dataclass(frozen=True)
class GenerateConfig(Decoding):
    model: str = ""
    """Required. Folder or URL of an exported model, or of a run that has one; of several (`runs/a-*`) the newest."""
    text: str | None = None
    """A text with [MASK], [sMASK] or [gMASK] where the model should write. Default: read texts from `file`, or ask for
    them one by one.
    """
    file: str | None = None
    """A file with one text per line; empty lines are skipped."""
    batch_size: int = 16
    """Texts of `file` that are filled at once: more are faster and take more memory."""
    order: str = "left_to_right"
    """In which order the blanks of a text are filled: left_to_right, right_to_left, or their numbers from 0: 1,0,2."""


def main() -> None:
    options = config.parse(
        GenerateConfig,
        description="Fill the blanks of texts with a trained GLM.",
        common=("model", "text", "file", "max_tokens", "temperature", "beams"),
    ).config
    order = _order(options.order)
    batches = read_texts(options.text, options.file, batch_size=options.batch_size)
    url = find_model(options.model)
    # torch takes 2 s of CPU time to load: here, when the options are known to be good.
    from glm_model import Tokenizer, fill_batch, from_pretrained
    from glm_model.checks import NotFiniteError

    try:
        model, tokenizer, screen = from_pretrained(url), Tokenizer.load(url), Console()
    except ValueError as error:
        raise DataError(str(error)) from error
    decoding = Decoding(**{field.name: getattr(options, field.name) for field in fields(Decoding)})
    for texts in batches:
        try:
            filled = fill_batch(model, tokenizer, texts, decoding, order=order)
        except NotFiniteError as error:
            raise DivergedError(f"{url} writes nothing", why=str(error)) from error
        except ValueError as error:
            if options.text is None and options.file is None:  # whoever typed it may type another
                screen.warn(str(error))
                continue
            why = f"in {options.file}, counting from {texts[0]!r:.60}" if options.file else None
            raise UserError(str(error), why=why) from error
        for text, samples in zip(texts, filled, strict=True):
            _show(screen, text, samples, titled=len(samples) > 1 and options.file is not None)


def _show(screen: Console, text: str, samples: "Sequence[Filled]", *, titled: bool) -> None:
    """A filled text; or the samples of a text, each with the log-probability of its blanks, the best first."""
    from rich.text import Text

    from pipelines.views.render import filled

    if titled:
        screen.line(text)
    for number, sample in enumerate(sorted(samples, key=lambda sample: -sample.logprob), start=1):
        line = filled(sample.parts)
        if len(samples) > 1:
            line = Text.assemble((f"{number:3}  {sample.logprob:9.2f}  ", "cyan"), line)
        screen.rich.print(line, soft_wrap=True)


def _order(given: str) -> str | list[int]:
    from glm_model.generation.prompts import check_order

    numbers = given.strip("[]").replace(" ", "").split(",")
    order = [int(number) for number in numbers] if all(number.isdecimal() for number in numbers) else given
    try:
        check_order(order)
    except ValueError as error:
        raise UserError(
            f"--order {given} is not an order", why=str(error), try_="use left_to_right, right_to_left or 1,0,2"
        ) from error
    return order


if __name__ == "__main__":
    run_script(main)
