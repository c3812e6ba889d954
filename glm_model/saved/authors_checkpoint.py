"""Checkpoints of the authors (THUDM/GLM): read in every form, and written in the form that model hubs hold.

    <save>/latest_checkpointed_iteration.txt or latest   names the tag: an iteration, "best", "release"
    <save>/<tag>/mp_rank_00_model_states.pt ...          one file per model-parallel rank; state dict under "module"
    <folder>/pytorch_model.bin, config.json              as published; fp32 or fp16

They are unpickled with torch's weights_only, and with numpy's array reconstruction as the only other globals (random
states lie beside the weights). Files are mapped, so reading takes one fp32 copy of the model and one tensor more.
"""

from __future__ import annotations

import contextlib
import errno
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glm_model import urls
from glm_model.config import GLMConfig

PUBLISHED = "pytorch_model.bin"
_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
# The authors' names of modules, and ours; {} is the number of the layer, and `.weight` or `.bias` follows.
_MODULES = {
    "word_embeddings": "token_embedding",
    "transformer.position_embeddings": "position_embedding",
    "transformer.block_position_embeddings": "block_position_embedding",
    "transformer.layers.{}.input_layernorm": "layers.{}.attention_norm",
    "transformer.layers.{}.attention.query_key_value": "layers.{}.qkv",
    "transformer.layers.{}.attention.dense": "layers.{}.attention_out",
    "transformer.layers.{}.post_attention_layernorm": "layers.{}.mlp_norm",
    "transformer.layers.{}.mlp.dense_h_to_4h": "layers.{}.mlp_in",
    "transformer.layers.{}.mlp.dense_4h_to_h": "layers.{}.mlp_out",
    "transformer.final_layernorm": "final_norm",
}
# The authors' wrappers (classifiers) and the hub's classes put one of these before the names.
_PREFIXES = ("glm.", "model.", "module.")
# What fine-tuning and some published files add. It is not part of the language model.
_HEADS = ("pool_layer.", "multichoice_head.", "prompt_spell.", "dense.", "out_proj.")


def our_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(the tensors under our names in fp32, the names of task heads that were left out).

    A name that is neither the authors' nor ours stays as it is, for the caller to refuse.
    """
    renamed: dict[str, Tensor] = {}
    left_out = []
    for name, value in state.items():
        bare = name
        while bare.startswith(_PREFIXES):  # wrappers may be nested
            bare = bare.partition(".")[2]
        if bare.startswith(_HEADS):
            left_out.append(name)
            continue
        ours = _translated(bare, _MODULES)
        renamed[name if ours == bare else ours] = value.float()
    return renamed, left_out


def authors_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the authors' names."""
    back = {ours: theirs for theirs, ours in _MODULES.items()}
    return {_translated(name, back): value for name, value in state.items()}


def shape_of(state: Mapping[str, Tensor], config: Mapping[str, Any], *, heads: int | None = None) -> GLMConfig:
    """The shape of a model, from its tensors (our names) and from the authors' config.json, if there is one.

    heads: attention heads. None takes those of the config, else one per 64 of width, as in all published models.
    Raises ValueError where the tensors are not those of a GLM, or not of the shape that the config states.
    """
    for name in ("token_embedding.weight", "position_embedding.weight"):
        if name not in state or state[name].ndim != 2:
            raise ValueError(
                f"the checkpoint has no matrix {name} under this or the authors' name: it is not a GLM. Its first "
                f"tensors are {', '.join(list(state)[:3]) or 'none'}"
            )
    vocab_size, width = state["token_embedding.weight"].shape
    found = {
        "num_layers": 1 + max((int(n.split(".")[1]) for n in state if re.match(r"layers\.\d+\.", n)), default=-1),
        "hidden_size": width,
        "vocab_size": vocab_size,
    }
    for name, value in found.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"config.json says {name}={config[name]}, and the weights have {value} (token_embedding.weight is "
                f"{[vocab_size, width]}): they belong to two models. Put the right config.json beside the weights, or "
                "none: the shape follows from the weights"
            )
    return GLMConfig(
        layers=found["num_layers"],
        width=width,
        heads=heads if heads is not None else config.get("num_attention_heads") or max(1, width // 64),
        vocab_size=vocab_size,
        positions=len(state["position_embedding.weight"]) - 1,
        block_positions="block_position_embedding.weight" in state,
        dropout=config.get("output_dropout_prob", 0.1),
        attention_dropout=config.get("attention_dropout_prob", 0.1),
    )


def read_authors(url: str) -> dict[str, Tensor]:
    """The state dict of a file, or of a folder: that of its tracker's tag, or of the files in the folder itself.

    Under the authors' names, fp32, ranks merged. Raises ValueError naming the file and what is wrong with it.
    """
    files = [url] if url.endswith((".pt", ".bin")) else _files(url)
    with contextlib.ExitStack() as stack:
        contents = [_load_pickle(stack.enter_context(urls.local_file(file)), file) for file in files]
        iterations = {str(c["iteration"]) for c in contents if isinstance(c, dict) and "iteration" in c}
        if len(iterations) > 1:
            raise ValueError(
                f"{_folder(files[0])} holds ranks of different iterations ({', '.join(sorted(iterations))}). "
                "Copy all ranks of one"
            )
        state = _merged([_module(content, file) for content, file in zip(contents, files, strict=True)], files)
    _check_all_ranks(state, files)
    return state


def write_authors(config: GLMConfig, state: Mapping[str, Tensor], url: str) -> list[str]:
    """Write pytorch_model.bin and config.json as the model hubs hold them, fp32; returns the names of the files.

    state: the model's tensors under our names.
    """
    plain = {name: value.detach().cpu().float() for name, value in state.items()}
    # A file object: from a path torch takes the archive's name, of which nothing would be left for a hidden file.
    with urls.written(urls.join(url, PUBLISHED)) as path, open(path, "wb") as file:
        torch.save(authors_names(plain), file)
    urls.write_json(urls.join(url, "config.json"), authors_config(config))
    return [PUBLISHED, "config.json"]


def authors_config(config: GLMConfig) -> dict[str, Any]:
    """config.json of the published form. The embeddings and the residual stream have one dropout, as here."""
    return {
        "model_type": "glm",
        "architectures": ["GLMModel"],
        "num_layers": config.layers,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "embedding_dropout_prob": config.dropout,
        "attention_dropout_prob": config.attention_dropout,
        "output_dropout_prob": config.dropout,
        # Their tables have one row more than this if there are two of them, and as many rows if there is one.
        "max_sequence_length": config.positions + (0 if config.block_positions else 1),
        "block_position_encoding": config.block_positions,
        "output_predict": True,
        "parallel_output": True,
        "pool_token": "cls",
        "spell_length": None,
        "spell_func": "lstm",
        "attention_scale": 1.0,
        "relative_encoding": False,
        "checkpoint_activations": False,
        "checkpoint_num_layers": 1,
    }


def _translated(name: str, modules: Mapping[str, str]) -> str:
    """A tensor's name, translated by a table of modules; a name that the table lacks stays as it is."""
    module, _, kind = name.rpartition(".")
    layer = re.search(r"layers\.(\d+)\.", module)
    found = modules.get(module.replace(layer[0], "layers.{}.", 1) if layer else module)
    return name if found is None else f"{found.format(layer[1]) if layer else found}.{kind}"


# -- which files -------------------------------------------------------------------------------------------------------


def _files(url: str) -> list[str]:
    """The published file, or the files of all ranks, in `url` or in the folder that its tracker names."""
    if found := _files_in(url):
        return found
    for tracker in _TRACKERS:
        place = urls.join(url, tracker)
        if not urls.is_file(place):
            continue
        tag = urls.read(place).decode(errors="replace").strip()
        if not tag:
            raise ValueError(f"{place} is empty and should name a folder. Give that folder itself")
        if found := _files_in(urls.join(url, tag)):
            return found
        raise ValueError(
            f"{place} names {tag!r}, and {urls.join(url, tag)} holds no {PUBLISHED} and no "
            f"mp_rank_00_model_states.pt{_beside(url)}. Copy that folder too, or give the one that you have"
        )
    raise ValueError(
        f"{url} holds no model: neither config.json with model.safetensors, nor the authors' {PUBLISHED}, "
        f"mp_rank_00_model_states.pt or a tracker file{_beside(url)}. Give the folder that was saved"
    )


def _files_in(folder: str) -> list[str]:
    published = urls.join(folder, PUBLISHED)
    if urls.is_file(published):
        return [published]
    present = {int(found[1]) for name in urls.names(folder) if (found := _RANK.fullmatch(name))}
    if not present:  # a server may list nothing
        while urls.is_file(urls.join(folder, f"mp_rank_{len(present):02d}_model_states.pt")):
            present.add(len(present))
    absent = sorted(set(range(max(present, default=-1))) - present)
    if absent:
        raise ValueError(
            f"{folder} holds model-parallel ranks {_listed(present)} and not {_listed(absent)}. Copy "
            f"{', '.join(f'mp_rank_{rank:02d}_model_states.pt' for rank in absent)} beside them"
        )
    return [urls.join(folder, f"mp_rank_{rank:02d}_model_states.pt") for rank in sorted(present)]


def _beside(url: str) -> str:
    found = urls.names(url)
    return f" (there are {', '.join(found[:6])}{', ...' if len(found) > 6 else ''})" if found else ""


def _listed(ranks: Any) -> str:
    return ", ".join(str(rank) for rank in sorted(ranks))


def _folder(url: str) -> str:
    return url.rpartition("/")[0] or "."


# -- ranks -------------------------------------------------------------------------------------------------------------


def _merged(ranks: list[dict[str, Tensor]], files: list[str]) -> dict[str, Tensor]:
    """One state dict of fp32 copies, since the files behind the tensors are closed afterwards."""
    for rank, file in zip(ranks[1:], files[1:], strict=True):
        for name in ranks[0] | rank:
            if name not in rank or name not in ranks[0]:
                lacking = file if name not in rank else files[0]
                raise ValueError(
                    f"{lacking} lacks {name}, which another rank has: they belong to different checkpoints. Copy all "
                    "ranks of one"
                )
            shape, first = list(rank[name].shape), list(ranks[0][name].shape)
            if shape != first:
                raise ValueError(
                    f"the ranks differ in size: {name} is {shape} in {file} and {first} in {files[0]}. Copy all ranks "
                    "of one checkpoint"
                )
    return {name: _merge(name, [rank[name] for rank in ranks]).to(torch.float32, copy=True) for name in list(ranks[0])}


def _merge(name: str, parts: list[Tensor]) -> Tensor:
    """Undo the authors' tensor parallelism, in which each rank holds a part of Q, of K and of V."""
    if len(parts) == 1:
        return parts[0]
    if ".query_key_value." in name:
        return torch.cat([torch.cat(third) for third in zip(*(part.chunk(3) for part in parts), strict=True)])
    if name.endswith("word_embeddings.weight") or ".dense_h_to_4h." in name:
        return torch.cat(parts)
    if name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
        return torch.cat(parts, 1)
    return parts[0]


def _check_all_ranks(state: Mapping[str, Tensor], files: list[str]) -> None:
    """Raise ValueError where the last ranks are missing: the numbers have no gap then, but Q, K and V lack rows."""
    projection = next((name for name in state if name.endswith(".query_key_value.weight")), None)
    if projection is None or state[projection].ndim != 2:
        return
    rows, width = state[projection].shape
    ranks = 3 * width * len(files) / max(rows, 1)
    if rows != 3 * width and ranks == int(ranks):
        place = files[0] if len(files) == 1 else _folder(files[0])
        names = ", ".join(f"mp_rank_{rank:02d}_model_states.pt" for rank in range(int(ranks)))
        raise ValueError(
            f"{place} is {len(files)} of {int(ranks)} model-parallel ranks: "
            f"{projection} is {[rows, width]} and should be {[3 * width, width]}. Copy all of {names} into one folder "
            "and give the folder"
        )


# -- unpickling --------------------------------------------------------------------------------------------------------


def _module(content: Any, url: str) -> dict[str, Tensor]:
    state = content.get("module", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{url} holds no state dict, neither under 'module' nor by itself. Give the file of the model")
    return state


def _load_pickle(path: str, url: str) -> Any:
    """torch.load, which makes tensors, plain containers and numpy arrays, and refuses everything else by name."""
    try:
        with torch.serialization.safe_globals(list(_numpy_arrays())), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # whether to refuse it is decided here
            # Files from before torch 1.6 are not zip archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"(\S+) was not an allowed global", str(error))
        if not found and "Unsupported operand" in str(error):
            raise ValueError(
                f"{url} is refused: it is a pickle with instructions that torch.save does not write, which could run "
                "code. Give the file as torch.save wrote it, or model.safetensors"
            ) from error
        if not found:  # torch's own message would advise to load it nevertheless
            raise ValueError(f"{url} is damaged or not a torch file. Copy it again") from error
        raise ValueError(
            f"{url} is refused: it needs {found[1]}, which could run code. If you trust its source, write the plain "
            "weights again: torch.save(torch.load(FILE, weights_only=False)['module'], 'pytorch_model.bin')"
        ) from error
    except Exception as error:  # a changed byte may become any instruction of a pickle, and raise what that raises
        # EINVAL: the archive's end points outside the file. Other OSErrors come from the machine.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{url} is damaged or not a torch file ({error}). Copy it again") from error


def _numpy_arrays() -> Iterator[Any]:
    """The globals of a pickled numeric array. numpy 2 moved the function, and there are files from before and after."""
    reconstruct = np.empty(0).__reduce__()[0]
    for module in ("numpy.core", "numpy._core"):
        yield reconstruct, f"{module}.multiarray._reconstruct"
    yield from (np.ndarray, np.dtype)
    yield from {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
