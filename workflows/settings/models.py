"""Where a model lies: in a folder of its own, in a run's, in the newest of several; or in a checkpoint of any form."""

import hashlib

from infra import commands, storage
from infra.errors import DataError, UserError

# What a checkpoint of the authors has in its folder.
_AUTHORS = ("pytorch_model.bin", "mp_rank_00_model_states.pt", "latest_checkpointed_iteration.txt", "latest")


def find_model(given: str) -> str:
    """URL of the model folder that is meant: the folder itself or that of a run; of several (`runs/a-*`) the newest.

    Raises UserError where nothing is given, and DataError where no model is found.
    """
    if not given:
        raise UserError("--model is missing", why="it names the model that fills the blanks", try_="--model runs/<run>")
    place = storage.newest(given)
    if place.endswith((".pt", ".bin")) or (_holds(place, *_AUTHORS) and not _holds(place, "tokenizer.json")):
        raise DataError(
            f"{given} is a checkpoint without a tokenizer.json",
            why="a checkpoint of the authors has to be made a model folder first, with its tokenizer and special ids",
            try_=commands.workflow("export", "--from", given) + " --to <folder> --tokenizer <file>",
        )
    for url in (place, storage.join(place, "model")):
        if _holds(url, "config.json"):  # written last
            return storage.absolute(url)
    if not storage.exists(place):
        raise DataError(f"--model {given} does not exist", try_=storage.spelling(given))
    raise DataError(
        f"{given} holds no model",
        why="it has no config.json, nor has a folder `model` in it; a run has one when it is finished",
        try_="give the folder that pretrain.py names at its end, runs/<name>/model",
    )


def model_in(given: str) -> str:
    """URL of the model folder that is meant, as `find_model` finds it; the place itself where there is none."""
    place = storage.absolute(storage.newest(given))
    inside = storage.join(place, "model")
    return inside if not _holds(place, "config.json") and _holds(inside, "config.json") else place


def name_of(url: str) -> str:
    """What a model folder is called: of a run's, runs/a/model, the run's name."""
    name, above = storage.base_name(url), url.rstrip("/").rpartition("/")[0]
    return storage.base_name(above) if name == "model" and above else name


def find_checkpoint(given: str) -> str:
    """URL of the folder or file that holds the weights; those of a run lie in its folder `model`, and of several runs
    (`runs/a-*`) the newest is meant.

    Raises DataError where there is nothing, and where a run has no model yet.
    """
    url = storage.absolute(storage.newest(given))
    if not storage.exists(url):
        raise DataError(f"--from={given} does not exist", try_=storage.spelling(given))
    if not _holds(url, "run.json"):
        return url
    model = storage.join(url, "model")
    if not _holds(model, "config.json"):
        raise DataError(
            f"the run {given} has no model yet",
            why="a run exports its model when it is finished",
            try_="start its pretrain.py again: it continues from the last checkpoint",
        )
    return model


def _holds(folder: str, *names: str) -> bool:
    """Whether any of these files is there."""
    return any(storage.exists(storage.join(folder, name)) for name in names)


def weights_digest(url: str) -> str:
    """Hex digest of the content of a folder's weights. Takes about a second per GB."""
    content = hashlib.blake2b(digest_size=16)
    for info in storage.list_files(url):
        if info.path.endswith(".safetensors"):
            with storage.open_file(info.url) as stream:
                while block := stream.read(1 << 24):
                    content.update(block)
    return content.hexdigest()
