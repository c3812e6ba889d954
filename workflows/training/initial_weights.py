"""The weights that a run begins with: drawn anew, or those of another model (`model.init_from`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from glm_model import GLM, GLMConfig, from_pretrained
from glm_model.resize import extend_positions, grow_vocabulary
from glm_model.saved.pretrained import MODEL_TYPE
from glm_model.saved.weights import has_weights
from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import DataError, UserError

if TYPE_CHECKING:
    from workflows.runs.run import Run
    from workflows.settings.recipe import Recipe


def pretrained_config(url: str) -> GLMConfig:
    """The shape of the model in this folder. Raises DataError where there is none of ours."""
    place = storage.join(url, "config.json")
    config = storage.read_json(place) if storage.exists(place) else {}
    has_tokenizer = storage.exists(storage.join(url, "tokenizer.json"))
    if config.pop("model_type", None) != MODEL_TYPE or not has_tokenizer or not has_weights(url):
        raise DataError(
            f"model.init_from={url} is no model folder with a tokenizer",
            why="it needs config.json, weights and tokenizer.json as pretrain.py and export.py write them",
            try_=f"python workflows/export.py --from {url} --to <folder> --tokenizer <its vocabulary>",
        )
    return GLMConfig.from_dict(config)


def weights_digest(url: str) -> str:
    """Of the files of weights in a folder, by their content: about a second per GB."""
    content = hashlib.blake2b(digest_size=16)
    for info in storage.list_files(url):
        if info.path.endswith(".safetensors"):
            with storage.open_file(info.url) as stream:
                while block := stream.read(1 << 24):
                    content.update(block)
    return content.hexdigest()


def settle_model(run: Run, recipe: Recipe, shape: Callable[[], GLMConfig]) -> GLMConfig:
    """The shape of a run's model: as it began, or as `shape` tells for a new run, whose record gets it.

    A run that has begun needs `model.init_from` no more. Raises DataError when another model stands there now.
    """
    url = recipe.model.init_from
    if url and (storage.exists(storage.join(url, "config.json")) or "model" not in run.record):
        pretrained_config(url)
        digest = weights_digest(url)
        if run.record.setdefault("init_digest", digest) != digest:
            raise DataError(
                f"{url} is not the model that the run {run.name!r} began with",
                why=f"its weights have the digest {digest}, and had {run.record['init_digest']}",
                try_="another --run.name, or --run.fresh=true, to begin with these",
            )
    if "model" not in run.record:
        run.record["model"] = shape().to_dict()
    return GLMConfig.from_dict(run.record["model"])


def check_tokenizer(url: str, tokenizer: Tokenizer) -> None:
    """Raises UserError when the store's tokenizer gives other ids than the one that the weights were trained with."""
    own = Tokenizer.load(url)
    names = ("pad", "cls", "mask", "smask", "gmask", "sop", "eop")
    ids = {name: (getattr(own.special, name), getattr(tokenizer.special, name)) for name in names}
    moved = [f"{name} {old} -> {new}" for name, (old, new) in ids.items() if old >= 0 and old != new]
    if own.digest != tokenizer.digest or moved:
        raise UserError(
            f"the store's tokenizer is not that of model.init_from={url}",
            why="its ids mean other text to these weights" + (f": {', '.join(moved)}" if moved else ""),
            try_=f"prepare a store with theirs: --data.tokenizer.url={url}",
        )


def told_growth(url: str, shape: GLMConfig) -> str:
    """Where the weights come from, and which tables grow."""
    own = pretrained_config(url)
    changes = [
        f"{what} {before:,} -> {after:,}"
        for what, before, after in (
            ("positions", own.positions, shape.positions),
            ("vocabulary", own.vocab_size, shape.vocab_size),
        )
        if before != after
    ]
    return ", ".join([url, *changes])


def grown(own: GLMConfig, *, positions: int, vocab_size: int, dropout: float) -> GLMConfig:
    """The shape of a run that begins with a model of shape `own`: tables no smaller than needed, nor than they are."""
    return replace(
        own,
        positions=max(own.positions, positions),
        vocab_size=max(own.vocab_size, vocab_size),
        dropout=dropout,
        attention_dropout=dropout,
    )


def initial_model(shape: GLMConfig, *, seed: int, init_from: str | None) -> GLM:
    """A model of this shape: drawn by the seed, or with the weights of `init_from`, whose tables are grown to it."""
    torch.manual_seed(seed)
    if init_from is None:
        return GLM(shape)
    try:
        before = from_pretrained(init_from)
    except ValueError as error:
        raise DataError(str(error)) from error
    extend_positions(before, shape.positions, seed=seed)
    grow_vocabulary(before, shape.vocab_size)
    with torch.device("meta"):
        model = GLM(shape)
    model.load_state_dict(before.state_dict(), assign=True)
    return model.train()
