"""Save and load GLM models: our folders, and the checkpoints of the authors (THUDM/GLM).

Ours: config.json, model.safetensors, tokenizer.json, README.md. Theirs: `mp_rank_*_model_states.pt` below a tracker
file, or a `pytorch_model.bin`; unpickled with torch's weights_only and numpy's array reconstruction as the only further
globals.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from glm_model.config import GLMConfig
from glm_model.model import GLM

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

MODEL_TYPE = "glm-blank-infilling"  # "glm" alone is another architecture on the model hubs
_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
# The authors' names (left) and ours; what follows is `weight` or `bias`.
_AUTHORS_NAMES = {
    r"word_embeddings\.": "token_embedding.",
    r"transformer\.position_embeddings\.": "position_embedding.",
    r"transformer\.block_position_embeddings\.": "block_position_embedding.",
    r"transformer\.layers\.(\d+)\.input_layernorm\.": r"layers.\1.attention_norm.",
    r"transformer\.layers\.(\d+)\.attention\.query_key_value\.": r"layers.\1.qkv.",
    r"transformer\.layers\.(\d+)\.attention\.dense\.": r"layers.\1.attention_out.",
    r"transformer\.layers\.(\d+)\.post_attention_layernorm\.": r"layers.\1.mlp_norm.",
    r"transformer\.layers\.(\d+)\.mlp\.dense_h_to_4h\.": r"layers.\1.mlp_in.",
    r"transformer\.layers\.(\d+)\.mlp\.dense_4h_to_h\.": r"layers.\1.mlp_out.",
    r"transformer\.final_layernorm\.": "final_norm.",
}


def save_pretrained(model: GLM, url: str, tokenizer: Tokenizer | None = None, *, card: str | None = None) -> None:
    """Write a model folder to a local path or fsspec URL. config.json comes last: a folder without it is unfinished.

    card: the text of README.md; None writes a short one.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _write(_join(url, "model.safetensors"), safetensors.torch.save(state, metadata={"format": "pt"}))
    if tokenizer is not None:
        tokenizer.save(str(url))
    _write(_join(url, "README.md"), (card or _default_card(model)).encode())
    config = {"model_type": MODEL_TYPE, **model.config.to_dict()}
    _write(_join(url, "config.json"), (json.dumps(config, indent=2) + "\n").encode())


def from_pretrained(url: str, *, heads: int | None = None) -> GLM:
    """A model in eval mode, fp32, on the CPU: from a folder of ours, or a folder or file of the authors.

    heads: attention heads, which the authors' checkpoints do not record; None: what a config.json beside them says, or
    else one per 64 of width, as in all published models.
    Raises ValueError that names the file, or the tensors, that do not fit.
    """
    url = str(url)
    if url.endswith((".pt", ".bin")):
        return from_authors_state(_module(_load_pickle(url), url), heads=heads)
    config_url = _join(url, "config.json")
    config = _read_json(config_url) if _exists(config_url) else {}
    if config.get("model_type") == MODEL_TYPE:
        shape = {name: value for name, value in config.items() if name != "model_type"}
        return _assemble(GLMConfig.from_dict(shape), _load_safetensors(_join(url, "model.safetensors")))
    heads = heads or config.get("num_attention_heads")
    return from_authors_state(_load_authors(url), heads=heads)


def from_authors_state(state: Mapping[str, Tensor], *, heads: int | None = None) -> GLM:
    """A model from a state dict under the authors' names (any float dtype); its shape follows from the tensors'."""
    renamed = {_our_name(name): value.float() for name, value in state.items()}
    for name in ("token_embedding.weight", "position_embedding.weight"):
        if name not in renamed:
            raise ValueError(f"the checkpoint has no {name} under its own or the authors' name: it is not a GLM")
    vocab_size, width = renamed["token_embedding.weight"].shape
    config = GLMConfig(
        layers=1 + max((int(n.split(".")[1]) for n in renamed if n.startswith("layers.")), default=-1),
        width=width,
        heads=heads or max(1, width // 64),
        vocab_size=vocab_size,
        positions=len(renamed["position_embedding.weight"]) - 1,
        block_positions="block_position_embedding.weight" in renamed,
    )
    return _assemble(config, renamed)


def _assemble(config: GLMConfig, state: Mapping[str, Tensor]) -> GLM:
    """A GLM that takes over the tensors of `state`; ValueError unless names and shapes match exactly."""
    with torch.device("meta"):
        model = GLM(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not part of this model" for name in sorted(given) if name not in wanted]
    problems += [
        f"{name} is {list(given[name])} and should be {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the weights do not fit the model: {'; '.join(problems[:5])}{more}")
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return model.eval()


def _our_name(name: str) -> str:
    bare = name.removeprefix("glm.")
    for pattern, replacement in _AUTHORS_NAMES.items():
        if re.match(pattern, bare):
            return re.sub(pattern, replacement, bare, count=1)
    return name


def _load_authors(url: str) -> dict[str, Tensor]:
    """The state dict below a folder of the authors: tracker file -> tag -> ranks, or the files right here."""
    published = _join(url, "pytorch_model.bin")
    if _exists(published):
        return _module(_load_pickle(published), published)
    for tracker in _TRACKERS:
        if _exists(_join(url, tracker)):
            url = _join(url, _read(_join(url, tracker)).decode().strip())
            break
    ranks = []
    while _exists(file := _join(url, f"mp_rank_{len(ranks):02d}_model_states.pt")):
        ranks.append(_module(_load_pickle(file), file))
    if not ranks:
        raise ValueError(
            f"{url} holds no model: neither config.json with model.safetensors, nor the authors' pytorch_model.bin, "
            "mp_rank_00_model_states.pt or a tracker file. Give the folder that was saved"
        )
    return {name: _merge(name, [rank[name] for rank in ranks]) for name in ranks[0]} if len(ranks) > 1 else ranks[0]


def _merge(name: str, parts: list[Tensor]) -> Tensor:
    """Undo the authors' tensor parallelism: each rank holds its own thirds of [Q; K; V]."""
    if ".query_key_value." in name:
        return torch.cat([torch.cat(third) for third in zip(*(part.chunk(3) for part in parts), strict=True)])
    if name.endswith("word_embeddings.weight") or ".dense_h_to_4h." in name:
        return torch.cat(parts)
    if name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
        return torch.cat(parts, 1)
    return parts[0]


def _module(content: Any, url: str) -> dict[str, Tensor]:
    state = content.get("module", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{url} holds no state dict, neither under 'module' nor by itself")
    return state


def _load_pickle(url: str) -> Any:
    """torch.load that constructs tensors, plain containers and numpy arrays, and refuses everything else by name."""
    reconstruct = np.empty(0).__reduce__()[0]
    names = [f"{module}.multiarray._reconstruct" for module in ("numpy.core", "numpy._core")]
    allowed: list[Any] = [(reconstruct, name) for name in names]
    allowed += [np.ndarray, np.dtype, np.dtypes.UInt32DType]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(_read(url)), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"(\S+) was not an allowed global", str(error))
        reason = f"it needs {found[1]}, which could run code" if found else f"it is damaged ({error})"
        raise ValueError(f"{url} is refused: {reason}. Convert it where you trust it, to plain tensors") from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{url} is damaged or not a torch file ({error}). Copy it again") from error


def _load_safetensors(url: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(_read(url))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{url} is damaged or not a safetensors file ({error}). Copy it again") from error


def _default_card(model: GLM) -> str:
    shape = "\n".join(f"- {name}: {value}" for name, value in model.config.to_dict().items())
    return f"""# GLM

A GLM (autoregressive blank infilling, Du et al., ACL 2022) with {model.num_parameters():,} parameters.

{shape}

```python
from glm_model import GLM, Tokenizer, fill

print(fill(GLM.from_pretrained("."), Tokenizer.load("."), "Ray is a [MASK].").text)
```
"""


def _join(url: str, name: str) -> str:
    return f"{str(url).rstrip('/')}/{name}"


def _exists(url: str) -> bool:
    fs, path = fsspec.core.url_to_fs(url)
    return fs.isfile(path)


def _read(url: str) -> bytes:
    try:
        with fsspec.open(url, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ValueError(f"there is no {url}. Give a folder written by save_pretrained, or its URL") from error


def _read_json(url: str) -> dict[str, Any]:
    try:
        return json.loads(_read(url))
    except json.JSONDecodeError as error:
        raise ValueError(f"{url} is not valid JSON ({error})") from error


def _write(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb", auto_mkdir=True) as file:
        file.write(data)
