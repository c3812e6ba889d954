"""From a checkpoint of any form to a model folder."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infra import storage
from infra.console import Console, human
from infra.errors import DataError, InfrastructureError

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


def _folder(source: str) -> str:
    """The folder of the weights: the source, or where that is a file, the one that it lies in."""
    source = source.rstrip("/")
    return source.rpartition("/")[0] if source.endswith((".pt", ".bin")) else source


def _is_authors(source: str) -> bool:
    """Whether the checkpoint is not of our form, so that its special ids are those of one of the authors' tables."""
    from glm_model.saved.pretrained import MODEL_TYPE

    place = storage.join(source, "config.json")
    return not storage.exists(place) or storage.read_json(place).get("model_type") != MODEL_TYPE


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
