"""The shape of the model: from a size, or from the model that the run begins with."""

from dataclasses import replace

from glm_model.config import GLMConfig, sized
from glm_model.tokenizer import Tokenizer
from infra import commands, storage
from infra.errors import DataError, UserError
from pipelines.blanks.mixture import resolve
from pipelines.store.format import TokenStore
from workflows.settings.recipe import Recipe


def model_config(recipe: Recipe, store: TokenStore, tokenizer: Tokenizer) -> GLMConfig:
    """The shape of a model that learns this store. Raises UserError for unknown sizes, for segments beyond the position
    tables and for a tokenizer other than that of `model.init_from`.
    """
    if recipe.model.init_from:
        check_tokenizer(recipe.model.init_from, tokenizer)
    return shape_for(recipe, store.manifest.sequence_length, vocab_size=_rows(recipe, tokenizer.vocab_size))


def planned_config(recipe: Recipe, tokenizer: Tokenizer | None) -> GLMConfig:
    """The shape of the model before there is a store. Raises as `model_config`.

    tokenizer: None where one is to be trained, which is taken to get all the entries that it may have.
    """
    if recipe.model.init_from and tokenizer:
        check_tokenizer(recipe.model.init_from, tokenizer)
    vocab_size = tokenizer.vocab_size if tokenizer else recipe.data.tokenizer.train.vocab_size
    return shape_for(recipe, recipe.data.sequence_length, vocab_size=_rows(recipe, vocab_size))


def shape_for(recipe: Recipe, length: int, *, vocab_size: int) -> GLMConfig:
    """The shape of a model that reads segments of `length` tokens and knows this many ids. Raises as `model_config`."""
    own = pretrained_config(recipe.model.init_from) if recipe.model.init_from else None
    positions = recipe.model.positions or max(length, own.positions if own else 0)
    if length > positions:
        raise UserError(
            f"segments of {length} tokens are beyond the position table: model.positions={positions}",
            try_=f"model.positions={length}, or a store of data.sequence_length={positions}",
        )
    try:
        if own:
            return grow_config(own, recipe, positions=positions, vocab_size=vocab_size)
        return sized(
            recipe.model.size,
            vocab_size=vocab_size,
            positions=positions,
            block_positions=recipe.model.block_positions,
            dropout=recipe.model.dropout,
            attention_dropout=recipe.model.dropout,
        )
    except ValueError as error:
        raise UserError(str(error) if own else f"model.size: {error}") from error


def grow_config(own: GLMConfig, recipe: Recipe, *, positions: int, vocab_size: int) -> GLMConfig:
    """The shape of a run that begins with a model of shape `own`: tables no smaller than needed, nor than they are.

    Raises UserError where the recipe's model is another kind or has smaller tables.
    """
    if own.block_positions != recipe.model.block_positions:
        has = "a second position" if own.block_positions else "no second position"
        raise UserError(
            f"model.init_from={recipe.model.init_from} has {has}",
            try_=f"--model.block_positions={str(own.block_positions).lower()}",
        )
    if positions < own.positions:
        raise UserError(
            f"model.positions={positions} is less than the {own.positions} of model.init_from",
            try_="leave model.positions out: a shorter text needs no shorter table",
        )
    dropout = recipe.model.dropout
    return replace(
        own,
        positions=positions,
        vocab_size=max(own.vocab_size, vocab_size),
        dropout=dropout,
        attention_dropout=dropout,
    )


def pretrained_config(url: str) -> GLMConfig:
    """The shape of the model in this folder. Raises DataError where there is none of ours."""
    # Here, not above: with torch, which takes 2 s of CPU time to load, and runs are compared and looked up without it.
    from glm_model.saved.pretrained import MODEL_TYPE
    from glm_model.saved.weights import has_weights

    place = storage.join(url, "config.json")
    config = storage.read_json(place) if storage.exists(place) else {}
    has_tokenizer = storage.exists(storage.join(url, "tokenizer.json"))
    if config.pop("model_type", None) != MODEL_TYPE or not has_tokenizer or not has_weights(url):
        raise DataError(
            f"model.init_from={url} is not a model folder with a tokenizer",
            why="it needs config.json, weights and tokenizer.json as pretrain.py and export.py write them",
            try_=commands.workflow("export", "--from", url) + " --to <folder> --tokenizer <its vocabulary>",
        )
    return GLMConfig.from_dict(config)


def check_tokenizer(url: str, tokenizer: Tokenizer) -> None:
    """Raises UserError when the store's tokenizer gives other ids than the one that the weights were trained with."""
    own = Tokenizer.load(url)
    names = ("pad", "cls", "mask", "smask", "gmask", "sop", "eop")
    ids = {name: (getattr(own.special, name), getattr(tokenizer.special, name)) for name in names}
    moved = [f"{name} {old} -> {new}" for name, (old, new) in ids.items() if old >= 0 and old != new]
    if own.digest != tokenizer.digest or moved:
        raise UserError(
            f"the tokenizer of the data is not that of model.init_from={url}",
            why="its ids mean other text to these weights" + (f": {', '.join(moved)}" if moved else ""),
            try_="leave out data.tokenizer.url: the model brings its tokenizer; or prepare a store with it: "
            f"--data.tokenizer.url={url}",
        )


def describe_growth(url: str, shape: GLMConfig) -> str:
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


def model_name(recipe: Recipe) -> str:
    """What the model is called: its size, or the model that it begins with."""
    init_from = recipe.model.init_from
    return "from " + "/".join(init_from.rstrip("/").split("/")[-2:]) if init_from else recipe.model.size


def _rows(recipe: Recipe, vocab_size: int) -> int:
    """Rows of the embedding: the tokenizer's ids and those of ablations, up to a multiple of 128."""
    return -(-(vocab_size + resolve(recipe.blanks).form.extra_tokens) // 128) * 128
