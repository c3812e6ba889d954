"""Make a model folder of a checkpoint: of the authors' in any form, of a finished run, of an exported model.

python workflows/export.py --from <authors' folder or file> --to <folder> --tokenizer <vocab.txt, tokenizer.json, ...>
python workflows/export.py --from runs/<run> --to <folder> --form authors        # pytorch_model.bin, as on model hubs
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

import sys

from infra import commands, config, storage
from infra.console import Console, human_bytes
from workflows.settings.export import ExportConfig, check_given, find_target
from workflows.settings.models import find_checkpoint


def main() -> None:
    options = config.parse(
        ExportConfig,
        description="Make a model folder of a checkpoint.",
        common=("from_", "to", "form", "tokenizer"),
    ).config
    check_given(options)
    source = find_checkpoint(options.from_)
    target = find_target(options, source)
    # torch takes 2 s of CPU time to load: here, when the options are known to be good.
    from glm_model.saved.authors_tokens import PUBLISHED
    from workflows.runs.conversion import convert, describe, write

    screen = Console()
    converted = convert(source, options, warn=screen.warn)
    write(converted, source, target, options)
    size = human_bytes(sum(info.size for info in storage.list_files(target)))
    screen.table(options.to, ["model", size], describe(converted, options.from_))
    if converted.tokenizer is not None:
        text = "Ray is a [MASK] for [MASK]."
        again = commands.workflow("generate", "--model", options.to, "--text", text)
        screen.next_steps([("fill a blank", again)])
        return
    file = PUBLISHED[converted.table].file if converted.table else "the file that it was trained with"
    screen.warn(f"the folder has no tokenizer.json, so it cannot be given text: the model's tokenizer is {file}")
    again = commands.workflow("export", *sys.argv[1:]) + " --tokenizer <file>"
    screen.next_steps([("add the tokenizer", again)])


if __name__ == "__main__":
    run_script(main)
