"""The GLM Transformer (Du et al., ACL 2022, section 2.2): pre-LN, two learned position tables, tied output layer.

Shapes: B rows, L row length, D width, H heads, K head width, V vocabulary (padded), T positions in the cache.
Weights (`state_dict`), i = 0 .. layers - 1:
  token_embedding.weight [V, D]: also the output layer, without bias
  position_embedding.weight, block_position_embedding.weight [positions + 1, D]
  layers.i.attention_norm, layers.i.qkv [3D, D] (rows: all Q, K, V), layers.i.attention_out [D, D]: .weight, .bias
  layers.i.mlp_norm, layers.i.mlp_in [4D, D], layers.i.mlp_out [D, 4D], final_norm: .weight, .bias
`glm_model.pretrained` translates the authors' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_model.attention import AttentionMask, Backend, attention, make_mask
from glm_model.config import GLMConfig
from glm_model.dropout import dropout

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

NORM_EPS = 1e-5
INIT_STD = 0.02


class Cache:
    """Keys and values of every position seen so far, per layer; filled by `GLM.hidden(..., cache=cache)`.

    The first call is the context (everyone sees everyone); each later call appends tokens that see all before them.
    """

    def __init__(self, model: GLM, rows: int, capacity: int):
        """Room for `capacity` positions in each of `rows` rows: 2 * layers * rows * capacity * D numbers."""
        config, weight = model.config, model.token_embedding.weight
        shape = (config.layers, rows, capacity, config.heads, config.head_width)
        self.keys = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        self.values = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        self.length = 0

    def append(self, layer: int, k_BLHK: Tensor, v_BLHK: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; returns all of them, [B, T, H, K]."""
        end = self.length + k_BLHK.shape[1]
        self.keys[layer, :, self.length : end] = k_BLHK
        self.values[layer, :, self.length : end] = v_BLHK
        keys, values = self.keys[layer, :, :end], self.values[layer, :, :end]
        return keys.to(k_BLHK.dtype), values.to(v_BLHK.dtype)


class Layer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        d = config.width
        self.config = config
        self.attention_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.qkv = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.mlp_in = nn.Linear(d, 4 * d)
        self.mlp_out = nn.Linear(4 * d, d)

    def forward(self, x_BLD: Tensor, mask: AttentionMask, cache: Cache | None = None, index: int = 0) -> Tensor:
        heads = (3, self.config.heads, self.config.head_width)
        p = self.config.dropout if self.training else 0.0
        q_BLHK, k_BLHK, v_BLHK = self.qkv(self.attention_norm(x_BLD)).unflatten(-1, heads).unbind(2)
        if cache is not None:
            k_BLHK, v_BLHK = cache.append(index, k_BLHK, v_BLHK)
        attention_p = self.config.attention_dropout if self.training else 0.0
        mixed_BLHK = attention(q_BLHK, k_BLHK, v_BLHK, mask, dropout_p=attention_p)
        x_BLD = x_BLD + dropout(self.attention_out(mixed_BLHK.flatten(2)), p)
        hidden = F.gelu(self.mlp_in(self.mlp_norm(x_BLD)), approximate="tanh")
        return x_BLD + dropout(self.mlp_out(hidden), p)


class GLM(nn.Module):
    """A GLM of a given shape, freshly initialised: N(0, 0.02), output projections N(0, 0.02 / sqrt(2 * layers))."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.config = config
        rows = config.positions + 1
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(rows, config.width)
        self.block_position_embedding = nn.Embedding(rows, config.width) if config.block_positions else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's default generator."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(".bias"):
                parameter.zero_()
            else:
                projection = name.endswith(("attention_out.weight", "mlp_out.weight"))
                parameter.normal_(0.0, INIT_STD / (2 * self.config.layers) ** 0.5 if projection else INIT_STD)

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        block_position_ids: Tensor,
        segment_ids: Tensor | None = None,
        context_end: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, L, V] of the token at every position of a batch. Arguments as for `hidden`."""
        return self.logits(self.hidden(tokens, position_ids, block_position_ids, segment_ids, context_end))

    def hidden(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        block_position_ids: Tensor,
        segment_ids: Tensor | None = None,
        context_end: Tensor | None = None,
        *,
        cache: Cache | None = None,
        backend: Backend | None = None,
    ) -> Tensor:
        """Final hidden states [B, L, D]; all arguments int64 [B, L].

        segment_ids: index of the segment in its row, -1 on padding; None: each row is one segment.
        context_end: row index one past the context of the position's segment; None: all is context.
        cache: see `Cache`; then the row is one segment and the last two arguments are left out.
        backend: attention backend; None chooses. Raises ValueError on wrong shapes and dtypes, and on a CPU on ids and
        positions out of range (elsewhere that check would stall the device).
        """
        batch = {"tokens": tokens, "position_ids": position_ids, "block_position_ids": block_position_ids}
        self._check(batch | {"segment_ids": segment_ids, "context_end": context_end}, cache)
        if cache is None:
            rows, length = tokens.shape
            mask = make_mask(segment_ids, context_end, (rows, length), tokens.device, backend=backend)
        else:
            mask = _cache_mask(cache.length, tokens.shape[1], tokens.device)
        x_BLD = self.token_embedding(tokens) + self.position_embedding(position_ids)
        if self.block_position_embedding is not None:
            x_BLD = x_BLD + self.block_position_embedding(block_position_ids)
        x_BLD = dropout(x_BLD, self.config.dropout if self.training else 0.0)
        for index, layer in enumerate(self.layers):
            x_BLD = layer(x_BLD, mask, cache, index)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.final_norm(x_BLD)

    def logits(self, x_D: Tensor) -> Tensor:
        """[..., D] hidden states -> [..., V], by the transposed token embedding."""
        return F.linear(x_D, self.token_embedding.weight)

    def num_parameters(self) -> int:
        """Parameters; the tied output layer counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(cls, url: str) -> GLM:
        """`glm_model.pretrained.from_pretrained`."""
        from glm_model.pretrained import from_pretrained

        return from_pretrained(url)

    def save_pretrained(self, url: str, tokenizer: Tokenizer | None = None, *, card: str | None = None) -> None:
        """`glm_model.pretrained.save_pretrained`."""
        from glm_model.pretrained import save_pretrained

        save_pretrained(self, url, tokenizer=tokenizer, card=card)

    def _check(self, batch: dict[str, Tensor | None], cache: Cache | None) -> None:
        tokens = batch["tokens"]
        assert tokens is not None
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise ValueError(f"tokens has shape {list(tokens.shape)}; the model takes [rows, length], both at least 1")
        for name, value in batch.items():
            if value is None:
                continue
            if value.dtype != torch.int64:
                raise ValueError(f"{name} is {value.dtype}; the model takes torch.int64: use .long()")
            if value.shape != tokens.shape:
                raise ValueError(f"{name} has shape {list(value.shape)} where tokens has {list(tokens.shape)}")
        if cache is not None:
            _check_cache(cache, batch)
        if tokens.device.type != "cpu" or torch.compiler.is_compiling():
            return
        table = "Shorten the segments, or use a model with more positions (model.positions)"
        limits = {
            "tokens": (self.config.vocab_size, "Use the tokenizer that the model was trained with"),
            "position_ids": (self.config.positions + 1, table),
            "block_position_ids": (self.config.positions + 1, table),
        }
        for name, (limit, remedy) in limits.items():
            value = batch[name]
            assert value is not None
            low, high = (int(x) for x in torch.aminmax(value))
            if low < 0 or high >= limit:
                bad = low if low < 0 else high
                raise ValueError(f"{name} holds {bad}; this model takes 0 to {limit - 1}. {remedy}")


def _check_cache(cache: Cache, batch: dict[str, Tensor | None]) -> None:
    tokens = batch["tokens"]
    assert tokens is not None
    if batch["segment_ids"] is not None or batch["context_end"] is not None:
        raise ValueError("with a cache the row is one segment: leave out segment_ids and context_end")
    _, rows, capacity = cache.keys.shape[:3]
    if tokens.shape[0] != rows or cache.length + tokens.shape[1] > capacity:
        raise ValueError(
            f"tokens has shape {list(tokens.shape)}, and the cache has {rows} rows with room for "
            f"{capacity - cache.length} more positions of {capacity}: make it with the rows and capacity that you need"
        )


def _cache_mask(past: int, new: int, device: torch.device) -> AttentionMask:
    """The context sees itself; appended tokens see everything up to themselves."""
    if past == 0 or new == 1:
        return AttentionMask("dense")
    return AttentionMask("dense", torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)[None, None])
