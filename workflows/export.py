"""Make a model folder of a checkpoint: of the authors' in any form, of a finished run, of an exported model.

python workflows/export.py --from <authors' folder or file> --to <folder> --tokenizer <vocab.txt, tokenizer.json, ...>
python workflows/export.py --from runs/<run> --to <folder> --form authors        # pytorch_model.bin, as on model hubs
"""

import shlex
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infra import config, storage
from infra.console import Console, human, human_bytes
from infra.errors import DataError, InfrastructureError, UserError, run_main

if TYPE_CHECKING:
    from glm_model import GLM, Tokenizer

_CHINESE_10B_LAYERS = 48


@dataclass
class ExportConfig:
    from_: str = ""
    """Needed; written --from. Folder, file or URL of a checkpoint: the authors' (the folder with the tracker file or of
    one iteration, pytorch_model.bin), a finished run, or a model folder.
    """
    to: str = ""
    """Needed. Folder or URL to write."""
    form: Literal["ours", "authors"] = "ours"
    """ours: config.json, model.safetensors; authors: pytorch_model.bin and a config.json with their keys."""
    tokenizer: str | None = None
    """A vocab.txt, a vocab.json beside its merges.txt, a tokenizer.json, or a folder with one; of the Chinese models
    cog-pretrain.model. None: the one beside the checkpoint.
    """
    lowercase: bool = True
    """Whether a vocab.txt is of an uncased model; the other files say it themselves."""
    tokens: Literal["bert", "gpt2", "roberta", "chinese", "own"] | None = None
    """Whose special ids the checkpoint was trained with. None: the authors', recognised by the shape; own: the
    tokenizer's.
    """
    task_masks: bool | None = None
    """Whether it was trained with [gMASK] and [sMASK]. None: as the published models were (all but BERT's)."""
    heads: int | None = None
    """Attention heads, where no config.json tells. None: one per 64 of width."""
    positions: int | None = None
    """Extend the position tables to this largest id."""
    vocab_size: int | None = None
    """Grow the embedding to this many rows."""
    shard_gb: float = 5.0
    """Largest size of a file of weights, in GB."""
    seed: int = 0
    """Of new position rows."""


def main() -> None:
    options, _ = config.parse(
        ExportConfig, description="Make a model folder of a checkpoint.", argv=_spelled(sys.argv[1:])
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


def _folder(source: str) -> str:
    """The folder of the weights: the source, or where that is a file, the one that it lies in."""
    source = source.rstrip("/")
    return source.rpartition("/")[0] if source.endswith((".pt", ".bin")) else source


def _is_authors(source: str) -> bool:
    """Whether the checkpoint is not of our form, so that its special ids are those of one of the authors' tables."""
    from glm_model.saved.pretrained import MODEL_TYPE

    place = storage.join(source, "config.json")
    return not storage.exists(place) or storage.read_json(place).get("model_type") != MODEL_TYPE


# -- what to make of it ------------------------------------------------------------------------------------------------


def _load(source: str, options: ExportConfig, screen: Console) -> "GLM":
    from glm_model import from_pretrained

    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            model = from_pretrained(source, heads=options.heads)
    except ValueError as error:
        raise DataError(str(error)) from error
    except (OSError, ImportError) as error:
        raise InfrastructureError(f"cannot read {source}", why=f"{type(error).__name__}: {error}") from error
    for warning in told:
        screen.warn(str(warning.message))
    return model


def _table(model: "GLM", options: ExportConfig, is_authors: bool) -> str | None:
    """The name of the table that the special ids must agree with; None: the tokenizer's own are right."""
    from glm_model.saved.authors_tokens import recognise

    if options.tokens is not None:
        return None if options.tokens == "own" else options.tokens
    return recognise(model.config) if is_authors else None


def _tokenizer(source: str, options: ExportConfig, table: str | None) -> "tuple[Tokenizer | None, str | None]":
    """(tokenizer, the table that it agrees with). A complete tokenizer.json beside the checkpoint needs no table."""
    from glm_model.saved.authors_tokens import load_tokenizer

    url, folder = options.tokenizer, _folder(source)
    beside = storage.join(folder, "tokenizer.json")
    if url is None:
        names = ("tokenizer.json", "vocab.json", "vocab.txt", "cog-pretrain.model")
        if not any(storage.exists(storage.join(folder, name)) for name in names):
            return None, table
        url = folder
        if options.tokens is None and storage.exists(beside) and b"<|endofpiece|>" in storage.read_bytes(beside):
            table = None
    try:
        return load_tokenizer(url, table, task_masks=options.task_masks, lowercase=options.lowercase), table
    except ValueError as error:
        other = "--tokens names another table; --tokens own takes the ids that the tokenizer has" if table else None
        raise DataError(str(error), try_=other) from error


def _changed(model: "GLM", tokenizer: "Tokenizer | None", options: ExportConfig, table: str | None) -> list[str]:
    """What was done to the model, in words."""
    from glm_model.resize import copy_row, extend_positions, grow_vocabulary

    changes = []
    two_ids = tokenizer is not None and tokenizer.special.gmask >= 0
    if table == "chinese" and tokenizer and two_ids and model.config.layers == _CHINESE_10B_LAYERS:
        # As in its published form. Two ids keep a prompt's [gMASK] and the end of a blank apart.
        copied = copy_row(model, tokenizer.special.eop, tokenizer.special.gmask)
        changes.append(f"{copied}: this model was trained with one id for [gMASK] and the end of a blank")
    if options.positions is not None:
        changes.append(extend_positions(model, options.positions, seed=options.seed))
    if options.vocab_size is not None:
        changes.append(grow_vocabulary(model, options.vocab_size))
    return changes


def _check_fit(model: "GLM", tokenizer: "Tokenizer | None") -> None:
    rows = model.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size > rows:
        raise DataError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {rows:,} rows",
            why="an id without a row cannot be looked up",
            try_=f"the tokenizer of the checkpoint, or --vocab_size={tokenizer.padded_vocab_size} for new rows",
        )


# -- what was done -----------------------------------------------------------------------------------------------------


def _rows(
    model: "GLM", tokenizer: "Tokenizer | None", options: ExportConfig, table: str | None, changes: list[str]
) -> list[tuple[str, str]]:
    shape = model.config
    blocks = "" if shape.block_positions else ", no second position"
    rows = [
        ("from", options.from_),
        ("shape", f"{shape.layers} layers, width {shape.width:,}, {shape.heads} heads of {shape.head_width}"),
        ("tables", f"{shape.vocab_size:,} tokens, positions 0 to {shape.positions:,}{blocks}"),
        ("parameters", f"{model.num_parameters():,} ({human(model.num_parameters())})"),
    ]
    if tokenizer is None:
        rows.append(("tokenizer", "none: --tokenizer gives one"))
    else:
        special = tokenizer.special
        origin = f"ids of the authors' {table!r} checkpoints" if table else "its own special ids"
        rows.append(("tokenizer", f"{tokenizer.vocab_size:,} ids, digest {tokenizer.digest[:12]}, {origin}"))
        ids = {"sop": special.sop, "eop": special.eop, "[MASK]": special.mask, "[gMASK]": special.gmask}
        ids |= {"[sMASK]": special.smask, "[CLS]": special.cls, "eos": special.eos}
        rows.append(("special ids", ", ".join(f"{name} {id_}" for name, id_ in ids.items() if id_ >= 0)))
    return rows + [("changed", change) for change in changes or ["nothing"]]


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


def _card(source: str, rows: list[tuple[str, str]]) -> str:
    """A model card with lineage: where the weights came from, what was done to them, and the card that they had."""
    lines = "\n".join(f"| {name} | {text} |" for name, text in rows)
    before, place = "", storage.join(_folder(source), "README.md")
    if storage.exists(place):
        text = storage.read_bytes(place).decode(errors="replace").strip()
        before = f"\n## Before the export\n\n{text}\n"
    return f"""# GLM

A GLM (General Language Model, Du et al., ACL 2022), exported from a checkpoint.

| | |
|---|---|
{lines}

```python
from glm_model import Tokenizer, fill, from_pretrained

model, tokenizer = from_pretrained("<this folder>"), Tokenizer.load("<this folder>")
print(fill(model, tokenizer, "Ray is a [MASK] for [MASK].").text)
```
{before}"""


if __name__ == "__main__":
    run_main(main)
