"""Weights as safetensors: one file, or shards with the usual index. Memory: one fp32 copy of the model, never two.

model.safetensors                        up to `shard_bytes`
model-00001-of-00003.safetensors ...     above that, with
model.safetensors.index.json             {"metadata": {"total_size"}, "weight_map": {name: shard}}
head.safetensors                         of a classifier: what stands on top of the model
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from glm_model import urls

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEAD = "head.safetensors"
SHARD_BYTES = 5_000_000_000
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def has_weights(url: str) -> bool:
    return urls.is_file(urls.join(url, FILE)) or urls.is_file(urls.join(url, INDEX))


def remove_weights(url: str) -> None:
    """Remove the weights of an earlier save."""
    for name in urls.names(url):
        if _SHARD.fullmatch(name) or name in (FILE, INDEX):
            urls.remove(urls.join(url, name))


def write_weights(state: Mapping[str, Tensor], url: str, *, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write the tensors below `url` as they are (any dtype, any device). Returns the names of the files.

    A shard holds at most `shard_bytes`, or a single tensor. The weights of an earlier save are removed. Tensors on
    another device than the CPU are copied, one shard at a time.
    """
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes={shard_bytes} must be at least 1. Try 5_000_000_000")
    sizes = {name: value.numel() * value.element_size() for name, value in state.items()}
    shards = _shards(sizes, shard_bytes)
    count = len(shards)
    files = [FILE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    remove_weights(url)
    for file, members in zip(files, shards, strict=True):
        _write_file(urls.join(url, file), {name: state[name] for name in members})
    if count > 1:
        where = {name: file for file, members in zip(files, shards, strict=True) for name in members}
        urls.write_json(urls.join(url, INDEX), {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where})
        files.append(INDEX)
    return files


def read_weights(url: str) -> dict[str, Tensor]:
    """The tensors below `url` in fp32 on the CPU, read one file after the other.

    Raises ValueError naming the file that is absent or damaged, or the tensors that it should hold.
    """
    index = urls.join(url, INDEX)
    if not urls.is_file(index):
        return dict(_read_file(urls.join(url, FILE)))
    where = urls.read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise ValueError(f"{index} has no weight_map from tensors to files. Copy it again")
    files = sorted(set(where.values()))
    absent = [file for file in files if not urls.is_file(urls.join(url, file))]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise ValueError(
            f"{index} names {', '.join(absent[:3])}{more}, and {'it is' if len(absent) == 1 else 'they are'} not there "
            f"({len(files) - len(absent)} of {len(files)} shards are). Copy what is missing beside it"
        )
    state: dict[str, Tensor] = {}
    for file in files:
        state |= _read_file(urls.join(url, file))
    missing = [name for name in where if name not in state]
    if missing:
        raise ValueError(
            f"{urls.join(url, where[missing[0]])} lacks {missing[0]}, which {INDEX} says is there: they belong to two "
            "different saves. Copy the whole folder again"
        )
    return {name: value for name, value in state.items() if name in where}


def write_head(state: Mapping[str, Tensor] | None, url: str) -> None:
    """Write the tensors of a head below `url`; None removes those of an earlier save."""
    if state is None:
        urls.remove(urls.join(url, HEAD))
    else:
        _write_file(urls.join(url, HEAD), state)


def has_head(url: str) -> bool:
    return urls.is_file(urls.join(url, HEAD))


def read_head(url: str) -> dict[str, Tensor]:
    """The tensors of a head, in fp32 on the CPU. Raises ValueError where the file is damaged."""
    return dict(_read_file(urls.join(url, HEAD)))


def _write_file(url: str, state: Mapping[str, Tensor]) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with urls.written(url) as path:
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def _read_file(url: str) -> Iterable[tuple[str, Tensor]]:
    try:
        with urls.local_file(url) as path, safetensors.safe_open(path, framework="pt") as file:
            # Copies, since the tensors are views of the mapped file, which may be overwritten or removed.
            return [(name, file.get_tensor(name).to(torch.float32, copy=True)) for name in file.keys()]  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{url} is damaged or not a safetensors file ({error}). Copy it again") from error


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """The names in their order, cut before each tensor that would make a shard too large."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards
