"""From a checkpoint of any form to a model folder."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from glm_model import GLM, Tokenizer, from_pretrained
from glm_model.resize import copy_row, extend_positions, grow_vocabulary
from glm_model.saved.authors_tokens import load_tokenizer, recognise
from glm_model.saved.pretrained import MODEL_TYPE, save_authors, save_pretrained
from glm_model.tokenizer.published import VOCABULARY_FILES
from infra import storage
from infra.console import human
from infra.errors import DataError, InfrastructureError
from workflows.settings.export import ExportConfig, folder_of

_CHINESE_10B_LAYERS = 48


@dataclass(frozen=True)
class Converted:
    """A checkpoint as a model of ours."""

    model: GLM
    tokenizer: Tokenizer | None
    table: str | None
    """Name of the authors' table of special ids that the tokenizer agrees with; None: it has ids of its own."""
    changes: tuple[str, ...]
    """What was done to the model, in words."""


def convert(source: str, options: ExportConfig, *, warn: Callable[[str], None]) -> Converted:
    """Read the checkpoint and its tokenizer, and grow the model's tables as the options say.

    source: URL of its folder or file. Raises DataError for what is not a checkpoint, a tokenizer of another model and
    tables that cannot grow, and InfrastructureError for what cannot be read.
    """
    model = _load(source, options, warn)
    table = _table(model, options, is_authors=_is_authors(source))
    try:
        tokenizer, table = _tokenizer(source, options, table, warn)
        changes = _change(model, tokenizer, options, table)
    except ValueError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise InfrastructureError(f"cannot read {source}", why=f"{type(error).__name__}: {error}") from error
    rows = model.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size > rows:
        raise DataError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {rows:,} rows",
            why="an id without a row cannot be looked up",
            try_=f"give the tokenizer of the checkpoint, or --vocab_size={tokenizer.padded_vocab_size} for new rows",
        )
    return Converted(model, tokenizer, table, tuple(changes))


def write(converted: Converted, source: str, target: str, options: ExportConfig) -> None:
    """Write the model folder with its tokenizer and a card. Raises InfrastructureError where it cannot be written."""
    card = _card(source, describe(converted, options.from_))
    model, tokenizer = converted.model, converted.tokenizer
    try:
        if options.form == "authors":
            save_authors(model, target, tokenizer, card=card)
        else:
            save_pretrained(model, target, tokenizer, card=card, shard_bytes=round(options.shard_gb * 1e9))
    except ValueError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {target}", why=str(error), try_="choose a folder of your own"
        ) from error


def describe(converted: Converted, origin: str) -> list[tuple[str, str]]:
    """(what, in words) of a converted model, for a table; origin: where it came from, as the user said it."""
    model, tokenizer = converted.model, converted.tokenizer
    shape = model.config
    blocks = "" if shape.block_positions else ", no second position"
    rows = [
        ("from", origin),
        ("shape", f"{shape.layers} layers, width {shape.width:,}, {shape.heads} heads of {shape.head_width}"),
        ("tables", f"{shape.vocab_size:,} tokens, positions 0 to {shape.positions:,}{blocks}"),
        ("parameters", f"{model.num_parameters():,} ({human(model.num_parameters())})"),
    ]
    if tokenizer is None:
        rows.append(("tokenizer", "none: --tokenizer gives one"))
    else:
        special = tokenizer.special
        ids_of = f"ids of the authors' {converted.table!r} checkpoints" if converted.table else "its own special ids"
        rows.append(("tokenizer", f"{tokenizer.vocab_size:,} ids, digest {tokenizer.digest[:12]}, {ids_of}"))
        ids = {"sop": special.sop, "eop": special.eop, "[MASK]": special.mask, "[gMASK]": special.gmask}
        ids |= {"[sMASK]": special.smask, "[CLS]": special.cls, "eos": special.eos}
        rows.append(("special ids", ", ".join(f"{name} {id_}" for name, id_ in ids.items() if id_ >= 0)))
    return rows + [("changed", change) for change in converted.changes or ("nothing",)]


def _is_authors(source: str) -> bool:
    """Whether the checkpoint is not of our form, so that its special ids are those of one of the authors' tables."""
    place = storage.join(source, "config.json")
    return not storage.exists(place) or storage.read_json(place).get("model_type") != MODEL_TYPE


def _load(source: str, options: ExportConfig, warn: Callable[[str], None]) -> GLM:
    try:
        with _telling(warn):
            return from_pretrained(source, heads=options.heads)
    except ValueError as error:
        raise DataError(str(error)) from error
    except (OSError, ImportError) as error:
        raise InfrastructureError(f"cannot read {source}", why=f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _telling(warn: Callable[[str], None]) -> Iterator[None]:
    """What is warned of in the block is said by `warn`, without the place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        warn(str(warning.message))


def _table(model: GLM, options: ExportConfig, *, is_authors: bool) -> str | None:
    """The name of the table that the special ids must agree with; None: the tokenizer's own are right."""
    if options.tokens is not None:
        return None if options.tokens == "own" else options.tokens
    return recognise(model.config) if is_authors else None


def _tokenizer(
    source: str, options: ExportConfig, table: str | None, warn: Callable[[str], None]
) -> tuple[Tokenizer | None, str | None]:
    """(tokenizer, the table that it agrees with). A complete tokenizer.json beside the checkpoint needs no table."""
    url, folder = options.tokenizer, folder_of(source)
    beside = storage.join(folder, "tokenizer.json")
    if url is None:
        if not any(storage.exists(storage.join(folder, name)) for name in VOCABULARY_FILES):
            return None, table
        url = folder
        if options.tokens is None and storage.exists(beside) and b"<|endofpiece|>" in storage.read_bytes(beside):
            table = None
    try:
        with _telling(warn):
            return load_tokenizer(url, table, task_masks=options.task_masks, lowercase=options.lowercase), table
    except ValueError as error:
        try_ = None
        if table:
            try_ = "name another table by --tokens, or take the ids that the tokenizer has: --tokens own"
        raise DataError(str(error), try_=try_) from error


def _change(model: GLM, tokenizer: Tokenizer | None, options: ExportConfig, table: str | None) -> list[str]:
    """Grow the model's tables as asked. Returns what was done, in words."""
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


def _card(source: str, rows: list[tuple[str, str]]) -> str:
    """A model card with lineage: where the weights came from, what was done to them, and the card that they had."""
    lines = "\n".join(f"| {name} | {text} |" for name, text in rows)
    before, place = "", storage.join(folder_of(source), "README.md")
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
