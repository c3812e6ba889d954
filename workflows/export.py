"""Make a model folder of a checkpoint: of the authors' in any form, of a finished run, of an exported model.

python workflows/export.py --from <authors' folder or file> --to <folder> --tokenizer <vocab.txt, tokenizer.json, ...>
python workflows/export.py --from runs/<run> --to <folder> --form authors        # pytorch_model.bin, as on model hubs
"""

import shlex
import sys
from typing import TYPE_CHECKING

from infra import config, storage
from infra.console import Console, human_bytes
from infra.errors import DataError, InfrastructureError, UserError, run_main
from workflows.runs.conversion import (
    ExportConfig,
    _card,
    _changed,
    _check_fit,
    _folder,
    _is_authors,
    _load,
    _rows,
    _table,
    _tokenizer,
)

if TYPE_CHECKING:
    from glm_model import GLM, Tokenizer


def main() -> None:
    options, _ = config.parse(
        ExportConfig,
        description="Make a model folder of a checkpoint.",
        argv=_spelled(sys.argv[1:]),
        common=("from_", "to", "form", "tokenizer"),
    )
    for flag, given in (("--from", options.from_), ("--to", options.to)):
        if not given:
            raise UserError(f"{flag} is missing", try_="export.py --from <checkpoint> --to <folder>")
    screen = Console()
    source = _source(options.from_)
    target = _target(options, source)
    from glm_model.saved.pretrained import save_authors, save_pretrained

    model = _load(source, options, screen)
    is_authors = _is_authors(source)
    table = _table(model, options, is_authors)
    try:
        tokenizer, table = _tokenizer(source, options, table)
        changes = _changed(model, tokenizer, options, table)
        _check_fit(model, tokenizer)
        card = _card(source, _rows(model, tokenizer, options, table, changes))
        if options.form == "authors":
            save_authors(model, target, tokenizer, card=card)
        else:
            save_pretrained(model, target, tokenizer, card=card, shard_bytes=round(options.shard_gb * 1e9))
    except ValueError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise InfrastructureError(f"cannot write {target}", why=str(error), try_="a folder of your own") from error
    _summary(screen, model, tokenizer, options, table, changes, target)


# -- where from, where to ----------------------------------------------------------------------------------------------


def _spelled(words: list[str]) -> list[str]:
    """The command line with --from as the field can be called, and a bare --task_masks as true."""
    spelled = []
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word == "--from" or word.startswith("--from="):
            word = word.replace("--from", "--from_", 1)
        if word == "--task_masks" and following.startswith("--"):
            word = "--task_masks=true"
        spelled.append(word)
    return spelled


def _source(given: str) -> str:
    """The folder or file that holds the weights: a run's is its folder `model`."""
    url = storage.absolute(given)
    if not storage.exists(url):
        raise DataError(f"--from={given} does not exist", try_="check the spelling; relative paths start here")
    if not storage.exists(storage.join(url, "run.json")):
        return url
    model = storage.join(url, "model")
    if not storage.exists(storage.join(model, "config.json")):
        raise DataError(
            f"the run {given} has no model yet",
            why="a run exports its model when it is finished",
            try_="start its pretrain.py again: it continues from the last checkpoint",
        )
    return model


def _target(options: ExportConfig, source: str) -> str:
    url = storage.absolute(options.to).rstrip("/")
    if url.startswith("memory://"):
        raise UserError(f"--to={options.to} vanishes with this process", try_="a folder, or a URL such as s3://b/c")
    if url in (source.rstrip("/"), _folder(source)):
        raise UserError(
            f"--to={options.to} is where the checkpoint is",
            why="a checkpoint is not written over itself",
            try_="another --to",
        )
    is_new = not storage.exists(url) or not storage.list_files(url)
    if not is_new and not storage.exists(storage.join(url, "config.json")):
        raise UserError(
            f"--to={options.to} is no model folder",
            why="it holds files but no config.json, so something else lives there",
            try_="a new folder",
        )
    if options.shard_gb <= 0:
        raise UserError(f"--shard_gb={options.shard_gb} must be above 0", try_="--shard_gb=5")
    storage.ensure_writable(url)
    return url


# -- what to make of it ------------------------------------------------------------------------------------------------


# -- what was done -----------------------------------------------------------------------------------------------------


def _summary(
    screen: Console,
    model: "GLM",
    tokenizer: "Tokenizer | None",
    options: ExportConfig,
    table: str | None,
    changes: list[str],
    target: str,
) -> None:
    size = human_bytes(sum(info.size for info in storage.list_files(target)))
    screen.table(options.to, ["model", size], _rows(model, tokenizer, options, table, changes))
    if tokenizer is not None:
        text = "Ray is a [MASK] for [MASK]."
        command = f'python workflows/generate.py --model {shlex.quote(options.to)} --text "{text}"'
        screen.next_steps([("fill a blank", command)])
        return
    from glm_model.saved.authors_tokens import PUBLISHED

    file = PUBLISHED[table].file if table else "the file that it was trained with"
    screen.warn(f"the folder has no tokenizer.json, so it cannot be given text: the model's tokenizer is {file}")
    again = f"python workflows/export.py {shlex.join(sys.argv[1:])} --tokenizer <file>"
    screen.next_steps([("add the tokenizer", again)])


if __name__ == "__main__":
    run_main(main)
