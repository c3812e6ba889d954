"""What export.py makes of a checkpoint, and where it may write it."""

from dataclasses import dataclass
from typing import Literal

from infra import commands, storage
from infra.errors import UserError


@dataclass
class ExportConfig:
    from_: str = ""
    """Required. Folder, file or URL of a checkpoint: the authors' (the folder with the tracker file or of one
    iteration, pytorch_model.bin), a finished run, or a model folder.
    """
    to: str = ""
    """Required. Folder or URL to write."""
    form: Literal["ours", "authors"] = "ours"
    """ours: config.json, model.safetensors; authors: pytorch_model.bin and a config.json with their keys."""
    tokenizer: str | None = None
    """A vocab.txt, a vocab.json beside its merges.txt, a tokenizer.json, or a folder with one; of the Chinese models
    cog-pretrain.model (or another SentencePiece model). Default: the one beside the checkpoint.
    """
    lowercase: bool | None = None
    """Whether a vocab.txt belongs to an uncased model. Default: as the tokenizer_config.json beside it says, else as
    its pieces do; the other files say it themselves.
    """
    tokens: Literal["bert", "gpt2", "roberta", "chinese", "own"] | None = None
    """Whose special ids the checkpoint was trained with; own: those of its tokenizer. Default: the authors', recognised
    by the shape.
    """
    task_masks: bool | None = None
    """Whether it was trained with [gMASK] and [sMASK]. Default: as the published models were (all but BERT's)."""
    heads: int | None = None
    """Attention heads, where no config.json tells. Default: one per 64 of width."""
    positions: int | None = None
    """Extend the position tables to this largest id."""
    vocab_size: int | None = None
    """Grow the embedding to this many rows."""
    shard_gb: float = 5.0
    """Largest size of a file of weights, in GB."""
    seed: int = 0
    """Random seed for new position rows."""


def check_given(options: ExportConfig) -> None:
    """Raises UserError where --from or --to is missing."""
    for flag, given in (("--from", options.from_), ("--to", options.to)):
        if not given:
            raise UserError(
                f"{flag} is missing", try_=f"{commands.workflow('export')} --from <checkpoint> --to <folder>"
            )


def find_target(options: ExportConfig, source: str) -> str:
    """URL of the folder to write, which is there and writable then.

    Raises UserError where a model must not be written, and InfrastructureError where it cannot.
    """
    url = storage.absolute(options.to).rstrip("/")
    if url.startswith("memory://"):
        raise UserError(f"--to={options.to} vanishes with this process", try_="use a folder, or a URL: s3://b/c")
    if url in (source.rstrip("/"), folder_of(source)):
        raise UserError(
            f"--to={options.to} is where the checkpoint is",
            why="a checkpoint is not written over itself",
            try_="choose another --to",
        )
    is_new = not storage.exists(url) or not storage.list_files(url)
    if not is_new and not storage.exists(storage.join(url, "config.json")):
        raise UserError(
            f"--to={options.to} is not a model folder",
            why="it holds files but no config.json, so something else lives there",
            try_="choose a new folder",
        )
    if not options.shard_gb > 0:  # nor nan
        raise UserError(f"--shard_gb={options.shard_gb} must be above 0", try_="--shard_gb=5")
    storage.ensure_writable(url)
    return url


def folder_of(source: str) -> str:
    """The folder of the weights: the source, or where that is a file, the folder that it lies in."""
    source = source.rstrip("/")
    return source.rpartition("/")[0] if source.endswith((".pt", ".bin")) else source
