"""Save and load GLM models at any fsspec URL: our folders, and the checkpoints of the authors.

    config.json          the shape; written last: a folder without it is unfinished
    model.safetensors    or shards and their index (`glm_model.saved.weights`)
    tokenizer.json       if a tokenizer is given, with the roles of its tokens in tokenizer_config.json
    README.md            the model card

Loading takes one fp32 copy of the model; saving copies nothing that lies on the CPU.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from glm_model import urls
from glm_model.config import GLMConfig, num_parameters
from glm_model.saved.authors_checkpoint import PUBLISHED, our_names, read_authors, shape_of, write_authors
from glm_model.saved.tokenizer_config import tokenizer_config
from glm_model.saved.weights import SHARD_BYTES, has_weights, read_weights, remove_weights, write_head, write_weights

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

MODEL_TYPE = "glm-blank-infilling"  # "glm" alone is another architecture on the model hubs


class Saved(nn.Module):
    """A model made from its config, loaded from a folder and saved to one: what GLM inherits."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, url: str, *, heads: int | None = None) -> Self:
        """A model in eval mode, fp32, on the CPU: from a folder of ours, a run's, or a folder or file of the authors.

        heads: attention heads, which the authors' checkpoints do not record; None takes what a config.json beside them
        says, or else one per 64 of width, as in all published models.
        Warns of task heads that it leaves out, and of attention heads that it guesses. Raises ValueError naming the
        file, or the tensors, that do not fit.
        """
        url = urls.model_folder(str(url))
        config, state = _read(url, heads)
        with _naming(url):
            return cls.from_state(config, state)

    @classmethod
    def from_authors_state(
        cls, state: Mapping[str, Tensor], *, heads: int | None = None, config: Mapping[str, Any] | None = None
    ) -> Self:
        """A model from a state dict under the authors' names (any float dtype); its shape follows from the tensors.

        config: their config.json, if there is one. heads: as for `from_pretrained`.
        """
        return cls.from_state(*_translated(state, config or {}, heads))

    @classmethod
    def from_state(cls, config: GLMConfig, state: Mapping[str, Tensor]) -> Self:
        """A model in eval mode that takes over the tensors of `state`. Raises ValueError where names, shapes differ."""
        with _Undrawn(), torch.device("meta"):
            model = cls(config)
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if problems := _mismatches(wanted, given):
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(
                f"the weights do not fit the model: {'; '.join(problems[:5])}{more}. It has {config.layers} layers of "
                f"width {config.width}, {config.vocab_size:,} tokens and {config.positions:,} positions: give the "
                "weights and the config.json of one save"
            )
        model.load_state_dict(dict(state), assign=True)
        return model.eval()

    def save_pretrained(
        self, url: str, tokenizer: Tokenizer | None = None, *, card: str | None = None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """`glm_model.save_pretrained` of this model."""
        save_pretrained(self, url, tokenizer, card=card, shard_bytes=shard_bytes)


class _Undrawn(TorchFunctionMode):
    """Leaves out random draws, of which a tensor without values has no use. On such a tensor torch's `normal_` loads
    its compiler, 1.3 s of CPU time for each process that loads a model (torch 2.13).
    """

    _draws = frozenset({Tensor.normal_, init.normal_})

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        named = kwargs or {}
        if func in self._draws:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def save_pretrained(
    model: Saved,
    url: str,
    tokenizer: Tokenizer | None = None,
    *,
    card: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    head: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model folder to a local path or fsspec URL, over what an earlier save left there.

    card: the text of README.md; None writes a short one. shard_bytes: the largest size of a file of weights. head: the
    tensors of a head, which become head.safetensors (`classifier.Classifier.save_pretrained`).
    Raises ValueError where `url` is empty or a file, and when the tokenizer has ids for which the model has no row.
    """
    _check_save(model.config, url, tokenizer)
    config = urls.join(url, "config.json")
    urls.remove(config)
    urls.remove(urls.join(url, PUBLISHED))
    write_weights(model.state_dict(), url, shard_bytes=shard_bytes)
    write_head(head, url)
    _write_companions(model.config, url, tokenizer, card)
    urls.write_json(config, {"model_type": MODEL_TYPE, **model.config.to_dict()})


def save_authors(model: Saved, url: str, tokenizer: Tokenizer | None = None, *, card: str | None = None) -> None:
    """Write the authors' published form, pytorch_model.bin and config.json under their names, with our tokenizer.json
    and README.md beside them.

    The weights are fp32, so that reading them back is exact. Raises ValueError as `save_pretrained` does.
    """
    _check_save(model.config, url, tokenizer)
    urls.remove(urls.join(url, "config.json"))
    remove_weights(url)  # model.safetensors, which would be read instead
    _write_companions(model.config, url, tokenizer, card)
    write_authors(model.config, model.state_dict(), url)


def _read(url: str, heads: int | None) -> tuple[GLMConfig, dict[str, Tensor]]:
    """(shape, fp32 tensors under our names) of a folder of ours, or a folder or file of the authors."""
    is_one_file = url.endswith((".pt", ".bin"))
    config_url = urls.join((url.rpartition("/")[0] or ".") if is_one_file else url, "config.json")
    config = urls.read_json(config_url) if urls.is_file(config_url) else {}
    is_authors = is_one_file or config.get("model_type") != MODEL_TYPE
    if is_one_file or (is_authors and not has_weights(url)):
        state = read_authors(url)
    elif not config:
        raise ValueError(
            f"{url} has weights but no config.json, which is written last: it is unfinished. Save it again"
        )
    else:
        state = read_weights(url)
    with _naming(url):
        if is_authors:
            return _translated(state, config, heads)
        shape = GLMConfig.from_dict({name: value for name, value in config.items() if name != "model_type"})
        if heads not in (None, shape.heads):
            raise ValueError(f"heads={heads}, and its config.json says heads={shape.heads}. Leave heads out")
        return shape, state


def _translated(
    state: Mapping[str, Tensor], config: Mapping[str, Any], heads: int | None
) -> tuple[GLMConfig, dict[str, Tensor]]:
    """(shape, tensors under our names) from the authors' state dict and config.json."""
    renamed, left_out = our_names(state)
    if left_out:
        first = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        warnings.warn(f"tensors of task heads are left out ({len(left_out)}): {first}", stacklevel=3)
    shape = shape_of(renamed, config, heads=heads)
    if heads is None and not config.get("num_attention_heads"):
        warnings.warn(
            f"the checkpoint does not record its attention heads: {shape.heads} are assumed, one per 64 of width. If "
            "it was trained with another number, give heads (--heads)",
            stacklevel=3,
        )
    return shape, renamed


def _mismatches(wanted: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]]) -> list[str]:
    """What is wrong with the names and shapes of given tensors, one entry a tensor."""
    return [
        *(f"{name} is missing" for name in wanted if name not in given),
        *(f"{name} is not part of this model" for name in sorted(given) if name not in wanted),
        *(
            f"{name} is {list(given[name])} and should be {list(shape)}"
            for name, shape in wanted.items()
            if given.get(name, shape) != shape
        ),
    ]


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Add to a ValueError which checkpoint it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def _check_save(config: GLMConfig, url: str, tokenizer: Tokenizer | None) -> None:
    if urls.is_file(url):
        raise ValueError(f"{url} is a file, and a model is saved to a folder. Give another place")
    rows = config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {rows:,} rows: ids without a row cannot be "
            "looked up. Give the tokenizer that it was trained with, or add rows by glm_model.resize.grow_vocabulary"
        )


def _write_companions(config: GLMConfig, url: str, tokenizer: Tokenizer | None, card: str | None) -> None:
    settings = urls.join(url, "tokenizer_config.json")
    if tokenizer is None:
        urls.remove(urls.join(url, "tokenizer.json"))  # of another model
        urls.remove(settings)
    else:
        tokenizer.save(str(url))
        urls.write_json(settings, tokenizer_config(tokenizer, positions=config.positions))
    urls.write(urls.join(url, "README.md"), (card or _default_card(config)).encode())


def _default_card(config: GLMConfig) -> str:
    shape = "\n".join(f"- {name}: {value}" for name, value in config.to_dict().items())
    return f"""# GLM

A GLM (autoregressive blank infilling, Du et al., ACL 2022) with {num_parameters(config):,} parameters.

{shape}

```python
from glm_model import GLM, Tokenizer, fill

print(fill(GLM.from_pretrained("."), Tokenizer.load("."), "Ray is a [MASK].").text)
```
"""
